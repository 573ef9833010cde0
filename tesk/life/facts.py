"""What has been done and learnt of a task, wherever it runs.

Each place keeps it in its own way: a taskmaster in the task's ConfigMap, the local place in the task's folder. It is
the memory that a crash leaves: nothing in it is a wish, everything in it has happened.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tesk.layout import Found
from tesk.tes import TaskLog

Role = Literal["inputs", "executor", "outputs"]


class TaskStep(Struct, frozen=True):
    """A step of a task's life. `n`: the executor's number."""

    role: Role
    n: int = 0

    @property
    def name(self) -> str:
        """As in "inputs", "executor 0"."""
        return f"executor {self.n}" if self.role == "executor" else self.role


class Facts(
    Struct,
    rename={"replacements": "unborn", "own_workdir": "homeless", "timed_out": "overdue", "to_delete": "stuck"},
):
    """The facts of one attempt at a task. What `rename` says is how a record has them that is kept."""

    log: TaskLog
    """What users see. It has one entry for each executor that has ended."""
    staged: bool = False
    """The inputs are there."""
    pushed: bool = False
    """The outputs have arrived, as far as they can."""
    found: Found = msgspec.field(default_factory=Found)
    """What the layout depends on and only the images and inputs show."""
    replacements: dict[str, int] = {}
    """By the name of a step, how often it was made again because its program was never begun."""
    own_workdir: list[int] = []
    """Executors whose working directory neither image nor scratch volume has: it must be a volume of its own."""
    timed_out: list[int] = []
    """Executors that were ended for their time limit."""
    to_delete: list[str] = []
    """What has done its part and does not end by itself, by name."""
    started: str | UnsetType = UNSET
    """The start of the executor that runs now."""
