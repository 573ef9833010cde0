"""A running server for the API tests: real store, real HTTP on loopback, in a thread with an event loop of its own.

The engine runs nothing: what these tests are about is what clients send and get. Tasks are moved through their states
by the tests, through the store, as the dispatcher would.
"""

import asyncio
import contextlib
import io
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import uvloop

from tesk.server.app import create_app
from tesk.server.listen import listen, url
from tesk.server.log import Log
from tesk.server.run import Server
from tesk.settings import Settings
from tesk.store import open_store
from tesk.store.base import Store, TaskId
from tesk.tes import State, TaskLog

T = TypeVar("T")


class StillDispatcher:
    """Runs nothing; says what a test wants it to say."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.woken = 0
        self.live: dict[TaskId, TaskLog] = {}
        self.reason: str | None = None

    def wake(self) -> None:
        self.woken += 1

    async def cancel(self, task_id: TaskId) -> State | None:
        return await self.store.cancel(task_id)

    async def live_log(self, task_id: TaskId) -> TaskLog | None:
        return self.live.get(task_id)

    async def ready(self) -> str | None:
        return self.reason


class ThreadServer(Server):
    """The server without signal handlers, which only a main thread can have."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """A server that answers at `url`. `do` runs a coroutine in its event loop, as the dispatcher's own code runs."""

    def __init__(self, settings: Settings, database: str, parameters: frozenset[str] = frozenset()) -> None:
        self.settings = settings
        self.database = database
        self.parameters = parameters
        self.log_stream = io.BytesIO()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.result(30)
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"Accept-Encoding": "identity"})

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"

    def log_lines(self) -> list[dict[str, Any]]:
        """What the server has logged; complete only after `stop`."""
        return [msgspec.json.decode(line) for line in self.log_stream.getvalue().splitlines()]

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        listener = listen(self.settings.host, self.settings.port, {})
        self.url = url(listener)
        self.store = open_store(self.database, log_tail_bytes=self.settings.log_tail_bytes)
        await self.store.open()
        self.dispatcher = StillDispatcher(self.store)
        log = Log(self.log_stream, self.settings.log_level, plain=False)
        app = create_app(self.settings, self.store, self.dispatcher, parameters=self.parameters, log=log)
        self._server = ThreadServer(app, self.url)
        self._loop.call_soon(self._ready.set_result, None)
        try:
            await self._server.serve(sockets=[listener])
        finally:
            await self.store.close()
            log.close()


@contextlib.contextmanager
def running(folder: Path, parameters: frozenset[str] = frozenset(), **settings: Any) -> Iterator[Running]:
    """A server on SQLite in this folder, with these settings."""
    chosen = Settings(**{"host": "127.0.0.1", "port": 0, "data": str(folder), "log_level": "debug", **settings})
    server = Running(chosen, f"sqlite:///{folder}/tesk.db", parameters)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave its other tasks alone."""
    with running(tmp_path_factory.mktemp("api"), parameters=frozenset({"VmSize"})) as started:
        yield started


@pytest.fixture
def client(server: Running) -> httpx.Client:
    return server.client
