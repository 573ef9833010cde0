"""What a place says of a task."""

from msgspec import Struct

from tesk.tes import FileTypes, State, TaskLog

TaskId = str
"""13 characters of base 32, ordered by time of creation; fit to be part of any object's name."""


class TaskStatus(Struct, frozen=True):
    """What is so now: the state, and the log of the attempt that runs or ran (the whole of it).

    `earlier` are the logs of attempts before it, which a fault of the cluster ended. `types`: what inputs and outputs
    without a type turned out to be.
    """

    state: State
    log: TaskLog
    earlier: tuple[TaskLog, ...] = ()
    types: FileTypes = FileTypes()
