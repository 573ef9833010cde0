"""The state machine, over every pair of states and under races, on both databases."""

import asyncio
import itertools

import pytest

from tesk.identity import SERVER
from tesk.store import open_store, transitions
from tesk.store.base import Brief, NewTask, Store
from tesk.tes import NEXT, TERMINAL, State, TaskLog
from tests.store.conftest import LOG_TAIL_BYTES

TASK = NewTask(basic=b"{}")

ROADS: dict[State, list[State]] = {
    State.QUEUED: [],
    State.INITIALIZING: [State.INITIALIZING],
    State.RUNNING: [State.RUNNING],
    State.CANCELING: [State.CANCELING],
    **{state: [state] for state in TERMINAL},
}
"""How a new task gets into each state that QUEUED leads to; the specification's others are never entered."""


async def in_state(store: Store, state: State, *, submitted: bool = False) -> str:
    task_id = await store.create(TASK)
    if submitted:
        assert await store.submitted(task_id)
    for step in ROADS[state]:
        assert await store.advance(task_id, step, TaskLog(system_logs=[f"in {step.name}"]))
    return task_id


async def state_of(store: Store, task_id: str) -> State:
    found = await store.get(task_id, "MINIMAL", SERVER)
    assert isinstance(found, Brief)
    return found.state


@pytest.mark.parametrize(("earlier", "later"), list(itertools.product(State, State)))
def test_what_sql_allows_is_what_the_table_allows(earlier: State, later: State) -> None:
    may = later in NEXT[earlier] or (earlier is later and not earlier.is_terminal)
    assert (earlier in transitions.allowed_from(later)) is may


async def test_a_state_follows_another_only_as_the_table_says(store: Store) -> None:
    for earlier, later in itertools.product(ROADS, State):
        task_id = await in_state(store, earlier)
        may = later in NEXT[earlier] or (earlier is later and not earlier.is_terminal)
        before = await store.get(task_id, "FULL", SERVER)
        assert await store.advance(task_id, later, TaskLog(system_logs=["now"])) is may, (earlier, later)
        if may:
            assert await state_of(store, task_id) is later
        else:
            assert await store.get(task_id, "FULL", SERVER) == before, (earlier, later)


async def test_only_a_queued_task_can_be_submitted_and_as_often_as_one_likes(store: Store) -> None:
    for state in ROADS:
        task_id = await in_state(store, state)
        for _ in range(2):
            assert await store.submitted(task_id) is (state is State.QUEUED)


@pytest.mark.parametrize("submitted", [False, True])
async def test_cancel_ends_what_no_engine_knows_and_asks_the_engine_otherwise(store: Store, submitted: bool) -> None:
    for state in ROADS:
        task_id = await in_state(store, state, submitted=submitted)
        expected = state if state.is_terminal else State.CANCELING
        if state is State.QUEUED and not submitted:
            expected = State.CANCELED
        for _ in range(2):
            assert await store.cancel(task_id, SERVER) is expected
            assert await state_of(store, task_id) is expected
        unfinished = {each.id for each in await store.unfinished()}
        assert (task_id in unfinished) is not expected.is_terminal


async def test_the_first_of_many_racing_ends_wins_and_keeps_its_log(store: Store) -> None:
    for _ in range(10):
        task_id = await in_state(store, State.RUNNING)
        ends = sorted(TERMINAL) * 3
        won = await asyncio.gather(
            *(store.advance(task_id, end, TaskLog(system_logs=[f"{n} {end.name}"])) for n, end in enumerate(ends))
        )
        assert sum(won) == 1
        n = won.index(True)
        assert await state_of(store, task_id) is ends[n]
        found = await store.get(task_id, "FULL", SERVER)
        assert not isinstance(found, Brief)
        assert found is not None
        assert f"{n} {ends[n].name}".encode() in (found.logs or b"")


async def test_a_cancel_that_races_with_a_submission_is_never_lost(store: Store) -> None:
    """Either no engine was told and the task is CANCELED, or one may have been and the task is CANCELING."""
    for _ in range(30):
        task_id = await store.create(TASK)
        state, told = await asyncio.gather(store.cancel(task_id, SERVER), store.submitted(task_id))
        assert (state, told) in {(State.CANCELED, False), (State.CANCELING, True), (State.CANCELING, False)}
        assert await state_of(store, task_id) is state
        assert await store.submitted(task_id) is False


async def test_two_servers_on_one_postgresql_agree(store: Store, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        return
    other = open_store(database_url, log_tail_bytes=LOG_TAIL_BYTES)
    await other.open()
    try:
        for _ in range(20):
            task_id = await store.create(TASK)
            ends = [State.COMPLETE, State.SYSTEM_ERROR] * 4
            servers = [store, other] * 4
            calls = [server.advance(task_id, end, TaskLog()) for server, end in zip(servers, ends, strict=True)]
            won = await asyncio.gather(*calls, store.cancel(task_id, SERVER), other.cancel(task_id, SERVER))
            state = await state_of(other, task_id)
            assert sum(bool(each) for each in won[:8]) <= 1
            assert state in {State.COMPLETE, State.SYSTEM_ERROR, State.CANCELED}
    finally:
        await other.close()
