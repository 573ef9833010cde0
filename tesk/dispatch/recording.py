"""Writes what the place reports of tasks to the store."""

import asyncio
import logging
from collections.abc import Callable

from tesk import tes
from tesk.dispatch.cancelling import Cancelling
from tesk.dispatch.work import FIRST_PAUSE_S, LONGEST_PAUSE_S, Work
from tesk.identity import SERVER
from tesk.life.status import TaskId, TaskStatus
from tesk.retry import pauses
from tesk.store.base import Documents, Row, Store, StoreError
from tesk.tes import FileTypes

log = logging.getLogger(__name__)


class Recording:
    """One recorder per task with something to record. `ended` is called with each task whose end is on record."""

    def __init__(self, store: Store, work: Work, cancelling: Cancelling, ended: Callable[[TaskId], None]) -> None:
        self._store, self._work, self._cancelling, self._ended = store, work, cancelling, ended
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
                if await self._store.advance(task_id, status.state, status.log, status.earlier, new):
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
