"""What a task says is a name to the container engine, and never another request of it."""

from pathlib import Path

import msgspec
import pytest

from tesk import tes
from tesk.engines.local.containers import _Docker
from tesk.settings import Settings
from tesk.store.base import NewTask
from tests.engines.places import LOCAL
from tests.engines.running import Tesk, sh, started
from tests.servers.between import between

local = pytest.mark.parametrize("place", LOCAL, indirect=True, scope="session")
EXPORT = "../images/get?names=localhost/tesk-test:1&x="
"""Joined into the engine's URL as it is, this makes it send the whole image."""


@local
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


@local
async def test_a_working_directory_may_have_any_name(tesk: Tesk) -> None:
    path = "/w?path=/etc&x=1#%41 ü"
    task = await tesk.run(executors=[sh("pwd; touch x", workdir=path)])
    assert task["logs"][0]["logs"][0]["stdout"] == f"{path}\n", task


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("images/quay.io/a/b:1@sha256:00/json", "/v1.43/images/quay.io/a/b:1@sha256:00/json"),
        ("images/[2001:db8::1]:5000/a/json", "/v1.43/images/%5B2001:db8::1%5D:5000/a/json"),
        ("images/get?names=big/json", "/v1.43/images/get%3Fnames=big/json"),
        ("images/a#b/json", "/v1.43/images/a%23b/json"),
        ("images/%2e%2e/json", "/v1.43/images/%252e%252e/json"),
        ("images/a\r\nHost: b/json", "/v1.43/images/a%0D%0AHost:%20b/json"),
    ],
)
async def test_a_name_is_escaped_where_the_request_is_made(path: str, asked: str) -> None:
    async with _Docker(url="tcp://127.0.0.1:1", api_version="v1.43") as docker:
        assert docker._canonicalize_url(path).raw_path_qs == asked


@pytest.mark.parametrize("path", ["images/../images/get", "images//json", "images/./json", "images/a/.."])
async def test_a_name_that_leads_elsewhere_is_no_request(path: str) -> None:
    async with _Docker(url="tcp://127.0.0.1:1", api_version="v1.43") as docker:
        with pytest.raises(ValueError, match="no path of the container engine's API"):
            docker._canonicalize_url(path)
