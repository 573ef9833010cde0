"""How many tasks are given to the cluster at once (pure): ever more while their taskmasters start quickly.

Nodes that start or end many pods at once take longer for each, and more work for each too: two cores that are given
two hundred tasks spend twice as much on every one as when they are given eight. So tasks beyond what a cluster takes
with ease wait here, where they cost nothing. What it has in hand are the tasks that are being started and those that
are being cleaned up; those that run are no work for it. Taskmasters tell how it fares: all of them are alike, whatever
image or volume a task's own pods may have to wait for.
"""

from typing import Final

from msgspec import Struct

from tesk.life.status import TaskId

LEAST: Final = 4
"""For each node on which a taskmaster has started in the last NODE_S seconds."""
NODE_S: Final = 300.0
QUICK_S: Final = 1.25
STEP: Final = 0.25
LATE_S: Final = 15.0
"""A task that has not begun for so long waits for something else than a busy node, and keeps no other one back."""
LATE_END_S: Final = 5.0
"""The same for one that is cleaned up, whose program may have been given longer to end."""


class _Starting(Struct):
    since: float
    has_taskmaster: bool = False


class StartLimit:
    """Told of each task that is given to the cluster, and of what becomes of it; `moment` is a monotonic time in s."""

    def __init__(self) -> None:
        self._size = float(LEAST)
        self._starting: dict[TaskId, _Starting] = {}
        self._ending: dict[TaskId, float] = {}
        self._nodes: dict[str, float] = {}

    def starts(self, task_id: TaskId, moment: float) -> None:
        self._starting[task_id] = _Starting(moment)

    def has_taskmaster(self, task_id: TaskId, node: str, moment: float) -> None:
        """Its taskmaster runs on that node; heard of it again, that is no news."""
        found = self._starting.get(task_id)
        if found is None or found.has_taskmaster:
            return
        found.has_taskmaster = True
        if node:
            self._nodes[node] = moment
        limit = self._limit(moment)
        if moment - found.since >= QUICK_S:
            self._size = max(LEAST, self._size - STEP)
        elif 2 * self._in_hand(moment) >= limit:
            self._size = limit + STEP

    def begins(self, task_id: TaskId) -> None:
        """The first of its pods beside the taskmaster's runs."""
        self._starting.pop(task_id, None)

    def ends(self, task_id: TaskId, moment: float) -> None:
        """It is being cleaned up."""
        self._starting.pop(task_id, None)
        self._ending[task_id] = moment

    def leaves(self, task_id: TaskId) -> None:
        """It waits for room or something else that the cluster has told of, or nothing of it is there any more."""
        self._starting.pop(task_id, None)
        self._ending.pop(task_id, None)

    def room(self, moment: float) -> int:
        """How many more may be given to the cluster now."""
        return max(0, int(self._limit(moment)) - self._in_hand(moment))

    def _in_hand(self, moment: float) -> int:
        starting = sum(1 for each in self._starting.values() if moment - each.since < LATE_S)
        return starting + sum(1 for since in self._ending.values() if moment - since < LATE_END_S)

    def _limit(self, moment: float) -> float:
        self._nodes = {node: at for node, at in self._nodes.items() if moment - at < NODE_S}
        return max(self._size, LEAST * len(self._nodes))
