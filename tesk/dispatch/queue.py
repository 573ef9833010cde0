"""Which queued task is next, and whether there is room for it (pure).

First come first served within an owner, and in turn between owners. Tasks of one owner that ask for the same stand in
one lane, so that tasks for which a place has no node keep nobody back but those that ask for the same or more.
Documents stay in the store: a place in a lane takes little memory.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from tesk.life.status import TaskId
from tesk.places.base import Capacity, Demand

Lane = tuple[int, Demand]


class Waiting(Struct, frozen=True):
    """A queued task."""

    id: TaskId
    owner: int
    demand: Demand

    @property
    def lane(self) -> Lane:
        return self.owner, self.demand


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

    def newest(self) -> TaskId | None:
        """The greatest id."""
        return max((next(reversed(lane)) for lane in self._lanes.values()), default=None)

    def before(self, task_id: TaskId) -> Waiting | None:
        """The first of a queued task's lane, which may be the task itself; None for a task that is not here."""
        waiting = self._all.get(task_id)
        return None if waiting is None else next(iter(self._lanes[waiting.lane].values()))

    def next(self, active: Iterable[int], holds: Callable[[Demand], str | None]) -> Waiting | None:
        """The oldest task, of those that nothing holds back, of the owner who has the fewest active ones.

        `active`: the owner of each active task. `holds`: why one that asks for so much is to wait, or None.
        """
        heads: dict[int, Waiting] = {}
        for (owner, demand), lane in self._lanes.items():
            first = next(iter(lane.values()))
            if (owner not in heads or first.id < heads[owner].id) and holds(demand) is None:
                heads[owner] = first
        if len(heads) < 2:
            return next(iter(heads.values()), None)
        busy = dict.fromkeys(heads, 0)
        for owner in active:
            if owner in busy:
                busy[owner] += 1
        return min(heads.values(), key=lambda waiting: (busy[waiting.owner], waiting.id))


def too_large(demand: Demand, capacity: Capacity) -> str | None:
    """Why the task can never run here; None if it can."""
    if capacity.cpu_cores is not None and demand.cpu_cores > capacity.cpu_cores:
        return f"the task asks for {demand.cpu_cores:g} cores; {capacity.cpu_cores:g} can be had here"
    if capacity.ram_gb is not None and demand.ram_gb > capacity.ram_gb:
        return f"the task asks for {demand.ram_gb:g} GiB of memory; {capacity.ram_gb:.4g} GiB can be had here"
    return None


def shortage(demand: Demand, active: list[Demand], capacity: Capacity) -> str | None:
    """Why there is no room for one more beside the active ones; None if there is."""
    if capacity.tasks is not None and len(active) >= capacity.tasks:
        return capacity.why_no_more
    kinds = (
        (demand.cpu_cores, sum(other.cpu_cores for other in active), capacity.cpu_cores, "cores"),
        (demand.ram_gb, sum(other.ram_gb for other in active), capacity.ram_gb, "GiB of memory"),
    )
    for asked, taken, most, unit in kinds:
        if most is not None and asked + taken > most + 1e-9:
            return f"it asks for {asked:g} {unit}, and tasks that run have {taken:.4g} of {most:.4g}"
    return None
