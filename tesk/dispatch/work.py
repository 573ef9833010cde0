"""What the dispatcher's parts share: the tasks that a place was given, and the work that goes on in the background."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Struct

from tesk import tes
from tesk.dispatch.active import Active
from tesk.dispatch.queue import Queue
from tesk.life.status import TaskId, TaskStatus
from tesk.places.base import Load, PlaceError
from tesk.retry import pauses
from tesk.store.base import StoreError
from tesk.tes import Resources, State, TaskLog

log = logging.getLogger(__name__)

PAGE: Final = 200
"""Tasks that are read from the store at once."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
TRIES: Final = 9
LAST_PAUSE_S: Final = 30.0
"""Nine pauses of at most so long are about a minute: then a step is given up."""

UNREADABLE_ERRORS: Final = (tes.InvalidTask, msgspec.MsgspecError)


class Asking(Struct, frozen=True):
    """The part of a task's document that its demand is read from."""

    resources: Resources | None = None


read_asking: Final = msgspec.json.Decoder(Asking).decode

Step = Callable[[], Awaitable[None]]


class Work:
    """Which tasks are where on their way. Each part changes what it owns; background tasks end with `stop`."""

    def __init__(self) -> None:
        self.queue = Queue()
        """Queued tasks that have been read from the store."""
        self.active = Active()
        """Tasks that the place was given and has not cleaned up."""
        self.stalled: dict[TaskId, asyncio.Task[None]] = {}
        """Active tasks that the place did not take, and what tries again."""
        self.ending: set[TaskId] = set()
        """CANCELING tasks that the place is ending."""
        self.recording: set[TaskId] = set()
        """Tasks of which a report is being written to the store."""
        self.wake = asyncio.Event()
        """Set when a queued task may have become possible."""
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def load(self) -> Load:
        return Load.of(self.active.demands())

    @property
    def chores(self) -> set[str]:
        """The names of what goes on in the background."""
        return {chore.get_name() for chore in self._chores}

    def release(self, task_id: TaskId) -> None:
        """The task takes no room any more."""
        self.active.pop(task_id)
        self.wake.set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._chores.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        tasks = list(self._chores)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s failed", task.get_name(), exc_info=error)


async def attempt(what: str, step: Step) -> bool:
    """Whether the step went well; what failed is logged."""
    try:
        await step()
    except Exception as error:
        log.error("%s: %s", what, str(error) or repr(error), exc_info=unexpected(error))
        return False
    return True


async def repeat(what: str, step: Step) -> bool:
    """Tries for about a minute until the step goes well; False when it never did."""
    for pause_s in islice(pauses(FIRST_PAUSE_S, LAST_PAUSE_S), TRIES):
        if await attempt(what, step):
            return True
        await asyncio.sleep(pause_s)
    return await attempt(what, step)


def unexpected(error: Exception) -> Exception | None:
    """An error that is to be logged with its traceback; None for one that a place, a store or the machine may have."""
    return None if isinstance(error, PlaceError | StoreError | OSError) else error


def failed(reason: str) -> TaskStatus:
    """The end of a task that cannot run."""
    return TaskStatus(State.SYSTEM_ERROR, TaskLog(system_logs=[f"error: {reason}"]))
