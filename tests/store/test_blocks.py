"""Summaries hold what they should, whatever came between, and a late id finds the frontier closed."""

import asyncio
import time

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesk.identity import SERVER
from tesk.store import blocks, postgresql_blocks, summariser
from tesk.store.base import Brief, NewTask, Query, Store
from tesk.store.identifiers import now_ms, show
from tesk.store.postgresql import PostgresqlStore
from tesk.tes import State, TaskLog
from tests.servers.postgres import Postgres

POSITIONS = st.sets(st.integers(0, blocks.SIZE - 1), min_size=1).map(sorted)


@given(POSITIONS)
def test_what_is_packed_is_unpacked(positions: list[int]) -> None:
    assert list(blocks.positions(blocks.unpack(blocks.pack(positions)))) == positions[::-1]


@given(st.sets(st.integers(0, 400), min_size=1), st.sets(st.integers(401, 800), min_size=1))
def test_positions_are_added_to_those_before(had: set[int], more: set[int]) -> None:
    extended = blocks.extended(blocks.pack(sorted(had)), sorted(more))
    assert set(blocks.positions(blocks.unpack(extended))) == had | more


def test_a_tag_alone_and_a_tag_with_a_value_never_have_one_key() -> None:
    tags = [("a", "b=c"), ("a=b", "c"), ("a", ""), ("a=b=c", ""), ("1:a", "b"), ("", "1:a=b")]
    assert len({blocks.tag_key(*tag) for tag in tags}) == len(tags)


def test_the_state_is_looked_up_last_since_every_block_has_most_states() -> None:
    keys = blocks.required_keys(State.COMPLETE, "sample-1", [("run", "1"), ("step", "")])
    assert keys == [("t3:run=1",), ("kstep",), ("nsample-1",), ("u", "s5")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SIZE", 4)
    monkeypatch.setattr(summariser, "FEWEST_NEW", 1)
    monkeypatch.setattr(summariser, "PAUSE_S", 3600)
    monkeypatch.setattr(postgresql_blocks, "SETTLED_MS", -1000)


async def rows(store: Store, url: str, server: Postgres, sql: str) -> list[tuple[int, ...]]:
    """What the store's database answers, for numbers."""
    if url.startswith("postgresql"):
        answer = await asyncio.to_thread(server.psql, sql, url)
        return [tuple(int(number) for number in line.split("|")) for line in answer.splitlines()]
    assert hasattr(store, "_run_apart")
    from tesk.store.queries import Sql

    return [tuple(row) for row in await store._run_apart(Sql(sql))]


@pytest.mark.usefixtures("small")
async def test_blocks_of_which_nothing_is_left_go_and_others_shrink(
    store: Store, database_url: str, postgres_server: Postgres
) -> None:
    ids = [await store.create(NewTask(basic=b"{}", name="n", tags={"a": "b"})) for _ in range(10)]
    await store.summarise()
    sql = "SELECT number, held, unended, alive, pruned FROM span ORDER BY number"
    assert await rows(store, database_url, postgres_server, sql) == [(0, 4, 4, 4, 0), (1, 4, 4, 4, 0), (2, 2, 2, 2, 0)]
    for task_id in (*ids[:4], ids[4], ids[5], ids[9]):
        await store.advance(task_id, State.COMPLETE, TaskLog())
    await store.summarise()
    assert await rows(store, database_url, postgres_server, sql) == [(0, 4, 0, 4, 0), (1, 4, 2, 4, 0), (2, 2, 1, 2, 0)]
    assert await store.prune(now_ms() + 60_000) == 7
    await store.summarise()
    assert await rows(store, database_url, postgres_server, sql) == [(1, 4, 2, 2, 0), (2, 2, 1, 1, 0)]
    ordinals = await rows(store, database_url, postgres_server, "SELECT ordinal FROM place ORDER BY 1")
    assert ordinals == [(4,), (5,), (6,), (7,), (8,), (9,)]
    assert await store.page(Query(limit=9), SERVER) == [Brief(ids[n], State.QUEUED) for n in (8, 7, 6)]


@pytest.mark.usefixtures("small")
async def test_summarising_again_without_change_changes_nothing(
    store: Store, database_url: str, postgres_server: Postgres
) -> None:
    for n in range(9):
        task_id = await store.create(NewTask(basic=b"{}", tags={"n": str(n), "a": "b"}))
        if n % 2:
            await store.advance(task_id, State.COMPLETE, TaskLog())
        await store.summarise()
    sql = "SELECT count(*), sum(length(found)), sum(span) FROM term"
    before = await rows(store, database_url, postgres_server, sql)
    await store.summarise()
    assert await rows(store, database_url, postgres_server, sql) == before


@pytest.mark.usefixtures("small")
async def test_a_task_with_an_id_below_the_frontier_gets_another(postgres_server: Postgres) -> None:
    """As of a server whose clock is behind that of one that has summarised."""
    url = postgres_server.new_database()
    store, late = (PostgresqlStore(url, log_tail_bytes=9) for _ in range(2))
    for each in (store, late):
        await each.open()
    try:
        late._identifiers._clock_ms = lambda: now_ms() - 600_000
        newest = await store.create(NewTask(basic=b"{}"))
        await store.summarise()
        created = await asyncio.gather(*(late.create(NewTask(basic=b"{}", tags={"a": "b"})) for _ in range(20)))
        assert all(task_id > newest for task_id in created)
        page = await store.page(Query(limit=99, tags=(("a", "b"),)), SERVER)
        assert sorted(each.id for each in page) == sorted(created)
    finally:
        for each in (store, late):
            await each.close()


async def test_the_frontier_waits_for_tasks_that_are_being_added(postgres_server: Postgres) -> None:
    """And a task that waits for the frontier sees where it went."""
    url = postgres_server.new_database()
    store = PostgresqlStore(url, log_tail_bytes=9)
    await store.open()
    mover = await asyncpg.connect(url)
    try:
        far = (now_ms() + 3_600_000) << 20
        async with mover.transaction():
            await mover.execute("SELECT closed FROM frontier FOR UPDATE")
            create = asyncio.create_task(store.create(NewTask(basic=b"{}")))
            await waits_for_a_lock(postgres_server, url)
            await mover.execute("UPDATE frontier SET closed = $1", far)
        assert await create > show(far)
    finally:
        await mover.close()
        await store.close()


async def waits_for_a_lock(server: Postgres, url: str) -> None:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    end = time.monotonic() + 300
    while await asyncio.to_thread(server.psql, sql, url) == "0":
        assert time.monotonic() < end, "no insert waits for the frontier"
        await asyncio.sleep(0.02)


async def test_summarising_may_be_asked_for_while_it_is_under_way(
    store: Store, database_url: str, postgres_server: Postgres, small: None
) -> None:
    await asyncio.gather(*(store.create(NewTask(basic=b"{}")) for _ in range(50)))
    await asyncio.gather(*(store.summarise() for _ in range(5)))
    assert await rows(store, database_url, postgres_server, "SELECT sum(held) FROM span") == [(50,)]
