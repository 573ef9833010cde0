"""Fills both servers' databases with the same N tasks, straight: what lists are measured among.

The document is the one that the load generator posts. Tags, names and states are such that there are filters that
match nothing, few, one in fifty, half and all of the tasks, and some that match only the oldest. They are of OWNERS
users in ten groups, in no order: two of three are made for the group. The prototype has one owner.
"""

import asyncio
import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from bench.proto import store_postgresql, store_sqlite
from tesk.identity import Owner
from tesk.store import open_store, postgresql, sqlite
from tesk.store.base import NewTask
from tesk.store.identifiers import now_ms
from tesk.store.principals import Principals
from tesk.store.rows import NewRows, new_rows
from tesk.tes import State, documents, parse

BATCH = 2048
OWNERS = 1000
GROUPS = 10
CREATE = Path(__file__).parent / "api_create.lua"


def seed_tesk(url: str, count: int) -> None:
    if url.startswith("sqlite"):
        _tesk_sqlite(Path(url.removeprefix("sqlite:///")), count)
    else:
        asyncio.run(_tesk_postgresql(url, count))


def seed_prototype(database: str, count: int) -> None:
    if database.startswith("postgres"):
        asyncio.run(_prototype_postgresql(database, count))
    else:
        _prototype_sqlite(database, count)


def user(n: int) -> str:
    return f"user-{n}"


def group(n: int) -> str:
    """The group of user `n`."""
    return f"group-{n % GROUPS}"


async def _owners(url: str) -> list[tuple[int, int]]:
    """The numbers of all users and their groups, in a database that has its tables from then on."""
    store = open_store(url, log_tail_bytes=0)
    await store.open()
    principals: Principals = store._principals  # type: ignore[attr-defined]
    found = [await principals.owner(Owner(user(n), group(n))) for n in range(OWNERS)]
    await store.close()
    return found


def _tasks(count: int, owners: Sequence[tuple[int, int]]) -> Iterator[NewRows]:
    """Rows as the store makes them, a millisecond apart, up to now."""
    found = re.search(r"\[\[(.*?)\]\]", CREATE.read_text(), re.S)
    assert found is not None
    task, _ = parse(found[1].encode())
    basic, full = documents(task)
    first = now_ms() - count
    for n in range(count):
        age = "old" if n < count // 2 else "new"
        name = f"{age}-sample-{n:07d}"
        if n % 50 == 7:
            name = f"fiftieth-{n}"
        if n % 10_000 == 8:
            name = f"seldom-{n}"
        tags = {"run": "r-17", "step": "align", "half": str(n % 2), "number": str(n)}
        tags["age"] = age
        if n % 2:
            tags["odd"] = "yes"
        if n % 50 == 2:
            tags["fiftieth"] = "yes"
        if n % 5_000 == 0:
            tags["few"] = "yes"
        owner, its_group = owners[(n * 2654435761 >> 7) % len(owners)]
        new = NewTask(basic=basic, full=full, name=name, tags=tags)
        made = new_rows(first + n << 20, new, owner, its_group if n % 3 else 0, first + n)
        yield made._replace(task=(*made.task[:2], int(_state(n, count)), *made.task[3:]))


def _state(n: int, count: int) -> State:
    if n >= count - 100:
        return State.QUEUED
    if n < count // 100:
        return State.CANCELED
    return State.EXECUTOR_ERROR if n % 50 == 1 else State.COMPLETE


def _batches(count: int, owners: Sequence[tuple[int, int]]) -> Iterator[list[NewRows]]:
    tasks = _tasks(count, owners)
    while batch := list(itertools.islice(tasks, BATCH)):
        yield batch


END = f"UPDATE task SET ended = created + 1000 WHERE state <> {int(State.QUEUED)}"


def _tesk_sqlite(path: Path, count: int) -> None:
    owners = asyncio.run(_owners(f"sqlite:///{path}"))
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA synchronous = OFF")
        for batch in _batches(count, owners):
            database.execute("BEGIN")
            sqlite.insert(database, batch)
            database.execute("COMMIT")
        database.execute(END)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    asyncio.run(_summarise(f"sqlite:///{path}"))


async def _summarise(url: str) -> None:
    store = open_store(url, log_tail_bytes=0)
    await store.open()
    await store.summarise()
    await store.close()


async def _tesk_postgresql(url: str, count: int) -> None:
    owners = await _owners(url)
    async with asyncpg.create_pool(url, min_size=1, max_size=1, command_timeout=3600) as pool:
        for batch in _batches(count, owners):
            await postgresql.insert(pool, batch)
        await pool.execute(END)
        await pool.execute("VACUUM ANALYZE")
    await _summarise(url)


def _prototype_rows(made: NewRows) -> tuple[tuple[Any, ...], list[tuple[int, str, str, int]]]:
    number, _, state, _, created, name, _, _, basic, _ = made.task
    full = None if made.content is None else made.content[1]
    tags = [(0, key, value, task) for key, task, value in made.tags]
    return (number, 0, state, name, created, basic, full), tags


def _prototype_sqlite(path: str, count: int) -> None:
    database = store_sqlite.Store(path).reader
    database.execute("PRAGMA synchronous = OFF")
    for batch in _batches(count, [(0, 0)]):
        rows = [_prototype_rows(made) for made in batch]
        database.execute("BEGIN")
        database.executemany(store_sqlite.INSERT, [row for row, _ in rows])
        database.executemany(store_sqlite.INSERT_TAG, [tag for _, tags in rows for tag in tags])
        database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.execute("ANALYZE")
    database.close()


async def _prototype_postgresql(url: str, count: int) -> None:
    connection = await asyncpg.connect(url, command_timeout=3600)
    await connection.execute(store_postgresql.SCHEMA)
    for batch in _batches(count, [(0, 0)]):
        rows = [_prototype_rows(made) for made in batch]
        await connection.copy_records_to_table("task", records=[row for row, _ in rows], columns=COLUMNS)
        await connection.copy_records_to_table("tag", records=[tag for _, tags in rows for tag in tags])
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


COLUMNS = ["id", "owner", "state", "name", "created", "basic", "full"]
