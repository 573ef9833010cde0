"""What a task says is a name to the container engine, and never another request of it."""

from pathlib import Path

import msgspec
import pytest

from tesk import tes
from tesk.settings import Settings
from tesk.store.base import NewTask
from tests.engines.places import LOCAL
from tests.engines.running import Tesk, sh, started
from tests.servers.between import between

pytestmark = pytest.mark.places(*LOCAL)
EXPORT = "../images/get?names=localhost/tesk-test:1&x="
"""Joined into the engine's URL as it is, this makes it send the whole image."""


async def test_an_image_that_is_none_is_not_asked_for(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Such a task may have been stored by a version that took it."""
    task = tes.decode(msgspec.json.encode({"executors": [{"image": EXPORT, "command": ["true"]}]}))
    folder = tmp_path_factory.mktemp("middle")
    async with (
        between(folder, Path(settings.engine_socket)) as middle,
        started(msgspec.structs.replace(settings, engine_socket=str(middle.socket))) as tesk,
    ):
        task_id = await tesk.store.create(NewTask(*tes.documents(task)))
        tesk.dispatcher.wake()
        ended = await tesk.ended(task_id)
    assert ended["state"] == "SYSTEM_ERROR"
    assert "is not the name of an image" in ended["logs"][0]["system_logs"][-1]
    assert not [line for line in middle.lines if "images/get" in line or "names=" in line]


async def test_a_working_directory_may_have_any_name(tesk: Tesk) -> None:
    path = "/w?path=/etc&x=1#%41 ü"
    task = await tesk.run(executors=[sh("pwd; touch x", workdir=path)])
    assert task["logs"][0]["logs"][0]["stdout"] == f"{path}\n", task
