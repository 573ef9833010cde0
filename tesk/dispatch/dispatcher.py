"""Brings store and place together: queue, then place, then store again.

The store says what should be, the place what is; the dispatcher compares them at every start and whenever either
changes, so it may be killed at any line. It admits queued tasks while the place has room for them, first come first
served within an owner and in turn between owners, records what the place reports, and lets the place forget a task
only when its end is on record.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec
from msgspec import Struct

from tesk import tes
from tesk.dispatch.queue import Queue, Waiting, shortage, too_large
from tesk.life.status import TaskId, TaskStatus
from tesk.places.base import Demand, Job, Place, PlaceError
from tesk.settings import Settings
from tesk.store.base import Query, Queued, Row, Store, StoreError, Unfinished
from tesk.store.identifiers import read
from tesk.tes import FileTypes, Resources, State, TaskLog

log = logging.getLogger(__name__)

PAGE: Final = 200
AHEAD: Final = 5000
"""Queued tasks among which the next is looked for."""
LATE_S: Final = 10.0
LOOK_BEHIND_S: Final = 0.5
LOOKING_SHARE: Final = 0.1
"""At most so much of the time goes into reading on in the store's queue while what was read has to wait."""
RESCAN_S: Final = 30.0
AGAIN_S: Final = 2.0
"""So long after the last news the place may have room that it had not, without anything having happened."""
SWEEP_S: Final = 600.0
PRUNE_S: Final = 60.0
CLEANUP_S: Final = 5.0
RETRY_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
LAST_RETRIES_S: Final = (*RETRY_S, 15.0, 30.0)
"""Pauses between tries of what is given up after about a minute."""
MOST_STALLED: Final = 8
"""Tasks that the engine did not take, and beyond which the engine itself must be the reason: the queue waits then."""
CANCELING_S: Final = 5.0
"""Time between two looks into the store for tasks that are CANCELING."""
READY_TIMEOUT_S: Final = 5.0


class Asking(Struct, frozen=True):
    """The part of a task's document that its demand is read from."""

    resources: Resources | None = None


Unreadable: Final = (tes.InvalidTask, msgspec.MsgspecError)
UNREADABLE: Final = "the task's stored document cannot be read"
Step = Callable[[], Awaitable[None]]
_read_asking: Final = msgspec.json.Decoder(Asking).decode


class Dispatcher:
    """Owner of every task's way from QUEUED to its end, on one place."""

    def __init__(self, store: Store, place: Place, settings: Settings) -> None:
        self._store = store
        self._place = place
        self._settings = settings
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._queue = Queue()
        self._active: dict[TaskId, tuple[int, Demand]] = {}
        self._pending: dict[TaskId, TaskStatus] = {}
        self._recording: set[TaskId] = set()
        self._ending: set[TaskId] = set()
        self._stalled: dict[TaskId, asyncio.Task[None]] = {}
        self._cancels: dict[TaskId, asyncio.Task[State | None]] = {}
        self._seen: deque[tuple[float, TaskId]] = deque()
        self._cursor: TaskId | None = None
        self._read_at = 0.0
        self._reading_s = 0.0
        self._rescanned_at = 0.0
        self._opened = False
        self._short: tuple[TaskId, str] | None = None
        self._trouble: str | None = "starting"

    async def start(self) -> None:
        """Begins in the background: the place is opened, what was under way is taken up, the queue is served."""
        self._main = asyncio.create_task(self._run(), name="dispatcher")

    async def stop(self) -> None:
        """Lets go of everything; what runs goes on without us and is taken up at the next start."""
        tasks = [task for task in (self._main, *self._chores, *self._cancels.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._opened:
            await self._place.close()
            self._opened = False

    def wake(self) -> None:
        """A task was created: look at the queue."""
        self._wake.set()

    async def cancel(self, task_id: TaskId) -> State | None:
        """The task's state once its end is asked for; None for an unknown task.

        The write goes on when the caller gives up, and calls for one task share it.
        """
        if read(task_id) is None:
            return None
        work = self._cancels.get(task_id)
        if work is None:
            work = self._cancels[task_id] = asyncio.create_task(self._cancel(task_id), name=f"cancel {task_id}")
            work.add_done_callback(lambda _: self._cancels.pop(task_id))
        return await asyncio.shield(work)

    async def _cancel(self, task_id: TaskId) -> State | None:
        state = await self._store.cancel(task_id)
        self._queue.pop(task_id)
        if state is State.CANCELING:
            self._begin_end(task_id)
        return state

    async def live_log(self, task_id: TaskId) -> TaskLog | None:
        """The log of a running task with its executors' output so far, or why a queued one waits; else None."""
        if not self._opened:
            return None
        live = await self._place.live_log(task_id)
        if live is not None or task_id in self._active:
            return live
        first = self._queue.before(task_id)
        if first is not None and (why := self._place.holds(first.demand)):
            return _waiting(task_id, first.id, why)
        return None if self._short is None else _waiting(task_id, *self._short)

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
        self._spawn(self._sweep(), "sweep")
        self._spawn(self._end_canceling(), "end what is CANCELING")
        if self._settings.prune_after_s:
            self._spawn(self._prune(), "prune")
        while True:
            self._wake.clear()
            await self._patiently("serving the queue", self._serve)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._queue else RESCAN_S):
                    await self._wake.wait()
            if time.monotonic() - self._rescanned_at >= RESCAN_S:
                self._cursor, self._rescanned_at = None, time.monotonic()
                self._seen.clear()

    async def _patiently(self, what: str, step: Any) -> None:
        """Repeats a step until it goes well; what keeps it from it shows in the log and in `ready`."""
        for turn in range(1_000_000_000):
            try:
                await step()
            except Exception as error:
                self._trouble = str(error) or repr(error)
                known = isinstance(error, PlaceError | StoreError)
                log.error("%s: %s", what, self._trouble, exc_info=None if known else error)
                await asyncio.sleep(RETRY_S[min(turn, len(RETRY_S) - 1)])
            else:
                self._trouble = None if self._trouble != "starting" else self._trouble
                return

    async def _open_place(self) -> None:
        await self._place.open(self._reported)
        self._opened = True

    async def _take_up(self) -> None:
        """Hands every task that a place was told of to it again, whatever it knows of it."""
        after = None
        while page := await self._store.unfinished(after, PAGE):
            after = page[-1].id
            for row in page:
                if row.submitted and row.id not in self._active:
                    await self._take_up_task(row)

    async def _take_up_task(self, row: Unfinished) -> None:
        """The task is read again, since it may have been cancelled after the page was read."""
        found = await self._store.get(row.id, "FULL")
        if not isinstance(found, Row) or found.state.is_terminal:
            return
        try:
            task = tes.decode(found.document)
        except Unreadable as error:
            self._reported(row.id, _failed(f"{UNREADABLE}: {error}"))
            return
        demand = self._demand(task.resources)
        self._active[row.id] = row.owner, demand
        if found.state is State.CANCELING:
            self._begin_end(row.id)
        else:
            await self._submit(Job(row.id, demand, task, begun=found.state > State.QUEUED))

    async def _serve(self) -> None:
        """Admits what the place has room for, and reads on in the store's queue.

        While those that were read have to wait, the store is read now and then only.
        """
        pause_s = max(LOOK_BEHIND_S, self._reading_s / LOOKING_SHARE)
        if not self._queue or time.monotonic() - self._read_at > pause_s:
            await self._refill()
        capacity = await self._place.capacity()
        while waiting := self._queue.next((owner for owner, _ in self._active.values()), self._place.holds):
            if len(self._stalled) >= MOST_STALLED:
                raise PlaceError(f"the {self._place.name} engine did not take the last {len(self._stalled)} tasks")
            active = [demand for _, demand in self._active.values()]
            if reason := too_large(waiting.demand, capacity):
                await self._refuse(waiting.id, reason)
            elif why := shortage(waiting.demand, active, capacity):
                self._short = waiting.id, why
                return
            else:
                await self._admit(waiting)
            if not self._queue:
                await self._refill()
        self._short = None

    async def _refill(self) -> None:
        """Reads queued tasks that are not in memory yet, in order, a bounded number ahead.

        Tasks may become visible a little after younger ones (their commits overlap), so reading goes on from the
        newest task that was seen a while ago, and now and then from the oldest.
        """
        moment = self._read_at = time.monotonic()
        while self._seen and moment - self._seen[0][0] > LATE_S:
            self._cursor = self._seen.popleft()[1]
        after = self._cursor
        while len(self._queue) < AHEAD:
            page = await self._store.queued(after, PAGE)
            for row in page:
                if row.id not in self._queue and row.id not in self._active:
                    await self._enqueue(row)
            if len(page) < PAGE:
                break
            after = page[-1].id
        newest = self._queue.newest()
        if newest is not None and (not self._seen or newest > self._seen[-1][1]):
            self._seen.append((moment, newest))
        self._reading_s = time.monotonic() - moment

    async def _enqueue(self, row: Queued) -> None:
        document = row.basic
        if document is None:
            found = await self._store.get(row.id, "BASIC")
            document = found.document if isinstance(found, Row) else b"{}"
        try:
            asked = _read_asking(document).resources
        except Unreadable as error:
            await self._refuse(row.id, f"{UNREADABLE}: {error}")
        else:
            self._queue.add(Waiting(row.id, row.owner, self._demand(asked)))

    async def _admit(self, waiting: Waiting) -> None:
        """Admits one task. It leaves the queue only once it counts as active, so a failure in between is retried."""
        row = await self._store.get(waiting.id, "FULL")
        if not isinstance(row, Row):
            self._queue.pop(waiting.id)
            return
        try:
            job = Job(waiting.id, waiting.demand, tes.decode(row.document))
        except Unreadable as error:
            await self._refuse(waiting.id, f"{UNREADABLE}: {error}")
            return
        is_queued = await self._store.submitted(job.id)
        was_cancelled = self._queue.pop(job.id) is None or job.id in self._ending
        if is_queued and not was_cancelled:
            self._active[job.id] = waiting.owner, waiting.demand
            await self._submit(job)

    async def _submit(self, job: Job) -> None:
        """Gives a task to the place. What the place does not take is tried again apart: others go on meanwhile."""
        if not await self._attempt(f"task {job.id}: starting", lambda: self._place.submit(job)):
            self._stalled[job.id] = self._spawn(self._submit_again(job), f"start {job.id}")

    async def _submit_again(self, job: Job) -> None:
        try:
            for pause_s in LAST_RETRIES_S:
                await asyncio.sleep(pause_s)
                if await self._attempt(f"task {job.id}: starting", lambda: self._place.submit(job)):
                    return
            self._reported(job.id, _failed("the engine did not take the task; see the server's log"))
        finally:
            self._stalled.pop(job.id, None)
            self._wake.set()

    async def _refuse(self, task_id: TaskId, reason: str) -> None:
        status = _failed(reason)
        await self._store.advance(task_id, status.state, status.log)
        self._queue.pop(task_id)

    def _reported(self, task_id: TaskId, status: TaskStatus) -> None:
        """Takes a report: the newest waits to be recorded, by one recorder per task. It may mean room for another."""
        self._pending[task_id] = status
        if self._queue:
            self._wake.set()
        if task_id not in self._recording:
            self._recording.add(task_id)
            self._spawn(self._record(task_id), f"record {task_id}")

    async def _record(self, task_id: TaskId) -> None:
        try:
            while status := self._pending.pop(task_id, None):
                if await self._store_status(task_id, status):
                    self._spawn(self._forget(task_id), f"forget {task_id}")
        finally:
            self._recording.discard(task_id)

    async def _store_status(self, task_id: TaskId, status: TaskStatus) -> bool:
        """True when that is the task's end and is on record, or another end is."""
        turn = 0
        while True:
            try:
                if status.state.is_terminal:
                    await self._fill_in(task_id, status.types)
                if await self._store.advance(task_id, status.state, status.log, status.earlier):
                    return status.state.is_terminal
                return await self._is_over(task_id) and status.state.is_terminal
            except StoreError as error:
                log.error("task %s: its state could not be recorded, trying again: %s", task_id, error)
                await asyncio.sleep(RETRY_S[min(turn, len(RETRY_S) - 1)])
                turn += 1

    async def _fill_in(self, task_id: TaskId, types: FileTypes) -> None:
        """Gives the task's document the types that its inputs and outputs turned out to have.

        Not before its end: a place that takes a task up again must get the same document as at first.
        """
        if types == FileTypes():
            return
        row = await self._store.get(task_id, "FULL")
        if isinstance(row, Row) and tes.fill_in_types(task := tes.decode(row.document), types):
            await self._store.describe(task_id, *tes.documents(task))

    async def _is_over(self, task_id: TaskId) -> bool:
        """Whether the store has the task's end, or no such task. The end of one that is CANCELING is begun."""
        row = await self._store.get(task_id, "MINIMAL")
        if row is not None and row.state is State.CANCELING:
            self._begin_end(task_id)
        return row is None or row.state.is_terminal

    async def _end_canceling(self) -> None:
        """Ends, now and always, whatever is CANCELING in the store and not being ended: whoever wrote that may have
        given up before it was written."""
        while True:
            try:
                await self._begin_ends()
            except StoreError as error:
                log.error("looking for cancelled tasks: %s", error)
            await asyncio.sleep(CANCELING_S)

    async def _begin_ends(self) -> None:
        """Begins the end of each task that is CANCELING. What is being recorded now may have been read before that."""
        before = None
        while True:
            busy = self._ending | self._recording
            page = await self._store.page(Query(PAGE, before=before, state=State.CANCELING))
            for row in page:
                if row.id not in busy and row.id not in self._recording:
                    self._begin_end(row.id)
            if len(page) < PAGE:
                return
            before = page[-1].id

    def _begin_end(self, task_id: TaskId) -> None:
        """Ends a task that is CANCELING, and so is not admitted any more, unless that is under way."""
        if task_id in self._stalled:
            self._stalled.pop(task_id).cancel()
        if task_id not in self._ending:
            self._ending.add(task_id)
            self._spawn(self._end(task_id), f"cancel {task_id}")

    async def _end(self, task_id: TaskId) -> None:
        """Cancels the task in the place. Retries for ever: after CANCELING no other code path ends the task."""
        try:
            while not await self._repeat(f"task {task_id}: cancelling", lambda: self._place.cancel(task_id)):
                pass
        finally:
            self._ending.discard(task_id)

    async def _forget(self, task_id: TaskId) -> None:
        """Cleans up after a task, and then gives its room to the next: cleaning up is work for the place too."""
        late = asyncio.get_running_loop().call_later(CLEANUP_S, self._release, task_id)
        try:
            await self._clean_up(task_id)
        finally:
            late.cancel()
            self._release(task_id)

    def _release(self, task_id: TaskId) -> None:
        self._active.pop(task_id, None)
        self._wake.set()

    async def _clean_up(self, task_id: TaskId) -> None:
        await self._repeat(f"task {task_id}: cleaning up", lambda: self._place.forget(task_id))

    async def _repeat(self, what: str, step: Step) -> bool:
        """Tries a few times, for about a minute, until it goes well; False when it never did."""
        for pause_s in LAST_RETRIES_S:
            if await self._attempt(what, step):
                return True
            await asyncio.sleep(pause_s)
        return await self._attempt(what, step)

    async def _attempt(self, what: str, step: Step) -> bool:
        try:
            await step()
        except Exception as error:
            known = isinstance(error, PlaceError | StoreError | OSError)
            log.error("%s: %s", what, error or repr(error), exc_info=None if known else error)
            return False
        return True

    async def _sweep(self) -> None:
        """Removes what belongs to no unfinished task, at the start and now and then."""
        while True:
            try:
                for task_id in await self._place.known() - set(self._active) - self._recording:
                    if await self._is_over(task_id):
                        await self._clean_up(task_id)
            except Exception as error:
                known = isinstance(error, PlaceError | StoreError | OSError)
                log.error("sweeping what is left over: %s", error or repr(error), exc_info=None if known else error)
            await asyncio.sleep(SWEEP_S)

    async def _prune(self) -> None:
        while True:
            before_ms = int((time.time() - self._settings.prune_after_s) * 1000)
            try:
                pruned = PAGE
                while pruned:
                    pruned = await self._store.prune(before_ms)
            except StoreError as error:
                log.error("pruning old tasks: %s", error)
            await asyncio.sleep(min(PRUNE_S, self._settings.prune_after_s))

    def _demand(self, asked: Resources | None) -> Demand:
        asked, settings = asked or Resources(), self._settings
        place = (asked.zones, asked.preemptible, sorted((asked.backend_parameters or {}).items()))
        return Demand(
            asked.cpu_cores or settings.default_cpu_cores,
            asked.ram_gb or settings.default_ram_gb,
            asked.disk_gb or settings.default_disk_gb,
            tes.encode(place).decode() if any(place) else "",
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._chores.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s failed", task.get_name(), exc_info=error)


def _failed(reason: str) -> TaskStatus:
    return TaskStatus(State.SYSTEM_ERROR, TaskLog(system_logs=[f"error: {reason}"]))


def _waiting(task_id: TaskId, first: TaskId, why: str) -> TaskLog:
    turn = "" if task_id == first else "waiting for its turn; the first in line is "
    return TaskLog(system_logs=[f"{turn}waiting: {why}"])
