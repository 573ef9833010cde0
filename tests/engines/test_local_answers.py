"""What a real container engine answers now and then only, or late, and what the local engine makes of it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tesk.identity import SERVER
from tesk.places.base import PlaceError
from tesk.places.local.containers import Containers
from tesk.places.local.place import instance
from tesk.settings import Settings
from tests.engines.held import held, let_go
from tests.engines.places import LOCAL, LocalPlace
from tests.engines.running import running, sh, started
from tests.servers.between import Between, between
from tests.servers.containers import IMAGE

pytestmark = pytest.mark.places(*LOCAL)


@pytest.fixture
async def middle(place: LocalPlace, tmp_path: Path) -> AsyncIterator[Between]:
    async with between(tmp_path, place.socket) as made:
        yield made


async def test_a_list_of_containers_that_is_refused_is_an_error_of_the_engine(middle: Between) -> None:
    middle.changes["/containers/json"] = lambda document: (500, {"message": "layer not known"})
    containers = Containers(middle.socket, "instance")
    try:
        with pytest.raises(PlaceError, match="layer not known"):
            await containers.names()
    finally:
        await containers.close()


async def test_what_is_removed_while_the_engine_answers_is_no_error(place: LocalPlace) -> None:
    """Podman answers with 500 then, to a question about the container and to every list."""
    ours = uuid.uuid4().hex  # all Podmans of a machine have one store
    containers = Containers(place.socket, ours)
    shape = {"Image": IMAGE, "Cmd": ["true"], "Labels": {"tesk.instance": ours, "tesk.task": "t"}}

    async def come_and_go(name: str) -> None:
        for _ in range(8):
            await containers.create(name, shape)
            looks = [asyncio.create_task(containers.state(name)) for _ in range(4)]
            await containers.remove(name)
            await asyncio.gather(*looks)

    async def listed() -> None:
        while True:
            await containers.names()

    listing = asyncio.create_task(listed())
    try:
        await asyncio.gather(*(come_and_go(f"tesk-{ours}-{number}") for number in range(4)))
        assert not listing.done(), listing
        assert await containers.names() == {}
    finally:
        listing.cancel()
        await asyncio.wait([listing])
        await containers.close()


async def test_a_container_without_a_name_is_known_by_its_id(settings: Settings, middle: Between) -> None:
    def without_names(found: list[dict[str, Any]]) -> tuple[int, Any]:
        return 200, [{**each, "Names": None} for each in found]

    async with started(msgspec.structs.replace(settings, engine_socket=str(middle.socket))) as tesk:
        task_id = await tesk.create(executors=[sh("sleep 1000")])
        await tesk.until(task_id, running)
        containers = Containers(middle.socket, instance(Path(settings.data)))
        try:
            assert await containers.names() == {f"tesk-{task_id}-0": task_id}
            middle.changes["/containers/json"] = without_names
            (name,) = await containers.names()
            assert len(name) == 64
        finally:
            middle.changes.clear()
            await containers.close()
        await tesk.dispatcher.cancel(task_id, SERVER)
        await tesk.ended(task_id)


async def test_an_executor_is_in_the_log_only_once_it_is_about_to_start(settings: Settings, middle: Between) -> None:
    """A task is taken up in its first executor, and the engine is slow to say that there is no second one yet."""
    async with started(msgspec.structs.replace(settings, engine_socket=str(middle.socket))) as tesk:
        task_id = await held(tesk, sh("echo second"))
        middle.held = f"/tesk-{task_id}-1/json"
        await tesk.restart()
        let_go(tesk, task_id)
        async with asyncio.timeout(180):
            await middle.waits.wait()
        log = await tesk.dispatcher.live_log(task_id, SERVER)
        assert log is not None
        assert [entry.exit_code for entry in log.logs] == [0]
        middle.go.set()
        assert [entry["exit_code"] for entry in (await tesk.ended(task_id))["logs"][0]["logs"]] == [0, 0]


async def test_how_an_executor_ended_is_read_and_the_engine_not_asked(
    settings: Settings, middle: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman takes some 15 ms to say it. What a program leaves in that place and is no exit code counts for nothing."""
    monkeypatch.setattr("tesk.places.local.executors.BELIEVED_S", 1000.0)
    async with started(msgspec.structs.replace(settings, engine_socket=str(middle.socket))) as tesk:
        task = await tesk.run(executors=[sh("exit 3")])
        asked = [line.split()[:2] for line in middle.lines if f"/tesk-{task['id']}-0" in line]
        lies = await tesk.run(executors=[sh("(sleep 0.2; echo 0 0 > /.tesk/control/ended) & exec sh -c 'kill -9 $$'")])
    assert (task["state"], task["logs"][0]["logs"][0]["exit_code"]) == ("EXECUTOR_ERROR", 3)
    assert not [path for method, path in asked if method == "GET"], asked
    assert lies["logs"][0]["logs"][0]["exit_code"] == 137


async def test_podman_is_not_asked_for_what_it_runs_programs_for(settings: Settings, middle: Between) -> None:
    """To `/version` and `/info` Podman runs a dozen programs; a readiness probe asks every few seconds."""
    async with started(msgspec.structs.replace(settings, engine_socket=str(middle.socket))) as tesk:
        assert (await tesk.run(executors=[sh("true")]))["state"] == "COMPLETE"
        async with asyncio.timeout(180):
            while await tesk.dispatcher.ready() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    asked = {line.split()[1].partition("?")[0] for line in middle.lines}
    assert any(path.endswith("/_ping") for path in asked), asked
    assert not [path for path in asked if path.endswith(("/version", "/info"))]
