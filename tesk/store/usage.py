"""The table of what users and groups used, by month: each task is added once, in the transaction that records its end.

So a sum needs no task, and stays when tasks are pruned. In PostgreSQL a row is locked until the commit that changes it
is on disk. So that many tasks of one user can end at once, each user and group has a row for each *lane*, and each end
takes a lane that no other end is using.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any, Final

from tesk.identity import Identity, Owner
from tesk.store.principals import Principals
from tesk.store.queries import Sql
from tesk.usage import MonthlyUsage

Run = Callable[[Sql], Awaitable[Sequence[Sequence[Any]]]]

_AMOUNTS: Final = ("tasks", "core_ms", "ram_gib_ms", "gpu_ms", "bytes_out")
_INTO: Final = f"INSERT INTO usage (month, {', '.join(_AMOUNTS)}, lane, owner, owner_group)"
_ADD: Final = "ON CONFLICT (month, owner, owner_group, lane) DO UPDATE SET " + ", ".join(
    f"{name} = usage.{name} + excluded.{name}" for name in _AMOUNTS
)
ADD_ONE: Final = f"{_INTO} SELECT ?, ?, ?, ?, ?, ?, 0, owner, owner_group FROM task WHERE id = ? {_ADD}"
"""Parameters: a `Used`, and the id of its task."""
_ROW: Final = "(?::text, ?::bigint, ?::bigint, ?::bigint, ?::bigint, ?::bigint)"


def add_changed(months: int) -> str:
    """For PostgreSQL, where `changed` is the task. Parameters: the lane, then so many `Used`, field by field."""
    rows = ", ".join([_ROW] * months)
    chosen = "SELECT u.*, l.*, c.owner, c.owner_group FROM changed AS c CROSS JOIN (VALUES (?::smallint)) AS l"
    return f"{_INTO} {chosen} CROSS JOIN (VALUES {rows}) AS u {_ADD}"


_SUM_OF_EACH: Final = ", ".join(f"CAST(sum({name}) AS BIGINT)" for name in _AMOUNTS)
ADD_SUMS: Final = (
    f"{_INTO} SELECT month, {_SUM_OF_EACH}, ?::smallint, owner, owner_group FROM changed "
    f"GROUP BY month, owner, owner_group ORDER BY month, owner, owner_group {_ADD}"
)
"""For PostgreSQL, where `changed` are tasks with what each used in one month. Parameter: the lane."""

_SUMS: Final = ", ".join(f"CAST(sum(u.{name}) AS BIGINT)" for name in _AMOUNTS)
_FROM: Final = (
    f"SELECT u.month, coalesce(p.name, ''), coalesce(g.name, ''), {_SUMS} FROM usage AS u "
    "LEFT JOIN principal AS p ON p.id = u.owner LEFT JOIN principal AS g ON g.id = u.owner_group "
    "WHERE u.month >= ? AND u.month <= ?"
)
_GROUPED: Final = "GROUP BY u.month, u.owner, u.owner_group, p.name, g.name ORDER BY 1, 2, 3"
_CORES: Final = (
    "SELECT (SELECT coalesce(sum(core_ms), 0) FROM usage WHERE month = ? AND owner = ? AND owner <> 0), "
    "(SELECT coalesce(sum(core_ms), 0) FROM usage WHERE month = ? AND owner_group = ? AND owner_group <> 0)"
)


class UsageTable:
    """Reads the table. `read` runs one statement that takes long; `look_up` one that takes microseconds."""

    def __init__(self, principals: Principals, read: Run, look_up: Run) -> None:
        self._principals, self._read, self._look_up = principals, read, look_up

    async def of(self, first: str, last: str, identity: Identity) -> list[MonthlyUsage]:
        """What was used in these months by those whose tasks the caller may end, in order of months and names."""
        visible = await self._principals.ended_by(identity)
        where, numbers = "", tuple[int, ...]()
        if visible is not None:
            kinds = (("u.owner", visible.owners), ("u.owner_group", visible.groups))
            some = [f"{column} IN ({', '.join('?' * len(each))})" for column, each in kinds if each]
            if not some:
                return []
            where, numbers = f" AND ({' OR '.join(some)})", (*visible.owners, *visible.groups)
        rows = await self._read(Sql(f"{_FROM}{where} {_GROUPED}", (first, last, *numbers)))
        return [MonthlyUsage(*row) for row in rows]

    async def core_seconds(self, month: str, owner: Owner) -> tuple[float, float]:
        """Cores times seconds in a month: the user's, and those of the whole group. Nobody's are not counted."""
        user, group = await self._principals.owner(owner)
        [(users, groups)] = await self._look_up(Sql(_CORES, (month, user, month, group)))
        return float(users) / 1000, float(groups) / 1000


class Lanes:
    """Gives each of those that go on at once a number of its own, the smallest that is free."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._count = 0

    @contextmanager
    def take(self) -> Iterator[int]:
        if self._free:
            lane = heappop(self._free)
        else:
            lane, self._count = self._count, self._count + 1
        try:
            yield lane
        finally:
            heappush(self._free, lane)
