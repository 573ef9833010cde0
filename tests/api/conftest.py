"""A running server for the API tests: real store, real HTTP on loopback, in a thread with an event loop of its own.

Store and dispatcher are the real ones. The engine alone runs nothing: what these tests are about is what clients send
and get (tests/engines is about running). Tests move tasks through their states in the store, as the dispatcher does.
"""

import asyncio
import contextlib
import io
import math
import queue
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import uvloop

from tesk.dispatch.dispatcher import Dispatcher
from tesk.life.status import TaskStatus
from tesk.places.base import ALL_ACTIVE, Demand, Denial, Job, Load, PlaceError, Report
from tesk.rules.file import RulesFile
from tesk.server.app import create_app
from tesk.server.listen import listen, url
from tesk.server.log import Log
from tesk.server.people.way import WayIn
from tesk.server.people.ways import edge_of
from tesk.server.run import Server
from tesk.settings import Settings
from tesk.store import open_store
from tesk.store.base import TaskId
from tesk.tes import State, TaskLog
from tests import known_secrets
from tests.servers.postgres import Postgres, postgres

T = TypeVar("T")
LIMIT_S = 300.0


class IdleEngine:
    """An engine (see places/base.py) without room for any task; says what a test wants it to say."""

    name = "idle"

    def __init__(self, parameters: frozenset[str]) -> None:
        self.backend_parameters = parameters
        self.live: dict[TaskId, TaskLog] = {}
        self.reason: str | None = None
        self.room = 0
        self.no_node_from_gb = math.inf
        self.ram_gb = math.inf
        self.asked = asyncio.Event()
        self.submitted: queue.SimpleQueue[TaskId] = queue.SimpleQueue()
        self.cancelled: queue.SimpleQueue[TaskId] = queue.SimpleQueue()
        self.broken: set[TaskId] = set()
        self.refused = 0
        self.ends_cancelled = False
        self.report: Report | None = None

    async def open(self, report: Report) -> None:
        self.report = report

    async def close(self) -> None: ...

    def admission(self, demand: Demand, load: Load) -> Denial | None:
        if demand.ram_gb >= self.no_node_from_gb:
            return Denial("no node", "its like")
        if demand.ram_gb + load.ram_gb > self.ram_gb:
            return Denial("tasks that run have the memory")
        return None if load.tasks < self.room else ALL_ACTIVE

    async def submit(self, job: Job) -> None:
        if job.id in self.broken:
            self.refused += 1
            raise PlaceError("no container can be made of it")
        self.submitted.put(job.id)

    async def cancel(self, task_id: TaskId) -> None:
        self.cancelled.put(task_id)
        if self.ends_cancelled and self.report is not None:
            self.report(task_id, TaskStatus(State.CANCELED, TaskLog()))

    async def forget(self, task_id: TaskId) -> None: ...

    async def known(self) -> set[TaskId]:
        self.asked.set()
        return set()

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

    def __init__(
        self, settings: Settings, database: str, parameters: frozenset[str] = frozenset(), ways: Sequence[WayIn] = ()
    ) -> None:
        self.settings = settings
        self.ways = ways
        self.database = database
        self.engine = IdleEngine(parameters)
        self.log_stream = io.BytesIO()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.result(LIMIT_S)
        self.client = httpx.Client(
            base_url=self.url,
            timeout=LIMIT_S,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [look_at_answer]},
        )

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the server did not stop"

    @property
    def server_state(self) -> Any:
        return self._server.server_state

    def connections(self) -> int:
        """How many clients are connected."""
        return len(self.server_state.connections)

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
        rules = RulesFile(self.settings.rules)
        await rules.open()
        self.dispatcher = dispatcher = Dispatcher(self.store, self.engine, self.settings, rules)
        await dispatcher.start()
        log = Log(self.log_stream, self.settings.log_level, plain=False)
        parameters = self.engine.backend_parameters
        self.edge = edge = edge_of(self.settings, log, self.store.tokens)
        if edge is not None:
            edge.ways += self.ways
            await edge.open()
        self.app = app = create_app(
            self.settings, self.store, dispatcher, parameters=parameters, rules=rules, log=log, edge=edge
        )
        self._server = ThreadServer(app, self.url)
        await self.engine.asked.wait()
        self._loop.call_soon(self._ready.set_result, None)
        try:
            await self._server.serve(sockets=[listener])
        finally:
            await dispatcher.stop()
            await rules.close()
            if edge is not None:
                await edge.close()
            await self.store.close()
            log.close()


def look_at_answer(answer: httpx.Response) -> None:
    """No secret is in an answer but those that its request asked with, in its URL or body."""
    if "Content-Length" in answer.headers:  # what follows a log ends later
        where = f"the answer to {answer.request.method} {answer.request.url.path}"
        found = f"{answer.headers}\n{answer.read().decode(errors='replace')}"
        known_secrets.look(where, found, f"{answer.request.url}\n{sent(answer.request)}")


def sent(request: httpx.Request) -> str:
    """Its body, which nobody has any more where it was sent in pieces."""
    with contextlib.suppress(httpx.RequestNotRead):
        return request.content.decode(errors="replace")
    return ""


@contextlib.contextmanager
def running(
    folder: Path,
    parameters: frozenset[str] = frozenset(),
    database: str = "",
    ways: Sequence[WayIn] = (),
    **settings: Any,
) -> Iterator[Running]:
    """A server with these settings, on SQLite in this folder unless told otherwise. `ways`: further ways in."""
    chosen = Settings(**{"host": "127.0.0.1", "port": 0, "data": str(folder), "log_level": "debug", **settings})
    server = Running(chosen, database or f"sqlite:///{folder}/tesk.db", parameters, ways)
    with known_secrets.log_stream("the log of a server", server.log_stream):
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave its other tasks alone; all of them run on both databases."""
    database = ""
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres_server").new_database()
    with running(tmp_path_factory.mktemp("api"), frozenset({"VmSize"}), database) as started:
        yield started


@pytest.fixture
def client(server: Running) -> httpx.Client:
    return server.client
