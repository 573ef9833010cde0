"""Whether a queued task is beyond a quota of its user or its group: then it waits, and all others pass.

Rules name users and groups, the queue numbers them. Names are read from the store once each, and only while the rules
have quotas. A changed file of rules counts from the next look at the queue on.
"""

from collections.abc import Collection

from tesk.dispatch.active import Active, Party, asked_by
from tesk.dispatch.queue import Waiting
from tesk.rules.file import RulesFile
from tesk.rules.quotas import NO_QUOTAS, Limit, group_limit, user_limit
from tesk.store.base import Store


class QuotaLimits:
    """The quotas in force, by the numbers of users and groups."""

    def __init__(self, store: Store, rules: RulesFile) -> None:
        self._store, self._rules = store, rules
        self._quotas = NO_QUOTAS
        self._limits: dict[int, Limit | None] = {}

    def __bool__(self) -> bool:
        """Whether there are quotas at all."""
        return self._quotas != NO_QUOTAS

    @property
    def is_outdated(self) -> bool:
        """Whether the rules have changed since `learn`, which then wants the parties of all queued tasks."""
        return self._rules.rules.quotas is not self._quotas

    async def learn(self, parties: Collection[Party]) -> None:
        """Finds the quotas of those who are not known yet."""
        quotas = self._rules.rules.quotas
        known = self._limits if quotas is self._quotas else {}
        if quotas != NO_QUOTAS:
            users, groups = ({party[n] for party in parties} - known.keys() - {0} for n in (0, 1))
            names = await self._store.names(users | groups) if users or groups else {}
            known |= {number: user_limit(quotas, names.get(number, "")) for number in users}
            known |= {number: group_limit(quotas, names.get(number, "")) for number in groups}
        self._quotas, self._limits = quotas, known

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
