"""What a container engine answers now and then only, and what the local engine makes of it.

The engine here is an HTTP server on a socket that answers as it is told to.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tesk.engines.base import EngineError
from tesk.engines.local.containers import Containers

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
