"""What the store promises to the rest of tesk, on both databases."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from tesk.identity import SERVER, Owner
from tesk.rules import NO_GRANTS, Grants
from tesk.store import open_store, postgresql
from tesk.store.base import Brief, NewTask, Query, Row, Store
from tesk.store.identifiers import Identifiers, now_ms, show
from tesk.tes import ExecutorLog, OutputFileLog, State, TaskLog
from tests.store.conftest import LOG_TAIL_BYTES

UNKNOWN_IDS = [
    "",
    "0",
    "0" * 13,
    "z" * 13,
    "0" * 14,
    "1m83myf2cvh0O",
    "1m83myf2cvh\u0660\u0660",
    "1m83myf2cv\0\0\0",
    "UPPERUPPERUPP",
]
BASIC = b'{"name":"hello","executors":[{"image":"alpine","command":["true"]}]}'
FULL = b'{"name":"hello","inputs":[{"path":"/a","content":"x"}],"executors":[{"image":"alpine","command":["true"]}]}'
RUNNING_LOG = TaskLog(
    logs=[ExecutorLog(0, start_time="2026-01-01T00:00:00Z", stdout="out", stderr="err")],
    outputs=[OutputFileLog("file:///x", "/x", "1")],
    system_logs=["pulled"],
)


async def row(store: Store, task_id: str, view: str) -> Row:
    found = await store.get(task_id, view, SERVER)
    assert isinstance(found, Row)
    return found


def decoded(logs: bytes | None) -> Any:
    assert logs is not None
    return msgspec.json.decode(logs)


async def test_a_new_task_is_queued_and_read_in_each_view(store: Store) -> None:
    before = time.time_ns() // 1_000_000
    task_id = await store.create(NewTask(basic=BASIC, full=FULL, name="hello"))
    assert await store.get(task_id, "MINIMAL", SERVER) == Brief(task_id, State.QUEUED)
    basic, full = await row(store, task_id, "BASIC"), await row(store, task_id, "FULL")
    assert (basic.document, basic.logs, basic.state) == (BASIC, None, State.QUEUED)
    assert (full.document, full.logs, full.created_ms) == (FULL, None, basic.created_ms)
    assert before <= basic.created_ms <= time.time_ns() // 1_000_000


async def test_without_content_the_full_document_is_the_basic_one(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC))
    assert (await row(store, task_id, "FULL")).document == BASIC


@pytest.mark.parametrize("task_id", UNKNOWN_IDS)
async def test_an_unknown_id_gives_nothing_and_no_error(store: Store, task_id: str) -> None:
    await store.create(NewTask(basic=BASIC))
    assert await store.get(task_id, "FULL", SERVER) is None
    assert await store.submitted(task_id) is False
    assert await store.advance(task_id, State.RUNNING, TaskLog()) is False
    assert await store.cancel(task_id, SERVER) is None


@pytest.mark.parametrize("before", ["", "0", "z" * 13, "\0" * 13])
async def test_a_page_after_no_id_is_empty(store: Store, before: str) -> None:
    await store.create(NewTask(basic=BASIC))
    assert await store.page(Query(limit=10, before=before), SERVER) == []


async def test_ids_of_concurrent_creates_differ_and_sort_by_time(store: Store) -> None:
    first = await store.create(NewTask(basic=BASIC))
    ids = await asyncio.gather(*(store.create(NewTask(basic=BASIC)) for _ in range(1500)))
    last = await store.create(NewTask(basic=BASIC))
    assert len(set(ids)) == 1500
    assert first < min(ids)
    assert max(ids) < last


async def test_what_a_task_was_given_is_read_with_it(store: Store) -> None:
    grants = Grants(storage=("s3://lab-a", "file:///data"), volumes=("genomes",))
    given, not_given = await store.create(NewTask(basic=BASIC, grants=grants)), await store.create(NewTask(basic=BASIC))
    assert [(await row(store, each, "FULL")).grants for each in (given, not_given)] == [grants, NO_GRANTS]
    await store.advance(given, State.RUNNING, RUNNING_LOG)
    pages = [await store.page(Query(limit=9, view=view), SERVER) for view in ("FULL", "BASIC")]
    found = [[each.grants for each in page if isinstance(each, Row)] for page in pages]
    assert found == [[NO_GRANTS, grants], [NO_GRANTS, NO_GRANTS]]


async def test_tasks_outlive_the_store(store: Store, database_url: str) -> None:
    task_id = await store.create(NewTask(basic=BASIC, full=FULL, warnings=["w"], tags={"a": "b"}))
    await store.advance(task_id, State.RUNNING, RUNNING_LOG)
    before = await store.get(task_id, "FULL", SERVER)
    await store.close()
    again = open_store(database_url, log_tail_bytes=LOG_TAIL_BYTES)
    await again.open()
    assert await again.get(task_id, "FULL", SERVER) == before
    assert await again.page(Query(limit=9, tags=(("a", "b"),)), SERVER) == [Brief(task_id, State.RUNNING)]
    assert await again.create(NewTask(basic=BASIC)) > task_id
    await again.close()


async def test_basic_logs_leave_out_what_only_full_logs_have(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC))
    assert await store.advance(task_id, State.RUNNING, RUNNING_LOG)
    basic, full = await row(store, task_id, "BASIC"), await row(store, task_id, "FULL")
    output = {"url": "file:///x", "path": "/x", "size_bytes": "1"}
    executor = {"exit_code": 0, "start_time": "2026-01-01T00:00:00Z"}
    assert decoded(basic.logs) == [{"logs": [executor], "outputs": [output]}]
    streams = {"stdout": "out", "stderr": "err"}
    assert decoded(full.logs) == [{"logs": [executor | streams], "outputs": [output], "system_logs": ["pulled"]}]


async def test_earlier_attempts_stand_before_the_last(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC, warnings=["one"]))
    lost = TaskLog(system_logs=["its node was lost"], logs=[ExecutorLog(137, stdout="half")])
    await store.advance(task_id, State.RUNNING, RUNNING_LOG, [lost])
    basic, full = await row(store, task_id, "BASIC"), await row(store, task_id, "FULL")
    assert [[each["exit_code"] for each in log["logs"]] for log in decoded(basic.logs)] == [[137], [0]]
    assert [log["system_logs"] for log in decoded(full.logs)] == [["one", "its node was lost"], ["pulled"]]
    assert "half" not in str(basic.logs)


async def test_a_log_always_has_its_arrays(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC))
    await store.advance(task_id, State.RUNNING, TaskLog())
    for view in ("BASIC", "FULL"):
        assert decoded((await row(store, task_id, view)).logs) == [{"logs": [], "outputs": []}]


async def test_stdout_and_stderr_are_cut_to_their_tails_at_a_character(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC))
    long = "x" + "é" * LOG_TAIL_BYTES
    await store.advance(task_id, State.RUNNING, TaskLog(logs=[ExecutorLog(0, stdout=long, stderr=long + "y")]))
    kept = decoded((await row(store, task_id, "FULL")).logs)[0]["logs"][0]
    assert kept["stdout"] == "é" * (LOG_TAIL_BYTES // 2)
    assert kept["stderr"] == "é" * (LOG_TAIL_BYTES // 2 - 1) + "y"


async def test_warnings_stand_before_the_system_logs_from_the_first_moment(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC, warnings=["one", "two"]))
    assert decoded((await row(store, task_id, "FULL")).logs) == [
        {"logs": [], "outputs": [], "system_logs": ["one", "two"]}
    ]
    assert (await row(store, task_id, "BASIC")).logs is None
    for _ in range(2):
        await store.advance(task_id, State.RUNNING, RUNNING_LOG)
        assert decoded((await row(store, task_id, "FULL")).logs)[0]["system_logs"] == ["one", "two", "pulled"]
    assert "system_logs" not in decoded((await row(store, task_id, "BASIC")).logs)[0]


async def test_a_page_shows_what_get_shows(store: Store) -> None:
    ids = [
        await store.create(NewTask(basic=BASIC, full=FULL if n % 2 else None, warnings=["w"] if n % 3 else None))
        for n in range(6)
    ]
    await store.advance(ids[2], State.RUNNING, RUNNING_LOG)
    for view in ("MINIMAL", "BASIC", "FULL"):
        expected = [await store.get(task_id, view, SERVER) for task_id in reversed(ids)]
        assert await store.page(Query(limit=10, view=view), SERVER) == expected


async def test_pages_follow_each_other_while_tasks_are_added(store: Store) -> None:
    ids = [await store.create(NewTask(basic=BASIC)) for _ in range(10)]
    seen: list[str] = []
    before = None
    while page := await store.page(Query(limit=3, before=before), SERVER):
        seen += [each.id for each in page]
        before = page[-1].id
        await store.create(NewTask(basic=BASIC))
    assert seen == ids[::-1]


@pytest.mark.parametrize("ahead_ms", [10**9, -(10**9)])
async def test_a_clock_that_was_wrong_once_gives_later_tasks_no_wrong_time(store: Store, ahead_ms: int) -> None:
    store._identifiers = Identifiers(lambda: now_ms() + ahead_ms)  # type: ignore[attr-defined]
    first = await store.create(NewTask(basic=BASIC))
    store._identifiers._clock_ms = now_ms  # type: ignore[attr-defined]
    before = now_ms()
    second = await store.create(NewTask(basic=BASIC))
    assert before <= (await row(store, second, "BASIC")).created_ms <= now_ms()
    assert [each.id for each in await store.page(Query(limit=9), SERVER)] == [second, first], "the newest is first"


async def test_unfinished_tasks_come_oldest_first(store: Store) -> None:
    ids = [await store.create(NewTask(basic=BASIC, full=FULL, owner=Owner(f"user-{n}" if n else ""))) for n in range(5)]
    await store.submitted(ids[1])
    await store.advance(ids[2], State.RUNNING, TaskLog())
    await store.advance(ids[3], State.COMPLETE, TaskLog())
    await store.cancel(ids[4], SERVER)
    found = await store.unfinished()
    assert [(each.id, each.owner, each.state, each.submitted) for each in found] == [
        (ids[0], 0, State.QUEUED, False),
        (ids[1], 1, State.QUEUED, True),
        (ids[2], 2, State.RUNNING, False),
    ]
    assert [each.id for each in await store.unfinished(after=ids[0], limit=1)] == [ids[1]]
    assert await store.unfinished(after="nonsense") == []


async def test_long_tasks_are_brief_in_a_page_and_whole_by_themselves(store: Store) -> None:
    long = b'{"name":"' + b"x" * 65536 + b'"}'
    document, short = [await store.create(NewTask(basic=each)) for each in (long, BASIC)]
    content = await store.create(NewTask(basic=BASIC, full=long))
    for view, briefs in (("BASIC", {document}), ("FULL", {document, content})):
        page = await store.page(Query(limit=9, view=view), SERVER)
        assert {each.id for each in page if isinstance(each, Brief)} == briefs
        assert {each.id for each in page} >= {short, *briefs}
        for each in briefs:
            assert (await row(store, each, view)).document == long


async def test_queued_tasks_come_oldest_first_without_long_documents(store: Store) -> None:
    long = b'{"name":"' + b"x" * 65536 + b'"}'
    ids = [await store.create(NewTask(basic=BASIC, full=FULL, owner=Owner(f"user-{n}" if n else ""))) for n in range(5)]
    ids.append(await store.create(NewTask(basic=long)))
    await store.submitted(ids[1])
    await store.advance(ids[2], State.RUNNING, TaskLog())
    await store.cancel(ids[3], SERVER)
    assert await store.queued() == [(ids[0], 0, 0, BASIC), (ids[4], 4, 0, BASIC), (ids[5], 0, 0, None)]
    assert await store.queued(after=ids[0], limit=1) == [(ids[4], 4, 0, BASIC)]
    assert await store.queued(after="nonsense") == []


async def test_queued_tasks_of_a_user_and_of_a_group_are_counted(store: Store) -> None:
    owners = [Owner("ann", "lab"), Owner("ben", "lab"), Owner("ann"), Owner(), Owner("lab", "ann")]
    ids = [await store.create(NewTask(basic=BASIC, owner=owner)) for owner in owners * 2]
    assert await store.count_queued(Owner("ann", "lab"), 99) == (4, 4)
    assert await store.count_queued(Owner("ann", "lab"), 3) == (3, 3)
    assert await store.count_queued(Owner("lab"), 99) == (2, 0)
    assert await store.count_queued(Owner(), 99) == (0, 0)
    await store.advance(ids[0], State.COMPLETE, TaskLog())
    await store.cancel(ids[1], SERVER)
    await store.submitted(ids[2])
    assert await store.count_queued(Owner("ann", "lab"), 99) == (3, 2), "a task is QUEUED until its place says more"
    for task_id in ids:
        await store.cancel(task_id, SERVER)
        await store.advance(task_id, State.CANCELED, TaskLog())
    assert await store.count_queued(Owner("ann", "lab"), 99) == (0, 0)


async def test_users_and_groups_have_their_names_back(store: Store) -> None:
    owners = [Owner(f"user-{n}", f"group-{n}") for n in range(3)]
    for owner in owners:
        await store.create(NewTask(basic=BASIC, owner=owner))
    queued = await store.queued()
    names = await store.names({number for each in queued for number in (each.owner, each.group)} | {*range(900, 2000)})
    assert [Owner(names[each.owner], names[each.group]) for each in queued] == owners
    assert len(names) == 6
    assert await store.names([]) == {}


async def test_prune_deletes_ended_tasks_by_age_and_leaves_nothing_of_them(store: Store) -> None:
    tags = {"a": "b", "k" * 4000: "v" * 4000}
    ids = [await store.create(NewTask(basic=BASIC, full=FULL, tags=tags)) for _ in range(4)]
    for task_id in ids[:3]:
        await store.advance(task_id, State.COMPLETE, RUNNING_LOG)
    now = time.time_ns() // 1_000_000
    assert await store.prune(now - 60_000) == 0
    assert await store.prune(now + 60_000, limit=2) == 2
    assert await store.prune(now + 60_000) == 1
    assert await store.prune(now + 60_000) == 0
    assert await store.page(Query(limit=9), SERVER) == [Brief(ids[3], State.QUEUED)]
    assert await store.page(Query(limit=9, tags=(("a", ""),)), SERVER) == [Brief(ids[3], State.QUEUED)]
    assert [await store.get(task_id, "FULL", SERVER) for task_id in ids[:3]] == [None] * 3


async def test_a_task_that_cannot_be_stored_fails_alone(store: Store) -> None:
    good = [store.create(NewTask(basic=BASIC, name=f"good-{n}")) for n in range(20)]
    bad = [store.create(NewTask(basic=BASIC, owner=Owner("a\0b"))), store.create(NewTask(basic=BASIC, name="a\0b"))]
    results = await asyncio.gather(
        *good, *bad, *(store.create(NewTask(basic=BASIC)) for _ in range(20)), return_exceptions=True
    )
    failed = [n for n, result in enumerate(results) if isinstance(result, Exception)]
    assert failed == [20, 21]
    assert len(await store.page(Query(limit=100), SERVER)) == 40


async def test_ping_answers(store: Store) -> None:
    await store.ping()


async def test_a_closed_store_says_so(store: Store) -> None:
    from tesk.store.base import StoreError

    await store.close()
    with pytest.raises(StoreError, match=r"closed|not open"):
        await store.create(NewTask(basic=BASIC))


async def test_an_id_of_the_greatest_number_is_unknown_too(store: Store) -> None:
    assert await store.get(show(2**63 - 1), "MINIMAL", SERVER) is None


@contextlib.asynccontextmanager
async def stalled(database_url: str) -> AsyncIterator[None]:
    """Meanwhile no write goes on."""
    if database_url.startswith("sqlite"):
        database = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None, timeout=300)
        database.execute("BEGIN IMMEDIATE")
        yield
        database.close()
    else:
        connection = await asyncpg.connect(database_url)
        await connection.execute("BEGIN; LOCK TABLE task IN ACCESS EXCLUSIVE MODE")
        yield
        await connection.close()


async def test_a_create_that_was_given_up_while_it_waited_is_not_stored(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "WRITERS", 1)
    store = open_store(database_url, log_tail_bytes=LOG_TAIL_BYTES)
    await store.open()
    async with stalled(database_url):
        first = asyncio.create_task(store.create(NewTask(basic=BASIC)))
        await asyncio.sleep(0.2)
        given_up = [asyncio.create_task(store.create(NewTask(basic=BASIC))) for _ in range(3)]
        await asyncio.sleep(0)
        for each in given_up:
            each.cancel()
        await asyncio.wait(given_up)
    stored = [await first, await store.create(NewTask(basic=BASIC))]
    assert [task.id for task in await store.page(Query(10), SERVER)] == stored[::-1]
    await store.close()


async def test_a_change_of_state_may_replace_the_documents(store: Store) -> None:
    both, one, other = [await store.create(NewTask(basic=BASIC, full=full)) for full in (FULL, None, FULL)]
    before = await row(store, both, "BASIC")
    new = b'{"name":"basic"}'
    assert await store.advance(both, State.COMPLETE, TaskLog(), new=(new, b'{"name":"full"}'))
    assert await store.advance(one, State.COMPLETE, TaskLog(), new=(new, None))
    assert not await store.advance("unknown", State.COMPLETE, TaskLog(), new=(new, None))
    after = await row(store, both, "BASIC")
    assert after == before._replace(document=new, state=State.COMPLETE, logs=after.logs)
    assert (await row(store, both, "FULL")).document == b'{"name":"full"}'
    assert (await row(store, one, "FULL")).document == b'{"name":"basic"}'
    assert (await row(store, other, "FULL")).document == FULL


async def test_a_state_that_is_refused_leaves_the_documents(store: Store) -> None:
    task_id = await store.create(NewTask(basic=BASIC, full=FULL))
    await store.advance(task_id, State.CANCELED, TaskLog())
    assert not await store.advance(task_id, State.COMPLETE, TaskLog(), new=(b"{}", b"{}"))
    assert [(await row(store, task_id, view)).document for view in ("BASIC", "FULL")] == [BASIC, FULL]
