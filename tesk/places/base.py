"""What the dispatcher asks of any place where tasks run.

A place is told of a task (`submit`), of a wish to end it (`cancel`) and that its end is on record (`forget`).
Each may be repeated and each may follow a crash, so each is idempotent. In return the place reports, whenever it
learns more, the whole status of a task as it is now, never a difference: a lost report costs nothing.
"""

from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from msgspec import Struct

from tesk.errors import PlaceError as PlaceError
from tesk.life.status import TaskId, TaskStatus
from tesk.rules import NOTHING_GRANTED, Granted
from tesk.tes import State, Task, TaskLog


class Demand(Struct, frozen=True):
    """What a task asks for: cores, GiB of memory and of disk; `place`: all that it says of the nodes it may run on.

    `gpus`: of what `place` says, the number of GPUs.
    """

    cpu_cores: float
    ram_gb: float
    disk_gb: float = 0.0
    place: str = ""
    gpus: int = 0

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

    `submitted`: a place has been told of it before, and may have run it. `begun`: something of it has run, by the
    store's account; a place that finds nothing of it must not begin again. `state`: the state that is on record, and
    `logs`, where it has begun: as JSON, an array of tesTaskLog. `granted`: the entries of the rules that it may use.
    """

    id: TaskId
    demand: Demand
    task: Task
    submitted: bool = False
    begun: bool = False
    logs: bytes | None = None
    state: State = State.QUEUED
    granted: Granted = NOTHING_GRANTED


class Load(Struct, frozen=True):
    """What the active tasks ask for together."""

    tasks: int = 0
    cpu_cores: float = 0.0
    ram_gb: float = 0.0

    @classmethod
    def of(cls, demands: Iterable[Demand]) -> "Load":
        found = list(demands)
        return cls(len(found), sum(each.cpu_cores for each in found), sum(each.ram_gb for each in found))


class Denial(Struct, frozen=True):
    """Why a task may not start now."""

    reason: str
    blocks: Literal["itself for ever", "its like", "all"] = "all"
    """Which tasks may not start: this one, and never here; those that ask for as much; or none at all may."""


ALL_ACTIVE = Denial("as many tasks run as may at once (max_active_tasks)")


Report = Callable[[TaskId, TaskStatus], None]


class Place(Protocol):
    """A place where tasks run."""

    name: str
    backend_parameters: frozenset[str]

    async def open(self, report: Report) -> None:
        """Gets ready. Statuses go to `report`. Raises PlaceError where the place cannot work at all."""

    async def close(self) -> None:
        """Lets go of everything in this process; what runs goes on and is taken up by the next `submit`."""

    def admission(self, demand: Demand, load: Load) -> Denial | None:
        """None where a task that asks for so much may start now, beside what is active; else why not."""

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
