"""How many tasks are given to the cluster at once (pure): ever more while their taskmasters start quickly.

Nodes that start many pods at once start each of them later and all of them slower, down to the answers of the
cluster's API. So tasks beyond what a cluster starts with ease wait here, where they cost nothing. Taskmasters tell
when that is so: all of them are alike, whatever image or volume a task's own pods may have to wait for.
"""

from collections import deque
from typing import Final

from msgspec import Struct

from tesk.engines.base import TaskId

LEAST: Final = 4
QUICK_S: Final = 1.5
LOOK_BACK_S: Final = 2.0
LATE_S: Final = 15.0
"""A task that has not begun for so long waits for something else than a busy node, and keeps no other one back."""


class _Starting(Struct):
    since: float
    has_taskmaster: bool = False


class Window:
    """Told of each task that is given to the cluster, and of what becomes of it; `moment` is a monotonic time in s.

    As many may be starting as taskmasters have lately started quickly, and in addition as have begun just now.
    """

    def __init__(self) -> None:
        self._size = LEAST
        self._starting: dict[TaskId, _Starting] = {}
        self._begun: deque[float] = deque()

    def starts(self, task_id: TaskId, moment: float) -> None:
        self._starting[task_id] = _Starting(moment)

    def has_taskmaster(self, task_id: TaskId, moment: float) -> None:
        """Its taskmaster runs; heard of it again, that is no news."""
        found = self._starting.get(task_id)
        if found is None or found.has_taskmaster:
            return
        found.has_taskmaster = True
        self._size = self._size + 1 if moment - found.since < QUICK_S else max(LEAST, self._size - 1)

    def begins(self, task_id: TaskId, moment: float) -> None:
        """The first of its pods beside the taskmaster's runs."""
        if self._starting.pop(task_id, None) is not None:
            self._begun.append(moment)

    def leaves(self, task_id: TaskId) -> None:
        """It waits for room or something else that the cluster has told of, or has ended."""
        self._starting.pop(task_id, None)

    def room(self, moment: float) -> int:
        """How many more may be given to the cluster now."""
        while self._begun and moment - self._begun[0] > LOOK_BACK_S:
            self._begun.popleft()
        starting = sum(1 for each in self._starting.values() if moment - each.since < LATE_S)
        return max(0, self._size + len(self._begun) - starting)
