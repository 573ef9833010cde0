"""A task that was submitted, and what a way of running it on a cluster has to offer: with a taskmaster (taskmasters.py)
or in one pod (task_pods.py). The place asks no more of either."""

import asyncio
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from tesk.kubernetes.account import Account
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId, TaskStatus
from tesk.places.base import Job
from tesk.places.kubernetes.live_output import OutputLog
from tesk.places.kubernetes.observed import ObservedTask
from tesk.tes import State, TaskLog


class Following(Struct, eq=False):
    """A task that was submitted."""

    job: Job
    mode_line: str = ""
    """What its log is to say of its mode, where this server makes its objects."""
    parts: int = 0
    """Secrets with its document; 0 when others made them."""
    word: str = ""
    """What its reports are known by, where this server has made its Secrets."""
    made_at: float | None = None
    """When its objects had been made."""
    may_have_run: bool = False
    """What runs it may have been made, by an earlier server or by a request that was not answered."""
    attempt: int = 1
    """The newest attempt at it that was begun from here."""
    end: Literal["", "being prepared", "prepared"] = ""
    """Whether its end may be reported."""
    reported: TaskStatus | None = None
    """The last report."""
    state: State = State.QUEUED
    """The state on record. A further attempt has begun less, and waits for its start in this state: none goes back."""
    work: asyncio.Task[None] | None = None
    """What makes its objects."""
    making: asyncio.Task[None] | None = None
    """The try that is under way."""

    def forward(self, status: TaskStatus) -> TaskStatus:
        """The status as it may be recorded."""
        return replace(status, state=max(status.state, self.state))

    def waiting(self, line: str) -> TaskStatus:
        """The last status, with a line of its own about what the task waits for."""
        status = self.reported or TaskStatus(self.state, TaskLog())
        lines = [each for each in status.log.system_logs or () if not each.startswith("waiting: ")]
        return replace(status, log=replace(status.log, system_logs=[*lines, line]))


class Ground(Struct, frozen=True):
    """Where objects are made: the settings of tasks as they are now, and the account that owns what outlives no server.

    `report`: where pods report to, "" for nowhere. `has_pod_resources`: the cluster takes requests of whole pods.
    """

    settings: TaskSettings
    account: Account | None
    report: str
    has_pod_resources: bool


class Way(Protocol):
    """One way of running tasks. All may be repeated, and raise ApiError."""

    async def make(self, following: Following, task: ObservedTask, ground: Ground) -> None:
        """Makes what runs the task. What exists already is as good as made."""

    async def is_there(self, task_id: TaskId) -> bool:
        """Whether what runs the task exists, by the API's own account."""

    async def read_end(self, task_id: TaskId, task: ObservedTask) -> None:
        """Reads the record of a task once more: what runs the task is over."""

    async def prepare_end(self, task_id: TaskId, task: ObservedTask, parts: int) -> None:
        """Removes, before the end is on record, what nobody would find afterwards. `parts` as in `remove`."""

    async def stop(self, task_id: TaskId, task: ObservedTask, settings: TaskSettings, changed: asyncio.Event) -> None:
        """Ends all pods of the task, and keeps new ones from being made."""

    async def remove(
        self, task_id: TaskId, task: ObservedTask, parts: int, settings: TaskSettings, changed: asyncio.Event
    ) -> None:
        """Deletes all of the task. `parts`: Secrets with its document; 0: nobody knows."""

    def output(self, task_id: TaskId, task: ObservedTask) -> OutputLog | None:
        """Where the output of the executor stands that runs now; None where none does."""
