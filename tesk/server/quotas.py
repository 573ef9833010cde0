"""Refuses tasks that a quota of their user or group forbids: those that could never run (403), and too many (429).

What is only too much at once waits in the queue instead (dispatch/quotas.py). A create costs no query: how many tasks
of a user or a group are QUEUED was counted once, and each create since has been added. Only when these would be too
many, the store counts anew, since tasks have started meanwhile. So the number is never too small.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tesk.dispatch.active import asked_by
from tesk.identity import Owner
from tesk.places.base import Demand
from tesk.rules import Quotas
from tesk.rules.file import RulesFile
from tesk.rules.quotas import NO_QUOTAS, NOTHING, QuotaLimit, limits
from tesk.server.exchange import Refusal
from tesk.store.base import NewTask, Store, TaskId
from tesk.usage import month_of

RETRY_S: Final = 30
"""When to try again where the quota of queued tasks is used up: nobody knows when one of them starts."""
RECOUNT_S: Final = 0.5
COUNTING_SHARE: Final = 0.05
"""At most so much of the time goes into counting for one user or group."""
HOURS_S: Final = 10.0
"""So long counts what was read of the hours of a month."""
MOST_KEPT: Final = 10_000
"""Users and groups that are kept in memory."""
FIELDS: Final = ("", "resources.cpu_cores", "resources.ram_gb", "resources.backend_parameters.gpu")


class QueuedCount:
    """How many tasks of one user or group are QUEUED: at most `count`."""

    def __init__(self) -> None:
        self.count: int | None = None
        """None: never counted."""
        self.begun = self.done = 0
        """Creates that were let in, and those of them that the store has made, or never will make."""
        self.next_at = 0.0
        """The store does not count again before."""
        self.counting = asyncio.Lock()

    def is_full(self, most: int) -> bool:
        return self.count is None or self.count >= most


class Holder:
    """Whose tasks are made: a user with a group, and their quotas."""

    def __init__(self, quotas: Quotas, found: Sequence[QuotaLimit], queued: Sequence[QueuedCount]) -> None:
        self.quotas, self.limits = quotas, found
        self.queued = [each for each in zip(found, queued, strict=True) if each[0].quota.queued_tasks]
        self.hours = [limit for limit in found if limit.quota.core_hours_per_month]
        self.used_up = ""
        """Which quota of hours is used up, in words: counts until `read_again_at`."""
        self.read_again_at = 0.0 if self.hours else math.inf

    def is_full(self) -> bool:
        """Whether a quota lets no further task be QUEUED, as far as is known."""
        return any(queued.is_full(limit.quota.queued_tasks) for limit, queued in self.queued)


class CreationQuotas:
    """What may be created."""

    def __init__(self, store: Store, rules: RulesFile) -> None:
        self._store, self._rules = store, rules
        self._quotas = NO_QUOTAS
        self._holders: dict[Owner, Holder] = {}
        self._queued: dict[str, QueuedCount] = {}

    def __bool__(self) -> bool:
        """Whether anybody has a quota."""
        quotas = self._rules.rules.quotas
        return bool(quotas.users or quotas.groups)

    def check(self, owner: Owner, demand: Demand) -> None:
        """Raises Refusal (403) for a task that may not even run alone. For any thread: changes nothing."""
        asked, quotas, holder = asked_by(demand), self._rules.rules.quotas, self._holders.get(owner)
        is_known = holder is not None and holder.quotas is quotas
        for limit in holder.limits if holder and is_known else limits(quotas, owner.user, owner.group):
            if limit.is_reached(asked, NOTHING) and (exceeded := limit.exceeded(asked)):
                raise Refusal(403, exceeded[1], FIELDS[exceeded[0]])

    async def create(self, new: NewTask) -> TaskId:
        """Stores a task. Raises Refusal (429) where the queue has no place for it, or the hours are used up."""
        holder = self._holder(new.owner)
        if holder.used_up or holder.read_again_at <= time.time():
            await self._check_hours(new.owner, holder)
        if holder.is_full():
            await self._check_queued(new.owner, holder)
        for _, queued in holder.queued:
            queued.begun += 1
            queued.count = (queued.count or 0) + 1
        try:
            return await self._store.create(new)
        finally:
            for _, queued in holder.queued:
                queued.done += 1

    def _holder(self, owner: Owner) -> Holder:
        """Counts go up to the figures of the quotas, and no further: for other quotas there are others."""
        quotas = self._rules.rules.quotas
        if quotas is not self._quotas or len(self._holders) >= MOST_KEPT:
            self._holders = {}
            self._queued = {whose: each for whose, each in self._queued.items() if each.begun > each.done}
        if quotas is not self._quotas:
            self._quotas = quotas
            for each in self._queued.values():
                each.count, each.next_at = None, 0.0
        holder = self._holders.get(owner)
        if holder is None:
            found = list(limits(quotas, owner.user, owner.group))
            queued = [self._queued.setdefault(limit.whose, QueuedCount()) for limit in found]
            holder = self._holders[owner] = Holder(quotas, found, queued)
        return holder

    async def _check_hours(self, owner: Owner, holder: Holder) -> None:
        if holder.read_again_at <= time.time():
            now = time.time()
            users, groups = await self._store.core_seconds(month_of(int(now * 1000)), owner)
            holder.used_up = ""
            for limit in holder.hours:
                hours, most = (users if limit.kind == "user" else groups) / 3600, limit.quota.core_hours_per_month
                if hours >= most:
                    words = f"{most:.15g} core hours a month; tasks have used {hours:.2f}"
                    holder.used_up = f"the quota of {limit.whose}: {words}"
            holder.read_again_at = now + min(HOURS_S, rest_of_month_s(now))
        if holder.used_up:
            raise _too_many(holder.used_up, rest_of_month_s(time.time()))

    async def _check_queued(self, owner: Owner, holder: Holder) -> None:
        await self._recount(owner, holder.queued)
        for limit, queued in holder.queued:
            if queued.is_full(most := limit.quota.queued_tasks):
                words = f"the quota of {limit.whose}: {most} queued tasks; try again when some of them have started"
                raise _too_many(words, RETRY_S)

    async def _recount(self, owner: Owner, found: list[tuple[QuotaLimit, QueuedCount]]) -> None:
        """Counts anew, unless that was done just now: then those who wait for each other here share one count."""
        async with found[0][1].counting:
            full = [queued for limit, queued in found if queued.is_full(limit.quota.queued_tasks)]
            if any(queued.next_at <= time.monotonic() for queued in full):
                await self._count(owner, found)

    async def _count(self, owner: Owner, found: list[tuple[QuotaLimit, QueuedCount]]) -> None:
        """Creates that the count may have missed, since they went on meanwhile, are added to it."""
        began, before = time.monotonic(), [queued.done for _, queued in found]
        users, groups = await self._store.count_queued(owner, max(limit.quota.queued_tasks for limit, _ in found))
        now = time.monotonic()
        for (limit, queued), done in zip(found, before, strict=True):
            queued.count = (users if limit.kind == "user" else groups) + queued.begun - done
            queued.next_at = now + max(RECOUNT_S, (now - began) / COUNTING_SHARE)


def rest_of_month_s(now: float) -> float:
    """Seconds until the next month begins in UTC."""
    moment = datetime.fromtimestamp(now, UTC)
    following = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
    return following.timestamp() - now


def _too_many(words: str, retry_s: float) -> Refusal:
    return Refusal(429, words, headers=((b"retry-after", b"%d" % math.ceil(retry_s)),))
