"""Summaries of spans in PostgreSQL, where tasks may be added out of the order of their ids, by several writers.

So a frontier is moved first, in a transaction that waits for the inserts under way: no task is added below it any
more, and what is there can be summarised. One session at a time does so, whoever comes first.
"""

from collections.abc import Sequence
from typing import Any, Final

from tesk.store import summariser
from tesk.store.identifiers import now_ms
from tesk.store.queries import Sql, numbered
from tesk.store.reader import Reader
from tesk.store.summariser import AT_ONCE, addition, renewal

COUNT_PRUNED: Final = (
    "UPDATE span SET pruned = pruned + n FROM (SELECT (SELECT number FROM span WHERE first <= i.id "
    "ORDER BY first DESC LIMIT 1) AS number, count(*) AS n FROM unnest($1::bigint[]) AS i(id) GROUP BY 1) AS d "
    "WHERE span.number = d.number"
)
SUMMARISER: Final = "SELECT pg_try_advisory_xact_lock(1952805995, 1)"
"""Held by the one server that changes summaries, for one change."""
SETTLED: Final = (
    "SELECT max(id), count(*) FROM (SELECT id FROM task WHERE id > (SELECT closed FROM frontier) "
    "AND id < $1 ORDER BY id LIMIT $2) AS t"
)
LOCK_FRONTIER: Final = "SELECT closed FROM frontier FOR UPDATE"
CLOSE: Final = "UPDATE frontier SET closed = greatest(closed, $1)"
SETTLED_MS: Final = 2000
"""The frontier stays this far behind the clock, so that hardly any task needs another id."""


async def summarise_step(connection: Any) -> bool:
    """Makes one change; False if there is none to make, or another session is at it."""
    read = _reader(connection)
    await _close_settled(connection)
    async with connection.transaction():
        if not await connection.fetchval(SUMMARISER):
            return False
        closed = await connection.fetchval("SELECT closed FROM frontier")
        change = await addition(read, closed) or await renewal(read)
        for text, rows in [] if change is None else change.statements():
            await connection.executemany(numbered(text), rows)
    return change is not None


async def _close_settled(connection: Any) -> None:
    """Moves the frontier up to tasks that are worth a summary, if there are any."""
    newest, count = await connection.fetchrow(SETTLED, now_ms() - SETTLED_MS << 20, AT_ONCE)
    if count < summariser.LEAST:
        return
    async with connection.transaction():
        await connection.execute(LOCK_FRONTIER)
        await connection.execute(CLOSE, newest)


def _reader(connection: Any) -> Reader:
    async def read(sql: Sql) -> Sequence[Any]:
        rows: Sequence[Any] = await connection.fetch(numbered(sql.text), *sql.parameters)
        return rows

    return read
