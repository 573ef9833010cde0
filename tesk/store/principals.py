"""Users and groups as small integers, which tasks, indexes and bitmaps hold in place of names.

A name gets its number the first time that anybody speaks of it, and keeps it for good: so a process may remember every
number that it has seen, also beside other servers on the same database. 0 is nobody: the owner of tasks that were made
where nobody signed in, which belong to no user and no group.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from enum import IntEnum
from typing import Final

from tesk.identity import Identity, Owner
from tesk.store.base import MayNotEnd, TaskId
from tesk.store.queries import Visible, is_storable, tag_text

NOBODY: Final = 0


class Kind(IntEnum):
    """Users and groups may have the same names."""

    USER = 0
    GROUP = 1


Principal = tuple[Kind, str]
Find = Callable[[Sequence[Principal]], Awaitable[Sequence[int]]]
"""The numbers of these principals, in order; those that are new get numbers."""


class Principals:
    """Numbers of users and groups, asked of the database once each."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._numbers: dict[Principal, int] = {}

    async def owner(self, owner: Owner) -> tuple[int, int]:
        """The numbers of a task's user and group. Raises ValueError for text that no database can hold."""
        if not owner.user and not owner.group:
            return NOBODY, NOBODY
        if not is_storable(owner.user) or not is_storable(owner.group):
            raise ValueError("the names of users and groups cannot hold NUL characters or lone surrogates")
        numbers = await self._of([(Kind.USER, owner.user), (Kind.GROUP, owner.group)])
        return numbers[Kind.USER, owner.user], numbers[Kind.GROUP, owner.group]

    async def seen_by(self, identity: Identity) -> Visible | None:
        """Whose tasks may be seen; None: everybody's. As Identity.may_see."""
        return await self._visible(identity, {identity.user, *identity.sharers}, identity.groups)

    async def ended_by(self, identity: Identity) -> Visible | None:
        """Whose tasks may be ended; None: everybody's. As Identity.may_end."""
        return await self._visible(identity, {identity.user}, identity.manages)

    async def may_end(self, task_id: TaskId, identity: Identity, owner: int, group: int) -> bool:
        """Whether a task of this owner may be ended. False where it may not even be seen. Raises MayNotEnd else."""
        ended = await self.ended_by(identity)
        if ended is None or ended.holds(owner, group):
            return True
        seen = await self.seen_by(identity)
        if seen is None or seen.holds(owner, group):
            raise MayNotEnd(task_id)
        return False

    async def _visible(self, identity: Identity, users: Iterable[str], groups: Iterable[str]) -> Visible | None:
        if identity.is_admin:
            return None
        wanted = [(Kind.USER, name) for name in users] + [(Kind.GROUP, name) for name in groups]
        numbers = await self._of([each for each in wanted if each[1] and is_storable(each[1])])
        owners, of_groups = (sorted(n for (kind, _), n in numbers.items() if kind is each) for each in Kind)
        return Visible(tuple(owners), tuple(of_groups))

    async def _of(self, principals: Collection[Principal]) -> dict[Principal, int]:
        known = self._numbers
        missing = [each for each in principals if each[1] and each not in known]
        if missing:
            found = await self._find([(kind, tag_text(name)) for kind, name in missing])
            known.update(zip(missing, found, strict=True))
        return {each: known[each] if each[1] else NOBODY for each in principals}
