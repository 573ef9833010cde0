"""Which tasks are active, and what those of each user and each group have together (pure)."""

from collections.abc import Iterator
from functools import lru_cache
from operator import add, sub

from tesk.life.status import TaskId
from tesk.places.base import Demand
from tesk.rules.quotas import NOTHING, Millionths, millionths

Party = tuple[int, int]
"""The numbers of a task's user and of its group; 0 is none."""


class Active:
    """Tasks that the place was given and has not cleaned up: whose each is, and what it asks for."""

    def __init__(self) -> None:
        self._tasks: dict[TaskId, tuple[Party, Demand]] = {}
        self.counts: dict[int, int] = {}
        """How many tasks each user and each group has here."""
        self._taken: dict[int, Millionths] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._tasks)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._tasks

    def get(self, task_id: TaskId) -> tuple[Party, Demand] | None:
        return self._tasks.get(task_id)

    def demands(self) -> Iterator[Demand]:
        return (demand for _, demand in self._tasks.values())

    def taken(self, number: int) -> Millionths:
        """What the tasks of a user or a group have together."""
        return self._taken.get(number, NOTHING)

    def add(self, task_id: TaskId, party: Party, demand: Demand) -> None:
        self.pop(task_id)
        self._tasks[task_id] = party, demand
        asked = asked_by(demand)
        for number in _numbers(party):
            self.counts[number] = self.counts.get(number, 0) + 1
            self._taken[number] = _each(map(add, self.taken(number), asked))

    def pop(self, task_id: TaskId) -> None:
        """The task takes no room any more. It may be gone already."""
        found = self._tasks.pop(task_id, None)
        if found is None:
            return
        party, demand = found
        asked = asked_by(demand)
        for number in _numbers(party):
            self.counts[number] -= 1
            self._taken[number] = _each(map(sub, self._taken[number], asked))
            if not self.counts[number]:
                del self.counts[number], self._taken[number]


@lru_cache(maxsize=8192)
def asked_by(demand: Demand) -> Millionths:
    return millionths(1, demand.cpu_cores, demand.ram_gb, demand.gpus)


def _numbers(party: Party) -> Party | tuple[int]:
    """Users and groups have different numbers, except those that are none."""
    return party if party[1] else party[:1]


def _each(amounts: Iterator[int]) -> Millionths:
    tasks, cores, ram, gpus = amounts
    return tasks, cores, ram, gpus
