"""Writes what the place reports of tasks to the store."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from tesk import tes
from tesk.dispatch.cancelling import Cancelling
from tesk.dispatch.work import FIRST_PAUSE_S, LONGEST_PAUSE_S, UNREADABLE_ERRORS, Work, read_asking
from tesk.identity import SERVER
from tesk.life.status import TaskId, TaskStatus
from tesk.places.base import Demand
from tesk.retry import pauses
from tesk.store.base import Documents, Row, Store, StoreError
from tesk.store.identifiers import created_ms, now_ms
from tesk.tes import FileTypes, Resources, TaskLog
from tesk.usage import Amounts, Used, start_ms, used

log = logging.getLogger(__name__)
_read_logs: Final = msgspec.json.Decoder(list[TaskLog]).decode


class Recording:
    """One recorder per task with something to record. `ended` is called with each task whose end is on record.

    `demand`: what a task asks for, or gets by default.
    """

    def __init__(
        self, store: Store, work: Work, cancelling: Cancelling, ended: Callable[[TaskId], None],
        demand: Callable[[Resources | None], Demand],
    ) -> None:  # fmt: skip
        self._store, self._work, self._cancelling, self._ended = store, work, cancelling, ended
        self._demand = demand
        self._pending: dict[TaskId, TaskStatus] = {}

    def report(self, task_id: TaskId, status: TaskStatus) -> None:
        """Takes a report: the newest waits to be recorded. It may mean room for another task."""
        self._pending[task_id] = status
        if self._work.queue:
            self._work.wake.set()
        if task_id not in self._work.recording:
            self._work.recording.add(task_id)
            self._work.spawn(self._record(task_id), f"record {task_id}")

    async def _record(self, task_id: TaskId) -> None:
        try:
            while status := self._pending.pop(task_id, None):
                if await self._store_status(task_id, status):
                    self._ended(task_id)
        finally:
            self._work.recording.discard(task_id)

    async def _store_status(self, task_id: TaskId, status: TaskStatus) -> bool:
        """True when the status is the task's end and is on record, or another end is."""
        for pause_s in pauses(FIRST_PAUSE_S, LONGEST_PAUSE_S):
            try:
                new = await self._described(task_id, status.types) if status.state.is_terminal else None
                used = await self._used(task_id, status) if status.state.is_terminal else []
                if await self._store.advance(task_id, status.state, status.log, status.earlier, new, used):
                    return status.state.is_terminal
                return await self._cancelling.is_over(task_id) and status.state.is_terminal
            except StoreError as error:
                log.error("task %s: its state could not be recorded, trying again: %s", task_id, error)
                await asyncio.sleep(pause_s)
        raise AssertionError

    async def _described(self, task_id: TaskId, types: FileTypes) -> Documents | None:
        """The task's documents with the types that its inputs and outputs turned out to have, where they are new.

        Not before its end: a place that takes a task up again must get the same document as at first.
        """
        if types == FileTypes():
            return None
        row = await self._store.get(task_id, "FULL", SERVER)
        if isinstance(row, Row) and tes.fill_in_types(task := tes.decode(row.document), types):
            return tes.documents(task)
        return None

    async def _used(self, task_id: TaskId, status: TaskStatus) -> list[Used]:
        """What a task used that has ended. The store is asked for what this process or the place does not know."""
        logs, known = [*status.earlier, status.log], self._work.active.get(task_id)
        demand = None if known is None else known[1]
        if demand is None or start_ms(logs) is None:
            row = await self._store.get(task_id, "BASIC", SERVER)
            if not isinstance(row, Row):
                return []
            begun = next((each for each in _read_logs(row.logs or b"[]") if start_ms([each]) is not None), TaskLog())
            logs.insert(0, TaskLog(start_time=begun.start_time))
            demand = demand or self._demand(_asked(row.document))
        amounts = Amounts(demand.cpu_cores, demand.ram_gb, demand.gpus)
        return used(logs, amounts, created_ms(task_id), now_ms())


def _asked(document: bytes) -> Resources | None:
    try:
        return read_asking(document).resources
    except UNREADABLE_ERRORS:
        return None
