"""An executor's container is made while the inputs are on their way; it starts when they are there, never before."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiodocker
import msgspec
import pytest

from tesk.settings import Settings
from tests.engines.gates import Gates, gates, reached
from tests.engines.places import LOCAL, LocalPlace, listed
from tests.engines.running import Document, Tesk, cancelled, sh, started
from tests.servers.between import between
from tests.servers.containers import image_archive

pytestmark = pytest.mark.places(*LOCAL)
CHANGING = "localhost/tesk-changing:1"


@pytest.fixture
def door(place: LocalPlace) -> Iterator[Gates]:
    """Keeps the input `late` on its way until it is opened."""
    with gates(place.host) as running:
        yield running


def late(door: Gates) -> list[Document]:
    return [{"path": "/in/late", "url": f"{door.url}/late"}]


async def prepared(place: LocalPlace, task_id: str, not_id: str = "") -> str:
    """The id of the first executor's container, once there is one that has not started. `not_id`: of an earlier one."""
    async with asyncio.timeout(180):
        while True:
            for each in await listed(place.socket, f"tesk.task={task_id}", "tesk.executor=0", not_running=True):
                if each["Id"] != not_id:
                    assert each["State"] in ("created", "configured", "initialized")
                    return str(each["Id"])
            await asyncio.sleep(0.02)


async def test_a_program_starts_when_its_inputs_are_there(tesk: Tesk, place: LocalPlace, door: Gates) -> None:
    task_id = await tesk.create(executors=[sh("cat /in/late")], inputs=late(door))
    await reached(door, "late")
    await prepared(place, task_id)
    assert (await tesk.task(task_id))["state"] == "INITIALIZING"
    assert not (tesk.data / f"tasks/{task_id}/facts/started-0").exists()
    door.open("late")
    task = await tesk.ended(task_id)
    assert task["logs"][0]["logs"][0]["stdout"] == "late\n", task


async def test_cancelling_removes_what_never_started(tesk: Tesk, place: LocalPlace, door: Gates) -> None:
    task_id = await tesk.create(executors=[sh("cat /in/late")], inputs=late(door))
    await prepared(place, task_id)
    assert (await cancelled(tesk, place, task_id))["logs"][0]["logs"] == []


async def test_the_next_server_makes_it_anew(tesk: Tesk, place: LocalPlace, door: Gates) -> None:
    """Its settings may be others, and the server another version."""
    task_id = await tesk.create(executors=[sh("cat /in/late")], inputs=late(door))
    first = await prepared(place, task_id)
    await tesk.restart()
    await prepared(place, task_id, not_id=first)
    door.open("late")
    task = await tesk.ended(task_id)
    assert task["logs"][0]["logs"][0]["stdout"] == "late\n", task


async def test_one_that_somebody_tidies_away_is_made_anew(
    tesk: Tesk, place: LocalPlace, door: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker container prune` does with all that do not run. It takes hours at times until inputs are there."""
    monkeypatch.setattr("tesk.places.local.executors.BELIEVED_S", 0.0)
    task_id = await tesk.create(executors=[sh("cat /in/late")], inputs=late(door))
    await prepared(place, task_id)
    await tesk.engine._machine.containers.remove(f"tesk-{task_id}-0")  # type: ignore[attr-defined]
    door.open("late")
    task = await tesk.ended(task_id)
    assert task["logs"][0]["logs"][0]["stdout"] == "late\n", task


async def test_what_cannot_be_made_fails_before_the_inputs_are_there(tesk: Tesk, door: Gates) -> None:
    task = await tesk.run(executors=[sh("true")], inputs=late(door), volumes=["/a:b,c"])
    assert task["state"] == "SYSTEM_ERROR"
    assert "'/a:b,c' cannot be mounted" in task["logs"][0]["system_logs"][-1]


async def test_an_image_built_anew_under_its_name_is_taken_for_what_it_is_now(tesk: Tesk, place: LocalPlace) -> None:
    """The first container is made, and the inputs are fetched, by what is known of the image from the task before."""
    task = {
        "executors": [{"image": CHANGING, "command": ["ls", "/app"]}],
        "inputs": [{"path": "/app/x", "content": ""}],
    }
    async with aiodocker.Docker(url=f"unix://{place.socket}") as docker:
        await docker.images.import_image(image_archive(CHANGING))
        found = [await tesk.run(**task) for _ in range(2)]
        await docker.images.import_image(image_archive(CHANGING, programs={"app/program": 0}))
        found.append(await tesk.run(**task))
    assert [each["logs"][0]["logs"][0]["stdout"] for each in found] == ["x\n", "x\n", "program\nx\n"], found


async def test_a_start_is_on_record_before_the_engine_is_asked_for_it(settings: Settings, place: LocalPlace) -> None:
    async with (
        between(Path(settings.data), place.socket) as middle,
        started(msgspec.structs.replace(settings, engine_socket=str(middle.socket))) as tesk,
    ):
        middle.held = "-0/start"
        task_id = await tesk.create(executors=[sh("cat /in/x")], inputs=[{"path": "/in/x", "content": "ran\n"}])
        async with asyncio.timeout(180):
            await middle.waits.wait()
        facts = {entry.name for entry in (tesk.data / f"tasks/{task_id}/facts").iterdir()}
        assert facts >= {"began", "image", "found", "inputs", "started-0"}
        middle.go.set()
        assert (await tesk.ended(task_id))["logs"][0]["logs"][0]["stdout"] == "ran\n"
