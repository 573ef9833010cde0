"""Brings store and place together: queue, then place, then store again.

The store says what should be, the place what is; the dispatcher compares them at every start and whenever either
changes, so it may be killed at any line. It admits queued tasks while the place has room for them, first come first
served within an owner and in turn between owners, records what the place reports, and lets the place forget a task
only when its end is on record. Each of these is a part of its own; all share `Work`.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any, Final

from tesk import tes
from tesk.dispatch.admission import RESCAN_S, UNREADABLE, Admission
from tesk.dispatch.cancelling import Cancelling
from tesk.dispatch.cleaning import Cleaning
from tesk.dispatch.recording import Recording
from tesk.dispatch.work import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    PAGE,
    UNREADABLE_ERRORS,
    Work,
    failed,
    unexpected,
)
from tesk.identity import SERVER, Identity
from tesk.life.status import TaskId
from tesk.places.base import Demand, Job, Place
from tesk.retry import pauses
from tesk.rules import granted
from tesk.rules.file import RulesFile
from tesk.settings import Settings
from tesk.store.base import Row, Store, Unfinished
from tesk.store.identifiers import read
from tesk.tes import Resources, State, TaskLog

log = logging.getLogger(__name__)

READY_TIMEOUT_S: Final = 5.0


class Dispatcher:
    """Owner of every task's way from QUEUED to its end, on one place."""

    def __init__(self, store: Store, place: Place, settings: Settings, rules: RulesFile) -> None:
        self._store, self._place, self._settings, self._rules = store, place, settings, rules
        self.work = Work()
        self._cancelling = Cancelling(store, place, self.work)
        self._cleaning = Cleaning(store, place, self.work, self._cancelling)
        self._recording = Recording(store, self.work, self._cancelling, self._cleaning.begin, self.demand)
        self._admission = Admission(store, place, settings, rules, self.work, self._recording.report)
        self._rescanned_at = 0.0
        self._opened = False
        self._trouble: str | None = "starting"

    async def start(self) -> None:
        """Begins in the background: the place is opened, what was under way is taken up, the queue is served."""
        self.work.spawn(self._run(), "dispatcher")

    async def stop(self) -> None:
        """Lets go of everything; what runs goes on without us and is taken up at the next start."""
        await self._cancelling.stop()
        await self.work.stop()
        if self._opened:
            await self._place.close()
            self._opened = False

    def wake(self) -> None:
        """A task was created: look at the queue, unless nothing at all may start now. Then the next end is a reason."""
        if self._admission.created():
            self.work.wake.set()

    async def cancel(self, task_id: TaskId, identity: Identity) -> State | None:
        """The task's state once its end is asked for; None for a task that is not seen. Raises MayNotEnd."""
        return None if read(task_id) is None else await self._cancelling.cancel(task_id, identity)

    def demand(self, asked: Resources | None) -> Demand:
        """What a task asks for, or gets by default."""
        return self._admission.demand(asked)

    async def live_log(self, task_id: TaskId, identity: Identity) -> TaskLog | None:
        """The log of a running task with its executors' output so far, or why a queued one waits; else None.

        None too for a task that the caller does not see.
        """
        if not self._opened or await self._store.get(task_id, "MINIMAL", identity) is None:
            return None
        live = await self._place.live_log(task_id)
        if live is not None or task_id in self.work.active:
            return live
        return await self._admission.reason(task_id)

    async def ready(self) -> str | None:
        """None, or in words why no task would run now."""
        if self._trouble is not None:
            return self._trouble
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await self._place.ready()
        except TimeoutError:
            return f"the {self._place.name} engine did not answer within {READY_TIMEOUT_S:.0f} s"

    async def _run(self) -> None:
        await self._patiently("opening the place", self._open_place)
        await self._patiently("taking up unfinished tasks", self._take_up)
        self._trouble = None
        self.work.spawn(self._cleaning.sweep(), "sweep")
        self.work.spawn(self._cancelling.watch(), "end what is CANCELING")
        if self._settings.prune_after_s:
            self.work.spawn(self._cleaning.prune(self._settings.prune_after_s), "prune")
        while True:
            self.work.wake.clear()
            await self._patiently("serving the queue", self._admission.serve)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._admission.look_again_s()):
                    await self.work.wake.wait()
            if time.monotonic() - self._rescanned_at >= RESCAN_S:
                self._rescanned_at = time.monotonic()
                self._admission.rescan()

    async def _patiently(self, what: str, step: Any) -> None:
        """Repeats a step until it goes well; what keeps it from it shows in the log and in `ready`."""
        for pause_s in pauses(FIRST_PAUSE_S, LONGEST_PAUSE_S):
            try:
                await step()
            except Exception as error:
                self._trouble = str(error) or repr(error)
                log.error("%s: %s", what, self._trouble, exc_info=unexpected(error))
                await asyncio.sleep(pause_s)
            else:
                self._trouble = None if self._trouble != "starting" else self._trouble
                return

    async def _open_place(self) -> None:
        await self._place.open(self._recording.report)
        self._opened = True

    async def _take_up(self) -> None:
        """Hands every task that a place was told of to it again, whatever it knows of it."""
        after = None
        while page := await self._store.unfinished(after, PAGE):
            after = page[-1].id
            for row in page:
                if row.submitted and row.id not in self.work.active:
                    await self._take_up_task(row)

    async def _take_up_task(self, row: Unfinished) -> None:
        """The task is read again, since it may have been cancelled after the page was read."""
        found = await self._store.get(row.id, "FULL", SERVER)
        if not isinstance(found, Row) or found.state.is_terminal:
            return
        try:
            task = tes.decode(found.document)
        except UNREADABLE_ERRORS as error:
            self._recording.report(row.id, failed(f"{UNREADABLE}: {error}"))
            return
        demand = self._admission.demand(task.resources)
        self.work.active.add(row.id, (row.owner, row.group), demand)
        if found.state is State.CANCELING:
            self._cancelling.begin(row.id)
        else:
            begun = found.state > State.QUEUED
            logs = found.logs if begun else None
            await self._admission.submit(
                Job(row.id, demand, task, True, begun, logs, found.state, granted(found.grants, self._rules.rules))
            )
