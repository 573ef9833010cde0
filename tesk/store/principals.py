"""Users and groups as small integers, which tasks, indexes and bitmaps hold in place of names; and who shares what.

A name gets its number the first time that anybody speaks of it, and keeps it for good: so a process may remember every
number that it has seen, also beside other servers on the same database. 0 is nobody: the owner of tasks that were made
where nobody signed in, which belong to no user and no group.

A user may let another see all of the user's tasks. There are few such pairs, so that all of them are in memory; another
server on the same database sees a change within SHARES_S.
"""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

from tesk.identity import Identity, Owner
from tesk.store.base import MayNotEnd, Shares, TaskId
from tesk.store.queries import Sql, Visible, is_storable, tag_text

NOBODY: Final = 0
SHARES_S: Final = 10.0
MOST_KEPT: Final = 10_000
"""Identities of which is kept whose tasks they see: to look up each group costs a get a tenth of its time."""

MOST_READ: Final = 500
"""Names that are read at once."""

_NONE: Final = frozenset[int]()
_NAMES: Final = "SELECT id, name FROM principal WHERE id IN"
_SHARES: Final = "SELECT owner, colleague FROM share"
_SHARE: Final = "INSERT INTO share (owner, colleague) VALUES (?, ?) ON CONFLICT (owner, colleague) DO NOTHING"
_UNSHARE: Final = "DELETE FROM share WHERE owner = ? AND colleague = ?"
_SEEN_BY: Final = "SELECT p.name FROM share AS s JOIN principal AS p ON p.id = s.colleague WHERE s.owner = ? ORDER BY 1"
_SEES: Final = "SELECT p.name FROM share AS s JOIN principal AS p ON p.id = s.owner WHERE s.colleague = ? ORDER BY 1"


class PrincipalKind(IntEnum):
    """Users and groups may have the same names."""

    USER = 0
    GROUP = 1


Principal = tuple[PrincipalKind, str]
Find = Callable[[Sequence[Principal]], Awaitable[Sequence[int]]]
"""The numbers of these principals, in order; those that are new get numbers."""
Run = Callable[[Sql], Awaitable[Sequence[Sequence[Any]]]]


class Principals:
    """Numbers of users and groups, asked of the database once each. `read` and `write` run one statement."""

    def __init__(self, find: Find, read: Run, write: Run) -> None:
        self._find, self._read, self._write = find, read, write
        self._numbers: dict[Principal, int] = {}
        self._owners: dict[Owner, tuple[int, int]] = {}
        self._seen: dict[Identity, Visible] = {}
        self._sharers: dict[int, set[int]] = {}
        self._sharers_read_at = -SHARES_S
        self._changes = 0

    async def owner(self, owner: Owner) -> tuple[int, int]:
        """The numbers of a task's user and group. Raises ValueError for text that no database can hold."""
        if found := self._owners.get(owner):
            return found
        if not owner.user and not owner.group:
            return NOBODY, NOBODY
        _check(owner.user, owner.group)
        numbers = await self._of([(PrincipalKind.USER, owner.user), (PrincipalKind.GROUP, owner.group)])
        if len(self._owners) >= MOST_KEPT:
            self._owners.clear()
        found = numbers[PrincipalKind.USER, owner.user], numbers[PrincipalKind.GROUP, owner.group]
        self._owners[owner] = found
        return found

    async def seen_by(self, identity: Identity) -> Visible | None:
        """Whose tasks may be seen; None: everybody's. As Identity.may_see, and what others share."""
        if identity.is_admin:
            return None
        visible = self._seen.get(identity)
        if visible is None:
            groups = identity.groups | identity.manages
            visible = await self._visible({identity.user, *identity.sharers}, groups)
            if len(self._seen) >= MOST_KEPT:
                self._seen.clear()
            self._seen[identity] = visible
        if time.monotonic() - self._sharers_read_at >= SHARES_S:
            await self._read_sharers()
        if not self._sharers:
            return visible
        sharers = self._sharers.get(self._numbers.get((PrincipalKind.USER, identity.user), NOBODY), _NONE)
        return Visible((*visible.owners, *sharers.difference(visible.owners)), visible.groups) if sharers else visible

    async def ended_by(self, identity: Identity) -> Visible | None:
        """Whose tasks may be ended; None: everybody's. As Identity.may_end."""
        return None if identity.is_admin else await self._visible({identity.user}, identity.manages)

    async def may_end(self, task_id: TaskId, identity: Identity, owner: int, group: int) -> bool:
        """Whether a task of this owner may be ended. False where it may not even be seen. Raises MayNotEnd else."""
        ended = await self.ended_by(identity)
        if ended is None or ended.holds(owner, group):
            return True
        seen = await self.seen_by(identity)
        if seen is None or seen.holds(owner, group):
            raise MayNotEnd(task_id)
        return False

    async def share(self, user: str, colleague: str) -> None:
        """Lets the colleague see the user's tasks. Raises ValueError for text that no database can hold."""
        await self._change(_SHARE, user, colleague)

    async def unshare(self, user: str, colleague: str) -> None:
        await self._change(_UNSHARE, user, colleague)

    async def shares(self, user: str) -> Shares:
        number = (await self._of([(PrincipalKind.USER, user)]))[PrincipalKind.USER, user]
        seen_by, sees = [await self._read(Sql(text, (number,))) for text in (_SEEN_BY, _SEES)]
        return Shares([row[0] for row in seen_by], [row[0] for row in sees])

    async def names(self, numbers: Collection[int]) -> dict[int, str]:
        """The names of users and groups by their numbers."""
        names, rest = dict[int, str](), list(numbers)
        while rest:
            some, rest = rest[:MOST_READ], rest[MOST_READ:]
            rows = await self._read(Sql(f"{_NAMES} ({', '.join('?' * len(some))})", tuple(some)))
            names |= {row[0]: row[1] for row in rows}
        return names

    async def _change(self, sql: str, user: str, colleague: str) -> None:
        _check(user, colleague)
        numbers = await self._of([(PrincipalKind.USER, user), (PrincipalKind.USER, colleague)])
        await self._write(Sql(sql, (numbers[PrincipalKind.USER, user], numbers[PrincipalKind.USER, colleague])))
        self._changes += 1
        self._sharers_read_at = -SHARES_S

    async def _read_sharers(self) -> None:
        moment, changes, sharers = time.monotonic(), self._changes, defaultdict[int, set[int]](set)
        for owner, colleague in await self._read(Sql(_SHARES)):
            sharers[colleague].add(owner)
        self._sharers = sharers
        if changes == self._changes:
            self._sharers_read_at = moment

    async def _visible(self, users: Iterable[str], groups: Iterable[str]) -> Visible:
        wanted = [(PrincipalKind.USER, name) for name in users] + [(PrincipalKind.GROUP, name) for name in groups]
        numbers = await self._of([each for each in wanted if each[1] and is_storable(each[1])])
        owners, of_groups = (sorted(n for (kind, _), n in numbers.items() if kind is each) for each in PrincipalKind)
        return Visible(tuple(owners), tuple(of_groups))

    async def _of(self, principals: Collection[Principal]) -> dict[Principal, int]:
        known = self._numbers
        missing = [each for each in principals if each[1] and each not in known]
        if missing:
            found = await self._find([(kind, tag_text(name)) for kind, name in missing])
            known.update(zip(missing, found, strict=True))
        return {each: known[each] if each[1] else NOBODY for each in principals}


def _check(*names: str) -> None:
    if not all(map(is_storable, names)):
        raise ValueError("the names of users and groups cannot hold NUL characters or lone surrogates")
