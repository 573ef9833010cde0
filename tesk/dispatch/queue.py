"""Which queued task is next (pure).

In turn between owners, then between groups, and else first come first served. Tasks of one owner and group that ask for
the same stand in one lane, so that tasks for which a place has no node, or a quota no room, keep nobody back but those
that ask for the same or more. Documents stay in the store: a place in a lane takes little memory.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from msgspec import Struct

from tesk.dispatch.active import Party
from tesk.life.status import TaskId
from tesk.places.base import Demand, Denial

Lane = tuple[int, int, Demand]


class Waiting(Struct, frozen=True):
    """A queued task. `owner`, `group`: the numbers of its user and its group; 0 is none."""

    id: TaskId
    owner: int
    group: int
    demand: Demand

    @property
    def party(self) -> Party:
        return self.owner, self.group

    @property
    def lane(self) -> Lane:
        return self.owner, self.group, self.demand


class Queue:
    """Queued tasks by lane, each lane in the order of ids, which is that of creation."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[TaskId, Waiting]] = {}
        self._all: dict[TaskId, Waiting] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._all

    def add(self, waiting: Waiting) -> None:
        """Puts a task where its id belongs; most come in order."""
        lane = self._lanes.setdefault(waiting.lane, {})
        is_late = bool(lane) and waiting.id < next(reversed(lane))
        lane[waiting.id] = self._all[waiting.id] = waiting
        if is_late:
            self._lanes[waiting.lane] = dict(sorted(lane.items()))

    def pop(self, task_id: TaskId) -> Waiting | None:
        waiting = self._all.pop(task_id, None)
        if waiting is not None:
            lane = self._lanes[waiting.lane]
            del lane[task_id]
            if not lane:
                del self._lanes[waiting.lane]
        return waiting

    def owners(self) -> Counter[int]:
        """How many tasks each owner has here."""
        counts = Counter[int]()
        for (owner, _, _), lane in self._lanes.items():
            counts[owner] += len(lane)
        return counts

    def parties(self) -> set[Party]:
        """Users with groups that have tasks here."""
        return {(owner, group) for owner, group, _ in self._lanes}

    def get(self, task_id: TaskId) -> Waiting | None:
        return self._all.get(task_id)

    def newest(self) -> TaskId | None:
        """The greatest id."""
        return max((next(reversed(lane)) for lane in self._lanes.values()), default=None)

    def before(self, task_id: TaskId) -> Waiting | None:
        """The first of a queued task's lane, which may be the task itself; None for a task that is not here."""
        waiting = self._all.get(task_id)
        return None if waiting is None else next(iter(self._lanes[waiting.lane].values()))

    def next(
        self, active: Mapping[int, int], admission: Callable[[Waiting], Denial | None]
    ) -> tuple[Waiting, Denial | None] | None:
        """The oldest task of the owner who has the fewest active ones, and why it may not start now.

        Of owners with equally many, the one whose group has the fewest is first. `active`: how many tasks of each user
        and group are active. A task that is denied together with its like lets all others pass.
        """
        heads = [next(iter(lane.values())) for lane in self._lanes.values()]
        heads.sort(key=lambda head: (active.get(head.owner, 0), active.get(head.group or head.owner, 0), head.id))
        for head in heads:
            denial = admission(head)
            if denial is None or denial.blocks != "its like":
                return head, denial
        return None
