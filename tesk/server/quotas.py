"""Refuses tasks that a quota of their user or group forbids: those that could never run (403), and too many (429).

What is only too much at once waits in the queue instead (dispatch/quotas.py). A create costs no query: how many tasks
of a user or a group are QUEUED was counted once, and each create since has been added. Only when these would be too
many, the store counts anew, since tasks have started meanwhile. So the number is never too small.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from tesk.dispatch.active import asked_by
from tesk.identity import Owner
from tesk.places.base import Demand
from tesk.rules.file import RulesFile
from tesk.rules.quotas import NO_QUOTAS, Limit, limits
from tesk.server.exchange import Refusal
from tesk.store.base import Store

RETRY_S: Final = 30
"""When to try again where the quota of queued tasks is used up: nobody knows when one of them starts."""
RECOUNT_S: Final = 0.5
COUNTING_SHARE: Final = 0.05
"""At most so much of the time goes into counting for one user or group."""
MOST_KEPT: Final = 10_000
"""Users and groups that are kept in memory."""
FIELDS: Final = ("", "resources.cpu_cores", "resources.ram_gb", "resources.backend_parameters.gpu")


class Queued:
    """How many tasks of one user or group are QUEUED: at most `count`."""

    def __init__(self) -> None:
        self.count: int | None = None
        """None: never counted."""
        self.begun = self.done = 0
        """Creates that were let in, and those of them that the store has made, or never will make."""
        self.next_at = 0.0
        """The store does not count again before."""
        self.counting = asyncio.Lock()

    def is_full(self, most: float) -> bool:
        return self.count is None or self.count >= most


class Quotas:
    """What may be created."""

    def __init__(self, store: Store, rules: RulesFile) -> None:
        self._store, self._rules = store, rules
        self._queued: dict[str, Queued] = {}
        self._counted = NO_QUOTAS
        """The quotas for which was counted: up to their figures, and no further."""

    def __bool__(self) -> bool:
        """Whether anybody has a quota."""
        quotas = self._rules.rules.quotas
        return bool(quotas.users or quotas.groups)

    def check(self, owner: Owner, demand: Demand) -> None:
        """Raises Refusal (403) for a task that may not even run alone."""
        asked = asked_by(demand)
        for limit in limits(self._rules.rules.quotas, owner.user, owner.group):
            if exceeded := limit.exceeded(asked):
                raise Refusal(403, exceeded[1], FIELDS[exceeded[0]])

    @contextlib.asynccontextmanager
    async def creating(self, owner: Owner) -> AsyncIterator[None]:
        """Holds a place in the queue while the store makes a task. Raises Refusal (429) where there is none."""
        found = self._of(owner)
        if any(queued.is_full(limit.quota.queued_tasks) for limit, queued in found):
            await self._recount(owner, found)
        for limit, queued in found:
            if queued.is_full(most := limit.quota.queued_tasks):
                words = f"the quota of {limit.whose}: {most} queued tasks; try again when some of them have started"
                raise Refusal(429, words, headers=((b"retry-after", b"%d" % RETRY_S),))
        for _, queued in found:
            queued.begun += 1
            queued.count = (queued.count or 0) + 1
        try:
            yield
        finally:
            for _, queued in found:
                queued.done += 1

    def _of(self, owner: Owner) -> list[tuple[Limit, Queued]]:
        """The quotas of queued tasks that the owner has to keep to."""
        quotas = self._rules.rules.quotas
        if quotas is not self._counted:
            self._counted = quotas
            for each in self._queued.values():
                each.count, each.next_at = None, 0.0
        found = limits(quotas, owner.user, owner.group)
        return [(limit, self._of_one(limit.whose)) for limit in found if limit.quota.queued_tasks]

    def _of_one(self, whose: str) -> Queued:
        queued = self._queued.get(whose)
        if queued is None:
            if len(self._queued) >= MOST_KEPT:
                self._queued = {whose: each for whose, each in self._queued.items() if each.begun > each.done}
            queued = self._queued[whose] = Queued()
        return queued

    async def _recount(self, owner: Owner, found: list[tuple[Limit, Queued]]) -> None:
        """Counts anew, unless that was done just now: then those who wait for each other here share one count."""
        async with found[0][1].counting:
            full = [queued for limit, queued in found if queued.is_full(limit.quota.queued_tasks)]
            if any(queued.next_at <= time.monotonic() for queued in full):
                await self._count(owner, found)

    async def _count(self, owner: Owner, found: list[tuple[Limit, Queued]]) -> None:
        """Creates that the count may have missed, since they went on meanwhile, are added to it."""
        began, before = time.monotonic(), [queued.done for _, queued in found]
        users, groups = await self._store.count_queued(owner, max(limit.quota.queued_tasks for limit, _ in found))
        now = time.monotonic()
        for (limit, queued), done in zip(found, before, strict=True):
            queued.count = (users if limit.kind == "user" else groups) + queued.begun - done
            queued.next_at = now + max(RECOUNT_S, (now - began) / COUNTING_SHARE)
