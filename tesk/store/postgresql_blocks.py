"""Bitmaps of blocks in PostgreSQL, where several writers may add tasks out of the order of their ids.

So a frontier is moved first, in a transaction that waits for the inserts under way. After it no task is added below
the frontier, and the tasks below it can be summarised. One session at a time summarises, whichever comes first.
"""

from collections.abc import Sequence
from typing import Any, Final

from tesk.store import summariser
from tesk.store.identifiers import now_ms
from tesk.store.queries import Sql, numbered
from tesk.store.reader import Reader
from tesk.store.summariser import MOST_NEW, addition, renewal

COUNT_PRUNED: Final = (
    "UPDATE span SET pruned = pruned + n FROM (SELECT (SELECT number FROM span WHERE first <= i.id "
    "ORDER BY first DESC LIMIT 1) AS number, count(*) AS n FROM unnest($1::bigint[]) AS i(id) GROUP BY 1) AS d "
    "WHERE span.number = d.number"
)
SUMMARISER_LOCK: Final = "SELECT pg_try_advisory_xact_lock(1952805995, 1)"
"""The one server that changes bitmaps holds this lock, for one change."""
SETTLED: Final = (
    "SELECT max(id), count(*) FROM (SELECT id FROM task WHERE id > (SELECT closed FROM frontier) "
    "AND id < $1 ORDER BY id LIMIT $2) AS t"
)
LOCK_FRONTIER: Final = "SELECT closed FROM frontier FOR UPDATE"
MOVE_FRONTIER: Final = "UPDATE frontier SET closed = greatest(closed, $1)"
SETTLED_MS: Final = 2000
"""The frontier stays this far behind the clock, so that hardly any task needs another id."""


async def summarise_step(connection: Any) -> bool:
    """Makes one change. False if there is none to make, or if another session is summarising."""
    read = _reader(connection)
    await _close_settled(connection)
    async with connection.transaction():
        if not await connection.fetchval(SUMMARISER_LOCK):
            return False
        closed = await connection.fetchval("SELECT closed FROM frontier")
        change = await addition(read, closed) or await renewal(read)
        for text, rows in [] if change is None else change.statements():
            await connection.executemany(numbered(text), rows)
    return change is not None


async def _close_settled(connection: Any) -> None:
    """Moves the frontier to the last of enough new tasks for a summary, if there are enough."""
    newest, count = await connection.fetchrow(SETTLED, now_ms() - SETTLED_MS << 20, MOST_NEW)
    if count < summariser.FEWEST_NEW:
        return
    async with connection.transaction():
        await connection.execute(LOCK_FRONTIER)
        await connection.execute(MOVE_FRONTIER, newest)


def _reader(connection: Any) -> Reader:
    async def read(sql: Sql) -> Sequence[Any]:
        rows: Sequence[Any] = await connection.fetch(numbered(sql.text), *sql.parameters)
        return rows

    return read
