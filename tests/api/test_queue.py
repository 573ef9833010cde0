"""Which queued tasks the engine is given, by the API and a real database; the engine only says what it has room for."""

import contextlib
import queue
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import pytest

from tesk.dispatch import admission
from tesk.identity import SERVER, Owner
from tesk.server.tasks import Tasks
from tesk.store import postgresql, sqlite
from tesk.store.base import NewTask, StoreError
from tests.api.conftest import Running, running
from tests.servers.cluster import until
from tests.servers.postgres import Postgres
from tests.servers.stalled import stalled

LARGE = {"ram_gb": 100}
DOCUMENT = b'{"executors":[{"image":"alpine","command":["true"]}]}'


def post(server: Running, **resources: float) -> str:
    document = {"executors": [{"image": "alpine", "command": ["true"]}], "resources": resources}
    return str(server.client.post("/v1/tasks", json=document).json()["id"])


def post_again(server: Running) -> str:
    """Posts until a create is taken, as clients do whose creates are answered 503."""
    document = {"executors": [{"image": "alpine", "command": ["true"]}]}
    found = until(lambda: server.client.post("/v1/tasks", json=document).json().get("id"), what="a create")
    return str(found)


async def look(server: Running) -> None:
    """Has the dispatcher look at the queue."""
    server.dispatcher.work.wake.set()


@contextlib.contextmanager
def impatient(server: Running) -> Iterator[None]:
    """The server waits for its database for half a second."""
    handlers = server.app._cancel["POST"].handler.__self__  # type: ignore[attr-defined]
    assert isinstance(handlers, Tasks)
    limit = handlers._within.__self__._limit  # type: ignore[attr-defined]
    usual, limit.seconds = limit.seconds, 0.5
    try:
        yield
    finally:
        limit.seconds = usual


def given(server: Running) -> str:
    return server.engine.submitted.get(timeout=180)


def state(server: Running, task_id: str) -> str:
    return str(server.client.get(f"/v1/tasks/{task_id}").json()["state"])


def database(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{folder}/tesk.db"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()


def test_another_owners_task_that_fits_does_not_wait_behind_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "AGAIN_S", 3600.0)

    async def create(user: str, ram_gb: int) -> str:
        document = b'{"executors":[{"image":"alpine","command":["true"]}],"resources":{"ram_gb":%d}}' % ram_gb
        task_id = await server.store.create(NewTask(basic=document, owner=Owner(user)))
        server.dispatcher.wake()
        return task_id

    with running(tmp_path) as server:
        server.engine.room, server.engine.ram_gb = 9, 10
        first = server.do(create("ann", 6))
        assert given(server) == first
        waiting = server.do(create("ann", 6))
        full = f"/v1/tasks/{waiting}?view=FULL"
        until(lambda: "tasks that run have the memory" in server.client.get(full).text, what="why it waits")
        small = server.do(create("ben", 1))
        assert given(server) == small


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_owner_with_few_tasks_has_a_turn_behind_more_of_another_than_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    limits = {"AHEAD": 5, "PAGE": 3, "FEW": 2, "LATE_S": 0.0, "RESCAN_S": 3600.0, "AGAIN_S": 3600.0}
    for name, value in limits.items():
        monkeypatch.setattr(admission, name, value)

    async def create(user: str) -> str:
        return await server.store.create(NewTask(basic=DOCUMENT, owner=Owner(user)))

    with running(tmp_path, database=database(kind, tmp_path, request)) as server:
        many = [server.do(create("ann")) for _ in range(30)]
        few = [server.do(create("ben")) for _ in range(4)]
        one = server.do(create("cy"))
        server.engine.room = 3
        server.do(look(server))
        assert [given(server) for _ in range(3)] == [many[0], few[0], one]
        server.engine.room = 99
        server.do(look(server))
        rest = [given(server) for _ in range(len(many) + len(few) - 2)]
        assert sorted(rest) == sorted([*many[1:], *few[1:]]), "each is given once"
        assert [each for each in rest if each in many] == many[1:]
        assert [each for each in rest if each in few] == few[1:]
        assert rest.index(few[-1]) < 10


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_cancel_that_the_database_took_long_to_write_ends_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 600.0)
    monkeypatch.setattr(postgresql, "STATEMENT_S", 600.0)
    url = database(kind, tmp_path, request)
    with running(tmp_path, database=url) as server:
        server.engine.room = 1
        server.engine.ends_cancelled = True
        task_id = post(server)
        assert given(server) == task_id
        with stalled(url), impatient(server):
            assert server.client.post(f"/v1/tasks/{task_id}:cancel", json={}).status_code == 503
        assert server.engine.cancelled.get(timeout=180) == task_id
        until(lambda: state(server, task_id) == "CANCELED", what="its end")
        following = post_again(server)
        assert given(server) == following, "its room is free again"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_create_that_was_answered_503_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 600.0)
    monkeypatch.setattr(postgresql, "STATEMENT_S", 600.0)
    url = database(kind, tmp_path, request)
    document = {"executors": [{"image": "alpine", "command": ["true"]}]}
    with running(tmp_path, database=url) as server:
        server.engine.room = 9
        with stalled(url), impatient(server):
            assert server.client.post("/v1/tasks", json=document).status_code == 503
        again = post_again(server)
        assert given(server) == again
        until(lambda: len(server.client.get("/v1/tasks").json()["tasks"]) == 1, what="the other one's removal")
        following = post_again(server)
        assert given(server) == following


def test_what_is_canceling_in_the_store_is_ended_whoever_wrote_it(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.engine.room = 1
        server.engine.ends_cancelled = True
        task_id = post(server)
        assert given(server) == task_id
        server.do(server.store.cancel(task_id, SERVER))
        assert server.engine.cancelled.get(timeout=180) == task_id
        until(lambda: state(server, task_id) == "CANCELED", what="its end")


@pytest.mark.parametrize("unknown", ["0000000000{:03}", "none-{:03}-" + "x" * 50_000])
def test_cancelling_unknown_tasks_leaves_nothing_behind(tmp_path: Path, unknown: str) -> None:
    def held() -> dict[str, int]:
        parts = [server.dispatcher.work, server.dispatcher._cancelling]
        return {name: len(each) for part in parts for name, each in vars(part).items() if isinstance(each, Sized)}

    with running(tmp_path) as server:
        before = held()
        for number in range(20):
            assert server.client.post(f"/v1/tasks/{unknown.format(number)}:cancel", json={}).status_code == 404
        assert held() == before


def test_a_task_that_the_engine_does_not_take_keeps_no_other_one_back(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        broken, *others = [post(server) for _ in range(3)]
        server.engine.broken.add(broken)
        server.engine.room = 3
        assert [given(server), given(server)] == others
        server.engine.broken.clear()
        assert given(server) == broken, "it is tried again meanwhile"


def test_a_task_that_is_cancelled_while_the_engine_does_not_take_it_is_not_started(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        broken = post(server)
        server.engine.broken.add(broken)
        server.engine.ends_cancelled = True
        server.engine.room = 1
        until(lambda: server.engine.refused, what="a first try")
        assert server.client.post(f"/v1/tasks/{broken}:cancel", json={}).status_code == 200
        server.engine.broken.clear()
        until(lambda: state(server, broken) == "CANCELED", what="its end")
        assert f"start {broken}" not in server.do(chores(server))
        following = post(server)
        assert given(server) == following


async def chores(server: Running) -> set[str]:
    return server.dispatcher.work.chores


def test_a_stored_document_that_cannot_be_read_ends_that_task_alone(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        documents = (b"nonsense", b'{"executors":1}', b'{"resources":1}')
        damaged = [server.do(server.store.create(NewTask(basic=each))) for each in documents]
        task_id = post(server)
        server.engine.room = 1
        assert given(server) == task_id
        until(lambda: {state(server, each) for each in damaged} == {"SYSTEM_ERROR"}, what="their end")


def test_tasks_that_the_engine_holds_back_let_those_behind_them_pass(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        large = [post(server, ram_gb=100) for _ in range(450)]
        server.engine.no_node_from_gb = 100
        server.engine.room = 3
        small = [post(server), post(server)]
        assert [given(server), given(server)] == small
        first, last = (server.client.get(f"/v1/tasks/{each}?view=FULL").json() for each in (large[0], large[-1]))
        assert first["logs"][0]["system_logs"] == ["waiting: no node"]
        assert last["logs"][0]["system_logs"] == ["waiting for its turn; the first in line is waiting: no node"]
        server.engine.no_node_from_gb = 1000
        assert given(server) == large[0]


def test_a_task_whose_submission_the_store_could_not_note_is_next_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as server:
        ids = [post(server) for _ in range(3)]
        noted: Any = server.store.submitted
        failures = queue.SimpleQueue[StoreError]()
        for words in ("the disk is full", "the disk is full still"):
            failures.put(StoreError(words))

        async def fails_at_first(task_id: str) -> bool:
            if not failures.empty():
                raise failures.get()
            return bool(await noted(task_id))

        monkeypatch.setattr(server.store, "submitted", fails_at_first)
        server.engine.room = 3
        assert [given(server) for _ in ids] == ids


def test_a_long_document_is_weighed_like_any_other(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.engine.no_node_from_gb = 100
        server.engine.room = 2
        document = {
            "executors": [{"image": "alpine", "command": ["echo", "x" * 100_000]}],
            "resources": LARGE,
        }
        held = server.client.post("/v1/tasks", json=document).json()["id"]
        small = post(server)
        assert given(server) == small
        full = f"/v1/tasks/{held}?view=FULL"
        task = until(lambda: "logs" in (task := server.client.get(full).json()) and task, what="why it waits")
        assert task["logs"][0]["system_logs"] == ["waiting: no node"]
        server.engine.no_node_from_gb = 1000
        assert given(server) == held
