"""The container engine goes away while tasks are under way: they wait for it, and nothing runs twice."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tesk.places.local.containers import EnginePatience
from tesk.settings import Settings
from tests.engines.held import held, let_go
from tests.engines.places import LOCAL, LocalPlace, load_images
from tests.engines.running import Document, sh, started
from tests.servers import containers

RAN = sh("cat /work/ran")


class Engine:
    """A container engine whose service is started and ended at will; containers outlive it."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._service = contextlib.ExitStack()
        self.place = LocalPlace(name, folder / f"{name}.sock")

    async def start(self) -> None:
        service = containers.podman_service(self._folder, signal.SIGKILL)
        if self._name == "docker":
            service = containers.docker_daemon(self._folder, "--live-restore")
        socket = await asyncio.to_thread(self._service.enter_context, service)
        assert socket == self.place.socket

    async def end(self) -> None:
        """Ends the service: Podman's as a crash does, Docker's in order, which leaves containers as they are."""
        await asyncio.to_thread(self._service.close)

    async def remove(self) -> None:
        """Ends it for good. A Docker that lets containers live leaves a mount of its data for its next start."""
        await self.end()
        if self._name == "docker" and (self._folder / "data").is_mount():
            subprocess.run(["umount", "-l", self._folder / "data"], check=True)


@pytest.fixture(params=LOCAL)
async def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    engine = Engine(request.param, tmp_path_factory.mktemp(request.param))
    await engine.start()
    try:
        await load_images(engine.place.socket)
        yield engine
    finally:
        await engine.remove()


@pytest.fixture
def settings(engine: Engine, tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return engine.place.settings(tmp_path / "data")


async def missed(caplog: pytest.LogCaptureFixture, *task_ids: str) -> None:
    """Returns when each of the tasks has missed the engine."""
    words = [f"task {task_id}: the container engine does not answer" for task_id in task_ids]
    async with asyncio.timeout(180):
        while not all(any(each in line for line in caplog.messages) for each in words):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def assert_ran_once(task: Document) -> None:
    assert task["state"] == "COMPLETE", task["logs"]
    assert [(log["exit_code"], log["stdout"]) for log in task["logs"][0]["logs"]] == [(0, "out\n"), (0, "ran\n")]


async def test_tasks_wait_for_an_engine_that_is_away(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(settings) as tesk:
        early, late = await held(tesk, RAN), await held(tesk, RAN)
        await engine.end()
        let_go(tesk, early)
        fresh = await tesk.create(executors=[sh("true")])
        await missed(caplog, early, late, fresh)
        assert [(await tesk.task(each))["state"] for each in (early, late)] == ["RUNNING", "RUNNING"]
        await engine.start()
        assert_ran_once(await tesk.ended(early))
        let_go(tesk, late)
        assert_ran_once(await tesk.ended(late))
        assert (await tesk.ended(fresh))["state"] == "COMPLETE"
        assert await engine.place.leftovers(settings) == []


async def test_a_task_ends_when_the_engine_stays_away(engine: Engine, settings: Settings) -> None:
    async with started(msgspec.structs.replace(settings, engine_patience_s=0.1)) as tesk:
        task_id = await held(tesk, RAN)
        await engine.end()
        task = await tesk.ended(task_id)
        if task["state"] == "EXECUTOR_ERROR":  # the engine ended the program before it went away itself
            assert task["logs"][0]["logs"][0]["exit_code"] in (137, 143)
        else:
            assert task["state"] == "SYSTEM_ERROR"
            assert "error: the container engine does not answer" in task["logs"][0]["system_logs"][-1]
        await engine.start()
        assert await engine.place.leftovers(settings) == []


def test_patience_begins_with_the_first_failure_and_anew_when_the_task_has_gone_on() -> None:
    patience = EnginePatience(300.0)
    assert [patience.is_over(moment) for moment in (10_000.0, 10_300.0, 10_301.0)] == [False, False, True]
    patience.renew()
    assert [patience.is_over(moment) for moment in (20_000.0, 20_301.0)] == [False, True]
