"""A task that fills the disk of the tasks' folders: it ends all the same, says why, and gives the space back."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tesk.identity import SERVER
from tesk.settings import Settings
from tests.engines.places import LOCAL, Place
from tests.engines.running import Tesk, cancelled, sh, started

pytestmark = pytest.mark.places(*LOCAL)

FILL = "dd if=/dev/zero of=/work/big bs=4096 2>/dev/null"


@pytest.fixture
def disk(settings: Settings) -> Iterator[Path]:
    """A file system of 1 MiB that the tasks' folders lie on."""
    folder = Path(settings.data) / "tasks"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def is_full(disk: Path) -> None:
    async with asyncio.timeout(180):
        while os.statvfs(disk).f_bfree:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def assert_there_is_room(tesk: Tesk, place: Place) -> None:
    assert await place.leftovers(tesk.settings) == []
    assert (await tesk.run(executors=[sh("true")], volumes=["/work"]))["state"] == "COMPLETE"
    assert await place.leftovers(tesk.settings) == []


async def test_a_task_that_has_filled_the_disk_ends_and_gives_it_back(
    settings: Settings, place: Place, disk: Path
) -> None:
    async with started(settings) as tesk:
        task = await tesk.run(executors=[sh(f"{FILL}; true")], volumes=["/work"])
        assert task["state"] == "SYSTEM_ERROR"
        said = task["logs"][0]["system_logs"][-1]
        assert said.startswith("error: this machine failed the task: ")
        assert "No space left on device" in said
        assert task["logs"][0]["end_time"]
        await assert_there_is_room(tesk, place)


async def test_a_task_that_has_filled_the_disk_can_be_cancelled(settings: Settings, place: Place, disk: Path) -> None:
    async with started(settings) as tesk:
        task_id = await tesk.create(executors=[sh(f"{FILL}; sleep 1000")], volumes=["/work"])
        await is_full(disk)
        task = await cancelled(tesk, place, task_id)
        assert task["logs"][0]["system_logs"] == ["canceled by the user"]
        await assert_there_is_room(tesk, place)


async def test_a_disk_that_was_full_at_the_server_s_end_keeps_no_task_from_being_cancelled(
    settings: Settings, place: Place, disk: Path
) -> None:
    async with started(settings) as tesk:
        task_id = await tesk.create(executors=[sh(f"{FILL}; sleep 1000")], volumes=["/work"])
        await is_full(disk)
        await tesk.dispatcher.stop()
        await tesk.store.cancel(task_id, SERVER)
        await tesk.restart()
        task = await tesk.ended(task_id)
        assert task["state"] == "CANCELED"
        assert task["logs"][0]["system_logs"] == ["canceled by the user"]
        await assert_there_is_room(tesk, place)
