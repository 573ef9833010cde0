"""What the dispatcher asks of any place where tasks run.

A place is told of a task (`submit`), of a wish to end it (`cancel`) and that its end is on record (`forget`).
Each may be repeated and each may follow a crash, so each is idempotent. In return the place reports, whenever it
learns more, the whole status of a task as it is now, never a difference: a lost report costs nothing.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from tesk.life.status import TaskId, TaskStatus
from tesk.tes import Task, TaskLog


class Demand(Struct, frozen=True):
    """What a task asks for: cores, GiB of memory and of disk; `place`: all that it says of the nodes it may run on."""

    cpu_cores: float
    ram_gb: float
    disk_gb: float = 0.0
    place: str = ""

    def covers(self, other: "Demand") -> bool:
        """True when there is room for the other wherever there is room for this."""
        return (
            self.place == other.place
            and self.cpu_cores >= other.cpu_cores
            and self.ram_gb >= other.ram_gb
            and self.disk_gb >= other.disk_gb
        )


class Job(Struct, frozen=True):
    """A task as a place needs it: its id, what it asks for and the document with the inputs' content.

    `begun`: something of it has run, by the store's account; a place that finds nothing of it must not begin again.
    """

    id: TaskId
    demand: Demand
    task: Task
    begun: bool = False


class Capacity(Struct, frozen=True):
    """What may run at once; None is without limit. Cores, GiB, number of tasks, and why no more of them, in words."""

    cpu_cores: float | None = None
    ram_gb: float | None = None
    tasks: int | None = None
    why_no_more: str = "as many tasks run as may at once (max_active_tasks)"


Report = Callable[[TaskId, TaskStatus], None]


class Place(Protocol):
    """A place where tasks run."""

    name: str
    backend_parameters: frozenset[str]

    async def open(self, report: Report) -> None:
        """Gets ready. Statuses go to `report`. Raises PlaceError where the place cannot work at all."""

    async def close(self) -> None:
        """Lets go of everything in this process; what runs goes on and is taken up by the next `submit`."""

    async def capacity(self) -> Capacity: ...

    def holds(self, demand: Demand) -> str | None:
        """Why a task that asks for so much waits while others may go; None where it may be the next."""

    async def submit(self, job: Job) -> None:
        """Starts the task, or takes it up again where it stands. Returns at once; reports tell the rest."""

    async def cancel(self, task_id: TaskId) -> None:
        """Ends the task; the report CANCELED follows when nothing of it runs any more."""

    async def forget(self, task_id: TaskId) -> None:
        """Removes all that the task made. Its end is on record."""

    async def known(self) -> set[TaskId]:
        """Tasks of which anything at all exists here."""

    async def live_log(self, task_id: TaskId) -> TaskLog | None:
        """The log of a running task with what its executors have written so far; None if it does not run."""

    async def ready(self) -> str | None:
        """None, or in words why no task can run now."""


class PlaceError(RuntimeError):
    """The place cannot work: the message says why and what to do."""
