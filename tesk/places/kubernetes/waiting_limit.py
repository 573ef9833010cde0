"""How many tasks may wait for a node at once, and which of them (pure).

Tasks that wait for room hold some by their taskmasters: without a limit they could hold it all. But tasks that no
node can take may wait for days. So the second half of the places is for tasks that ask for less than each that is known
to wait, or for other nodes; one that finds no room either then keeps back its like.
"""

from tesk.life.status import TaskId
from tesk.places.base import Demand


class WaitingLimit:
    """Told of each task that has no node yet. `most`: tasks that may wait, whatever they ask for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._half = (most + 1) // 2
        self._waiting: dict[TaskId, Demand | None] = {}
        self._least: list[Demand] | None = None

    def clear(self) -> None:
        self._waiting.clear()
        self._least = None

    def waits(self, task_id: TaskId, demand: Demand, is_told: bool) -> None:
        """It has no node. `is_told`: the cluster has said so; otherwise it has only just been given to it."""
        told = demand if is_told else None
        if task_id not in self._waiting or self._waiting[task_id] != told:
            self._waiting[task_id] = told
            self._least = None

    def leaves(self, task_id: TaskId) -> None:
        """It has a node, or has ended."""
        if self._waiting.pop(task_id, None) is not None:
            self._least = None

    def reached(self, demand: Demand) -> str | None:
        """Why a task that asks for so much is not given to the cluster now; None where it may be."""
        waiting = len(self._waiting)
        if waiting < self._half:
            return None
        if waiting < self._most and not any(demand.covers(other) for other in self._least_told()):
            return None
        if waiting >= self._most:
            return f"as many tasks wait for a node with room as may at once: {waiting} (max_waiting_tasks)"
        of = f"{waiting} of {self._most} (max_waiting_tasks)"
        return f"half of the tasks that may wait for a node do, and some ask for no more: {of}"

    def _least_told(self) -> list[Demand]:
        """What the tasks that wait ask for, without those that cover another."""
        if self._least is None:
            least: list[Demand] = []
            for demand in {told for told in self._waiting.values() if told is not None}:
                if not any(demand.covers(other) for other in least):
                    least = [other for other in least if not other.covers(demand)] + [demand]
            self._least = least
        return self._least
