"""What a container engine answers now and then only, and what the local engine makes of it.

The engine here is an HTTP server on a socket that answers as it is told to.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tesk import tes
from tesk.clock import now
from tesk.engines.base import Demand, EngineError, Job, TaskStatus
from tesk.engines.local.containers import Containers
from tesk.engines.local.filers import Filers
from tesk.engines.local.folder import Folder
from tesk.engines.local.run import Machine, Run
from tesk.settings import Settings
from tesk.tes import State

Answer = Callable[[], Awaitable[web.Response]]


@contextlib.asynccontextmanager
async def answering(folder: Path, answers: dict[str, Answer]) -> AsyncIterator[Containers]:
    """The containers of an engine that gives these answers, by path without the version of the API."""

    async def handle(request: web.Request) -> web.Response:
        path = "/" + request.path.lstrip("/").partition("/")[2]
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.41"})
        return await answers[path]() if path in answers else web.json_response({"message": path}, status=404)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine.sock")).start()
    containers = Containers(folder / "engine.sock", "instance")
    try:
        yield containers
    finally:
        await containers.close()
        await runner.cleanup()


def answer(document: Any, status: int = 200) -> Answer:
    async def give() -> web.Response:
        return web.json_response(document, status=status)

    return give


async def test_a_list_of_containers_that_is_refused_is_an_error_of_the_engine(tmp_path: Path) -> None:
    refused = answer({"message": "layer not known"}, 500)
    async with answering(tmp_path, {"/containers/json": refused}) as containers:
        with pytest.raises(EngineError, match="layer not known"):
            await containers.names()


async def test_a_container_without_a_name_is_known_by_its_id(tmp_path: Path) -> None:
    labels = {"tesk.task": "one"}
    listed = [{"Id": "f00", "Names": None, "Labels": labels}, {"Id": "ba4", "Names": ["/tesk-one-0"], "Labels": labels}]
    async with answering(tmp_path, {"/containers/json": answer(listed)}) as containers:
        assert await containers.names() == {"f00": "one", "tesk-one-0": "one"}


async def test_an_executor_is_in_the_log_only_once_it_is_about_to_start(tmp_path: Path) -> None:
    """A task is taken up in its first executor, and the engine is slow to say that there is no second one yet."""
    task, _ = tes.parse(b'{"executors": [{"image": "a", "command": ["b"]}, {"image": "a", "command": ["c"]}]}')
    asked, reports = asyncio.Event(), list[TaskStatus]()
    states = iter(["running"])

    async def first() -> web.Response:
        return web.json_response({"Id": "x", "State": {"Status": next(states, "exited"), "ExitCode": 0}})

    async def second() -> web.Response:
        asked.set()
        await asyncio.sleep(3600)
        raise AssertionError

    folder = Folder(tmp_path / "task")
    folder.make()
    folder.control(0)
    for name in ("inputs", "started-0"):
        folder.establish(name, {"at": now()})
    answers = {
        "/images/a/json": answer({}),
        "/containers/tesk-id-0/json": first,
        "/containers/tesk-id-1/json": second,
    }
    async with answering(tmp_path, answers) as containers:
        machine = Machine(Settings(data=str(tmp_path)), containers, Filers(), tmp_path, "instance", 1.0)
        run = Run(Job("id", Demand(1, 1), task), folder, machine, reports.append)
        life = asyncio.create_task(run.live())
        async with asyncio.timeout(60):
            await asked.wait()
        assert reports[-1].state is State.RUNNING
        assert [log.exit_code for log in run.live_log().logs] == [0]
        life.cancel()
        await asyncio.wait([life])
