"""Whether a queued task is beyond a quota of its user or its group: then it waits, and all others pass.

Rules name users and groups, the queue numbers them. Names are read from the store once each, and only while the rules
have quotas. A changed file of rules counts from the next look at the queue on.
"""

from collections.abc import Collection

from tesk.dispatch.active import Active, Party, asked_by
from tesk.dispatch.queue import Waiting
from tesk.rules import Quotas
from tesk.rules.file import RulesFile
from tesk.rules.quotas import NO_QUOTAS, QuotaLimit, group_limit, user_limit
from tesk.store.base import Store


class QueueQuotas:
    """The quotas in force, by the numbers of users and groups."""

    def __init__(self, store: Store, rules: RulesFile) -> None:
        self._store, self._rules = store, rules
        self._quotas: Quotas = NO_QUOTAS
        self._limits: dict[int, QuotaLimit | None] = {}

    def __bool__(self) -> bool:
        """Whether there are quotas at all."""
        return self._quotas != NO_QUOTAS

    @property
    def is_outdated(self) -> bool:
        """Whether the rules have others by now: see `renew`."""
        return self._rules.rules.quotas is not self._quotas

    async def renew(self, parties: Collection[Party]) -> None:
        """Takes up the rules as they are now. `parties`: of all tasks that are in the queue."""
        quotas = self._rules.rules.quotas
        self._limits, self._quotas = await self._find(quotas, parties), quotas

    async def learn(self, parties: Collection[Party]) -> None:
        """Finds the quotas of those who are not known yet."""
        quotas = self._quotas
        found = await self._find(quotas, parties, self._limits)
        if quotas is self._quotas:
            self._limits |= found

    async def _find(
        self, quotas: Quotas, parties: Collection[Party], known: Collection[int] = ()
    ) -> dict[int, QuotaLimit | None]:
        if quotas == NO_QUOTAS:
            return {}
        users, groups = ({party[n] for party in parties}.difference(known, {0}) for n in (0, 1))
        names = await self._store.names(users | groups) if users or groups else {}
        found = {number: user_limit(quotas, names.get(number, "")) for number in users}
        return found | {number: group_limit(quotas, names.get(number, "")) for number in groups}

    def holds(self, waiting: Waiting, active: Active) -> bool:
        """Whether a quota keeps the task from starting now, beside what is active. A task that waits for one keeps but
        its like back."""
        owner, group = self._limits.get(waiting.owner), self._limits.get(waiting.group)
        if owner is None and group is None:
            return False
        asked = asked_by(waiting.demand)
        return (owner is not None and owner.is_reached(asked, active.taken(waiting.owner))) or (
            group is not None and group.is_reached(asked, active.taken(waiting.group))
        )

    def reason(self, waiting: Waiting, active: Active) -> str | None:
        """Which quota does."""
        for number in (waiting.owner, waiting.group):
            limit = self._limits.get(number)
            if limit is not None and (words := limit.reached(asked_by(waiting.demand), active.taken(number))):
                return words
        return None
