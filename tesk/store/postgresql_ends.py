"""Ends of tasks in PostgreSQL: those that wait while a statement is under way share the next one and its commit.

An end adds what the task used to a row that the ends of the user's other tasks change, too. Together they change it
once.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from tesk.store.gather import Question
from tesk.store.queries import numbered
from tesk.store.transitions import allowed_from
from tesk.store.usage import ADD_SUMS
from tesk.tes import TERMINAL, State
from tesk.usage import Used

MOST_BYTES: Final = 4 * 1024 * 1024
"""Logs and documents of one statement, unless one task alone has more."""


class TaskEnd(NamedTuple):
    """A task that ends, with what its row, its log and its documents become; it used something in one month."""

    number: int
    state: State
    logs: bytes
    ended: int | None
    basic: bytes | None
    full: bytes | None
    full_logs: bytes
    used: Used

    @property
    def size(self) -> int:
        return len(self.logs) + len(self.full_logs) + len(self.basic or b"") + len(self.full or b"")

    def values(self) -> tuple[Any, ...]:
        return (*self[:-1], *self.used)


_MAY_END: Final = " OR ".join(
    f"(g.state = {int(state)} AND t.state IN ({', '.join(str(int(each)) for each in sorted(allowed_from(state)))}))"
    for state in sorted(TERMINAL)
)
ENDS: Final = numbered(
    "WITH changed AS (UPDATE task AS t SET state = g.state, logs = g.logs, ended = g.ended, "
    "basic = coalesce(g.basic, t.basic) FROM unnest(?::bigint[], ?::smallint[], ?::bytea[], ?::bigint[], ?::bytea[], "
    "?::bytea[], ?::bytea[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]) "
    "AS g(id, state, logs, ended, basic, document, full_logs, month, tasks, core_ms, ram_gib_ms, gpu_ms, bytes_out) "
    f"WHERE t.id = g.id AND ({_MAY_END}) RETURNING t.id, t.owner, t.owner_group, g.document, g.full_logs, "
    "g.month, g.tasks, g.core_ms, g.ram_gib_ms, g.gpu_ms, g.bytes_out), "
    "described AS (UPDATE content AS c SET document = changed.document FROM changed "
    "WHERE c.task = changed.id AND changed.document IS NOT NULL), "
    "kept AS (INSERT INTO log (task, logs) SELECT id, full_logs FROM changed "
    "ON CONFLICT (task) DO UPDATE SET logs = excluded.logs), "
    f"added AS ({ADD_SUMS}) SELECT id FROM changed"
)
"""Gives the ids of the tasks that changed. Parameters: the values of each TaskEnd, as columns; the lane."""


def parts(ends: Iterable[Question]) -> tuple[list[Question], list[Question]]:
    """The ends of the next statement, each of another task, and those that have to wait for it."""
    now, later, numbers, size = list[Question](), list[Question](), set[int](), 0
    for question in ends:
        end: TaskEnd = question.content
        if end.number in numbers or (now and size + end.size > MOST_BYTES):
            later.append(question)
        else:
            now.append(question)
            size += end.size
        numbers.add(end.number)
    return now, later


def columns(ends: Sequence[Question]) -> list[list[Any]]:
    return [list(column) for column in zip(*(question.content.values() for question in ends), strict=True)]
