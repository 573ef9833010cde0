"""Every filter, alone and combined, against the same question asked of a plain list."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tesk.identity import SERVER, Identity, Owner
from tesk.store import blocks, pages, postgresql_blocks, queries, summariser
from tesk.store.base import Brief, NewTask, Query, Store
from tesk.store.postgresql import PostgresqlStore
from tesk.tes import State, TaskLog
from tests.servers.postgres import Postgres

NAMES = [
    None,
    "",
    "a",
    "ab",
    "abc",
    "ABC",
    "a%",
    "a_b",
    "a\\",
    "é",
    "éa",
    "z",
    "\U0010ffff",
    "\U0010ffff!",
    "\ud7ff!",
    "x" * 600 + "y",
]
PREFIXES = [
    None,
    "a",
    "ab",
    "A",
    "a%",
    "a_",
    "a\\",
    "é",
    "\U0010ffff",
    "\ud7ff",
    "x" * 600,
    "x" * 601,
    "q",
    "a\0",
    "\ud800",
]
LONG = "long" * 500
TAG_QUERIES: list[tuple[tuple[str, str], ...]] = [
    (),
    (("step", ""),),
    (("step", "0"),),
    (("step", "nothing"),),
    (("nothing", ""),),
    (("step", "0"), ("run", "")),
    (("step", "0"), ("run", "1")),
    (("step", "0"), ("step", "1")),
    (("empty", ""),),
    (("ste", "0"),),
    ((LONG, LONG),),
    ((LONG, ""),),
    ((LONG + "!", ""),),
    (("step", "0\0"),),
]


OWNERS = [Owner(), Owner("ann"), Owner("ann", "lab"), Owner("ben", "lab"), Owner("cy", "other"), Owner("dora")]
IDENTITIES = [
    SERVER,
    Identity(user=""),
    Identity(user="ann"),
    Identity(user="ben", groups=frozenset({"lab", "other"})),
    Identity(user="eve", sharers=frozenset({"ann", "dora"})),
    Identity(user="fay", groups=frozenset({"ann", ""}), sharers=frozenset({"", "lab"})),
    Identity(user="gus", groups=frozenset({"lab", *(f"group-{n}" for n in range(40))}), sharers=frozenset({"ben"})),
]


class Kept(NamedTuple):
    id: str
    owner: Owner
    state: State
    name: str | None
    tags: dict[str, str]


@pytest.fixture(params=["by indexes", "by summaries", "by summaries of one key each"])
def summarised(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of filters, with few tasks: blocks are short, and what is rare is not taken as such."""
    if request.param == "by indexes":
        return False
    monkeypatch.setattr(queries, "RARE", 1)
    monkeypatch.setattr(pages, "RARE", 1)
    monkeypatch.setattr(pages, "FIRST_BLOCKS", 2)
    monkeypatch.setattr(pages, "FEWEST_CHECKED", 2)
    monkeypatch.setattr(pages, "MISSES", 1)
    monkeypatch.setattr(pages, "KEYS_AT_ONCE", 1 if request.param.endswith("each") else 30)
    monkeypatch.setattr(blocks, "PREFIXES", (1,))
    monkeypatch.setattr(blocks, "SIZE", 5)
    monkeypatch.setattr(summariser, "FEWEST_NEW", 2)
    monkeypatch.setattr(summariser, "BLOCKS_AT_ONCE", 2)
    monkeypatch.setattr(postgresql_blocks, "SETTLED_MS", -1000)
    return True


@pytest.fixture
async def kept(store: Store, summarised: bool) -> list[Kept]:
    """Tasks of several owners, and of nobody, newest first."""
    tasks = []
    for n, name in enumerate(NAMES * 4):
        tags = (
            {"step": str(n % 3), "empty": ""}
            | ({"run": str(n % 2)} if n % 5 else {})
            | ({LONG: LONG} if n == 7 else {})
        )
        owner = OWNERS[n % len(OWNERS)]
        task_id = await store.create(NewTask(basic=b"{}", name=name, tags=tags, owner=owner))
        state = (State.QUEUED, State.RUNNING, State.COMPLETE, State.COMPLETE)[n % 4 if n > 20 else 3]
        if state is not State.QUEUED:
            await store.advance(task_id, state, TaskLog())
        tasks.append(Kept(task_id, owner, state, name, tags))
        if summarised and n in (6, 20, 23, 48, 60):
            await store.summarise()
    return tasks[::-1]


def expected(kept: list[Kept], query: Query, identity: Identity) -> list[Brief]:
    def passes(task: Kept) -> bool:
        return (
            (query.before is None or task.id < query.before)
            and (query.state is None or task.state is query.state)
            and identity.may_see(task.owner)
            and (not query.name_prefix or (task.name or "").startswith(query.name_prefix))
            and all(key in task.tags and value in ("", task.tags[key]) for key, value in query.tags)
        )

    return [Brief(task.id, task.state) for task in kept if passes(task)][: query.limit]


async def test_every_filter_alone_and_combined(store: Store, kept: list[Kept]) -> None:
    for state, tags, identity in itertools.product((None, State.COMPLETE, State.PAUSED), TAG_QUERIES, IDENTITIES):
        for prefix in PREFIXES if tags in TAG_QUERIES[:3] else (None, "a"):
            for before, limit in ((None, 100), (kept[9].id, 3)):
                query = Query(limit, "MINIMAL", before, state, prefix, tags)
                assert await store.page(query, identity) == expected(kept, query, identity), (query, identity)


async def test_a_filtered_page_in_each_view_has_the_same_tasks(store: Store, kept: list[Kept]) -> None:
    for view, prefix, state in itertools.product(("BASIC", "FULL"), (None, "a"), (None, State.COMPLETE)):
        for tags, identity in itertools.product(TAG_QUERIES[:4], IDENTITIES):
            query = Query(7, view, None, state, prefix, tags)
            page = await store.page(query, identity)
            assert [(each.id, each.state) for each in page] == expected(kept, query, identity), (query, identity)


async def test_more_frequent_tags_than_a_statement_can_join(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_blocks, "SETTLED_MS", -1000)
    tags = {f"k{n}": "v" for n in range(256)}
    others = {**tags, "k255": "w"}
    new = [NewTask(basic=b"{}", tags=others if n % 2 else tags) for n in range(2 * queries.RARE)]
    ids = [await store.create(each) for each in new]
    await store.summarise()
    for number in (63, 64, 256):
        page = await store.page(Query(10, tags=tuple(list(tags.items())[:number])), SERVER)
        wanted = ids[-2::-2] if number == 256 else ids[::-1]
        assert [task.id for task in page] == wanted[:10]


async def test_a_page_by_frequent_filters_is_four_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """How frequent each is and where the summaries end, what is newer, the summaries, the tasks."""
    monkeypatch.setattr(postgresql_blocks, "SETTLED_MS", -1000)
    monkeypatch.setattr(summariser, "FEWEST_NEW", 1)
    for _ in range(2 * queries.RARE):
        tags = {"run": "1", "step": "2"}
        await store.create(NewTask(basic=b"{}", name="sample", tags=tags, owner=Owner("ann", "lab")))
    await store.summarise()
    asked = statements(store, monkeypatch)
    query = Query(10, state=State.QUEUED, name_prefix="sa", tags=(("run", "1"), ("step", "2")))
    for identity in (SERVER, Identity(user="ann", groups=frozenset({"lab"}))):
        asked.clear()
        assert len(await store.page(query, identity)) == 10
        assert len(asked) == 4, asked


def statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the store asks its database from now on for pages that are not long."""
    asked: list[str] = []
    name = "_run" if isinstance(store, PostgresqlStore) else "_run_inline"
    run = getattr(store, name)

    async def note(sql: queries.Sql) -> Sequence[Any]:
        asked.append(sql.text)
        rows: Sequence[Any] = await run(sql)
        return rows

    monkeypatch.setattr(store, name, note)
    return asked


async def test_no_join_of_a_page_remembers_ids_that_come_once_each(postgres_server: Postgres) -> None:
    url = postgres_server.new_database()
    store = PostgresqlStore(url, log_tail_bytes=9)
    await store.open()
    try:
        rows = await store._run(queries.Sql("SELECT current_setting('enable_memoize', true)"))
        assert rows[0][0] in ("off", None)  # PostgreSQL 13 does not know it
    finally:
        await store.close()


@given(prefix=st.text(max_size=3), rest=st.text(max_size=3), other=st.text(max_size=4))
@settings(max_examples=500)
def test_the_range_of_a_prefix_holds_exactly_what_begins_with_it(prefix: str, rest: str, other: str) -> None:
    end = queries.after_prefix(prefix)
    for name in (prefix + rest, other):
        assert (name >= prefix and (end is None or name < end)) is name.startswith(prefix)


@given(st.text(alphabet=st.sampled_from("\ud7fe\ud7ff\ue000\U0010ffff"), max_size=3))
def test_the_end_of_a_range_is_text_that_can_be_stored(prefix: str) -> None:
    end = queries.after_prefix(prefix)
    assert end is None or queries.is_storable(end)


@pytest.mark.parametrize("text", ["", "a", "é" * 250, "x" * 500])
def test_short_tags_are_kept_as_they_are(text: str) -> None:
    assert queries.tag_text(text) == text


def test_long_tags_are_kept_as_digests_that_no_short_tag_can_be() -> None:
    digests = {queries.tag_text(text) for text in ("x" * 501, "x" * 502, "é" * 251)}
    assert len(digests) == 3
    assert all(queries.TAG_INDEXED_BYTES < len(digest.encode()) < 1000 for digest in digests)
