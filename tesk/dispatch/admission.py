"""Gives queued tasks to the place, each as soon as the place admits it.

The store has the queue; some thousand of its tasks are in memory, without their documents.
"""

import asyncio
import time
from collections import deque
from collections.abc import Collection
from itertools import islice
from typing import Final

from tesk import parameters, tes
from tesk.dispatch.queue import Waiting
from tesk.dispatch.quotas import QueueQuotas
from tesk.dispatch.work import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    PAGE,
    TRIES,
    UNREADABLE_ERRORS,
    Work,
    attempt,
    failed,
    read_asking,
)
from tesk.identity import SERVER
from tesk.life.status import TaskId
from tesk.places.base import Demand, Denial, Job, Place, PlaceError, Report
from tesk.retry import pauses
from tesk.rules import granted
from tesk.rules.file import RulesFile
from tesk.rules.volumes import in_the_way
from tesk.settings import Settings
from tesk.store.base import Queued, Row, Store
from tesk.store.identifiers import read, show
from tesk.tes import Resources, TaskLog

AHEAD: Final = 5000
"""Queued tasks among which the next is looked for, oldest first; beyond them some of owners who have FEW there."""
FEW: Final = 20
"""Tasks of one owner that are in memory in any case."""
RESCAN_S: Final = 30.0
AGAIN_S: Final = 2.0
"""So long after the last news the place may have room that it had not, without anything having happened."""
LEAST: Final = Demand(0, 0)
"""No task asks for less."""
LATE_S: Final = 10.0
LOOK_BEHIND_S: Final = 0.5
LOOKING_SHARE: Final = 0.1
"""At most so much of the time goes into reading on in the store's queue while what was read has to wait."""
MOST_STALLED: Final = 8
"""Tasks that the engine did not take, and beyond which the engine itself must be the reason: the queue waits then."""


BEYOND: Final = Denial("beyond a quota", "its like")
UNREADABLE: Final = "the task's stored document cannot be read"


class Admission:
    """Serves the queue. A task that the place does not take is reported as failed to `report`."""

    def __init__(
        self, store: Store, place: Place, settings: Settings, rules: RulesFile, work: Work, report: Report
    ) -> None:
        self._store, self._place, self._settings, self._rules = store, place, settings, rules
        self._limits = QueueQuotas(store, rules)
        self._work, self._queue, self._report = work, work.queue, report
        self._seen: deque[tuple[float, TaskId]] = deque()
        self._cursor: TaskId | None = None
        self._read_at = 0.0
        self._reading_s = 0.0
        self._is_behind = False
        """Whether a task was created after the last read."""
        self._is_crowded = False
        """Whether the last read left tasks in the store because memory had enough."""
        self._started = 0
        """How many tasks started after the last read."""
        self._is_full = False
        """Whether no task whatsoever may start, by the last look at the queue."""
        self._denied: tuple[TaskId, Denial] | None = None

    async def serve(self) -> None:
        """Admits what the place has room for, and reads on in the store's queue.

        While the tasks in memory have to wait, the store is read now and then only.
        """
        if self._limits.is_outdated:
            await self._limits.renew(self._queue.parties())
        if not self._queue or self._next_read_s() <= 0:
            await self._refill()
        while found := await self._find():
            waiting, denial = found
            if len(self._work.stalled) >= MOST_STALLED:
                raise PlaceError(f"the {self._place.name} engine did not take the last {len(self._work.stalled)} tasks")
            if denial is None:
                await self._admit(waiting)
            elif denial.blocks == "itself for ever":
                await self._refuse(waiting.id, denial.reason)
            else:
                self._denied = waiting.id, denial
                self._is_full = self._place.admission(LEAST, self._work.load) is not None
                return
            if not self._queue:
                await self._refill()
        self._denied, self._is_full = None, False

    async def _find(self) -> tuple[Waiting, Denial | None] | None:
        """The next task, and why it may not start now.

        Where tasks that keep only their like back fill the memory, others come a few at a time: so as long as these
        start, the next few are read.
        """
        found = self._next()
        while found is None and self._is_crowded and self._started:
            await self._refill()
            found = self._next()
        return found

    def _next(self) -> tuple[Waiting, Denial | None] | None:
        load, active = self._work.load, self._work.active

        def admission(waiting: Waiting) -> Denial | None:
            return BEYOND if self._limits.holds(waiting, active) else self._place.admission(waiting.demand, load)

        return self._queue.next(active.counts, admission)

    async def reason(self, task_id: TaskId) -> TaskLog | None:
        """Why a queued task waits."""
        waiting = self._queue.get(task_id) or await self._beyond_memory(task_id)
        beyond = None if waiting is None else self._limits.reason(waiting, self._work.active)
        if beyond is not None:
            return TaskLog(system_logs=[f"waiting: {beyond}"])
        first = self._queue.before(task_id)
        if first is not None:
            denial = self._place.admission(first.demand, self._work.load)
            if denial is not None and denial.blocks == "its like":
                return _waits(task_id, first.id, denial)
        return None if self._denied is None else _waits(task_id, *self._denied)

    async def _beyond_memory(self, task_id: TaskId) -> Waiting | None:
        """A queued task that is not in memory, where there are quotas."""
        number = read(task_id)
        if number is None or not self._limits:
            return None
        page = await self._store.queued(show(number - 1), 1)
        if not page or page[0].id != task_id:
            return None
        await self._limits.learn([(page[0].owner, page[0].group)])
        try:
            return await self._waiting(page[0])
        except UNREADABLE_ERRORS:
            return None

    def created(self) -> bool:
        """A task was created. Whether it is a reason to look at the queue: not while no task whatsoever may start.

        A task that the first in line keeps waiting may be another owner's, whose turn is first. One look is enough for
        all tasks that are created before the next read.
        """
        was_behind, self._is_behind = self._is_behind, True
        return not self._queue or not (was_behind or self._is_full)

    def look_again_s(self) -> float:
        """After so long there is a reason to look at the queue again, without any news."""
        if not self._queue:
            return RESCAN_S
        is_behind = self._is_behind and not self._is_full
        return min(AGAIN_S, max(self._next_read_s(), 0.0)) if is_behind else AGAIN_S

    def _next_read_s(self) -> float:
        pause_s = max(LOOK_BEHIND_S, self._reading_s / LOOKING_SHARE)
        return self._read_at + pause_s - time.monotonic()

    def rescan(self) -> None:
        """The next read begins with the oldest queued task."""
        self._cursor = None
        self._seen.clear()

    async def _refill(self) -> None:
        """Reads queued tasks that are not in memory yet, in order, a bounded number ahead.

        Tasks may become visible a little after younger ones (their commits overlap), so reading goes on from the
        newest task that was seen a while ago, and now and then from the oldest.
        """
        moment = self._read_at = time.monotonic()
        self._is_behind, self._started = False, 0
        while self._seen and moment - self._seen[0][0] > LATE_S:
            self._cursor = self._seen.popleft()[1]
        after = newest = self._cursor
        while len(self._queue) < AHEAD:
            page = await self._read(after)
            for row in page:
                if row.id not in self._queue and row.id not in self._work.active:
                    await self._enqueue(row)
            if page:
                newest = page[-1].id
            if len(page) < PAGE:
                break
            after = newest
        self._is_crowded = len(self._queue) >= AHEAD
        if self._is_crowded:
            await self._look_past()
        if newest is not None and (not self._seen or newest > self._seen[-1][1]):
            self._seen.append((moment, newest))
        self._reading_s = time.monotonic() - moment

    async def _look_past(self) -> None:
        """Reads tasks of owners who have few in memory, where the tasks of others fill it: all get their turn."""
        counts, after, read = self._queue.owners(), None, 0
        while read < PAGE:
            crowded = sorted(owner for owner, count in counts.items() if count >= FEW)
            page = await self._read(after, crowded)
            for row in page:
                if counts[row.owner] < FEW and row.id not in self._queue and row.id not in self._work.active:
                    await self._enqueue(row)
                    counts[row.owner] += 1
                    read += 1
            if len(page) < PAGE:
                return
            after = page[-1].id

    async def _read(self, after: TaskId | None, without: Collection[int] = ()) -> list[Queued]:
        """A page of the store's queue. The quotas of all whose tasks it has are known then."""
        page = await self._store.queued(after, PAGE, without)
        await self._limits.learn({(row.owner, row.group) for row in page})
        return page

    async def _enqueue(self, row: Queued) -> None:
        try:
            waiting = await self._waiting(row)
        except UNREADABLE_ERRORS as error:
            await self._refuse(row.id, f"{UNREADABLE}: {error}")
        else:
            self._queue.add(waiting)

    async def _waiting(self, row: Queued) -> Waiting:
        """Raises UNREADABLE_ERRORS."""
        document = row.basic
        if document is None:
            found = await self._store.get(row.id, "BASIC", SERVER)
            document = found.document if isinstance(found, Row) else b"{}"
        return Waiting(row.id, row.owner, row.group, self.demand(read_asking(document).resources))

    async def _admit(self, waiting: Waiting) -> None:
        """Admits one task. It leaves the queue only once it counts as active, so a failure in between is retried."""
        row = await self._store.get(waiting.id, "FULL", SERVER)
        if not isinstance(row, Row):
            self._queue.pop(waiting.id)
            return
        try:
            job = Job(
                waiting.id, waiting.demand, tes.decode(row.document), granted=granted(row.grants, self._rules.rules)
            )
        except UNREADABLE_ERRORS as error:
            await self._refuse(waiting.id, f"{UNREADABLE}: {error}")
            return
        volumes = job.granted.volumes.values()
        if volumes and (problem := await asyncio.to_thread(in_the_way, job.task, volumes)):
            await self._refuse(waiting.id, ": ".join(problem))
            return
        is_queued = await self._store.submitted(job.id)
        was_cancelled = self._queue.pop(job.id) is None or job.id in self._work.ending
        if is_queued and not was_cancelled:
            self._work.active.add(job.id, waiting.party, waiting.demand)
            self._started += 1
            await self.submit(job)

    async def submit(self, job: Job) -> None:
        """Gives a task to the place. What the place does not take is tried again apart: others go on meanwhile."""
        if not await attempt(f"task {job.id}: starting", lambda: self._place.submit(job)):
            self._work.stalled[job.id] = self._work.spawn(self._submit_again(job), f"start {job.id}")

    async def _submit_again(self, job: Job) -> None:
        try:
            for pause_s in islice(pauses(FIRST_PAUSE_S, LAST_PAUSE_S), TRIES):
                await asyncio.sleep(pause_s)
                if await attempt(f"task {job.id}: starting", lambda: self._place.submit(job)):
                    return
            self._report(job.id, failed("the engine did not take the task; see the server's log"))
        finally:
            self._work.stalled.pop(job.id, None)
            self._work.wake.set()

    async def _refuse(self, task_id: TaskId, reason: str) -> None:
        status = failed(reason)
        await self._store.advance(task_id, status.state, status.log)
        self._queue.pop(task_id)

    def demand(self, asked: Resources | None) -> Demand:
        """What a task asks for, or gets by default."""
        asked, settings = asked or Resources(), self._settings
        place = (asked.zones, asked.preemptible, sorted((asked.backend_parameters or {}).items()))
        return Demand(
            asked.cpu_cores or settings.default_cpu_cores,
            asked.ram_gb or settings.default_ram_gb,
            asked.disk_gb or settings.default_disk_gb,
            tes.encode(place).decode() if any(place) else "",
            parameters.gpus(asked),
        )


def _waits(task_id: TaskId, first: TaskId, denial: Denial) -> TaskLog:
    turn = "" if task_id == first else "waiting for its turn; the first in line is "
    return TaskLog(system_logs=[f"{turn}waiting: {denial.reason}"])
