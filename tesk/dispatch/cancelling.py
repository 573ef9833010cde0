"""Ends tasks that are CANCELING in the place, whoever wrote that state."""

import asyncio
import logging
from typing import Final

from tesk.dispatch.work import PAGE, Work, repeat
from tesk.identity import SERVER, Identity
from tesk.life.status import TaskId
from tesk.places.base import Place
from tesk.store.base import Query, Store, StoreError
from tesk.tes import State

log = logging.getLogger(__name__)

CANCELING_S: Final = 5.0
"""Time between two looks into the store for tasks that are CANCELING."""


class Cancelling:
    """From the wish to end a task until the place has been asked to."""

    def __init__(self, store: Store, place: Place, work: Work) -> None:
        self._store, self._place, self._work = store, place, work
        self._cancels: dict[tuple[TaskId, Identity], asyncio.Task[State | None]] = {}

    async def cancel(self, task_id: TaskId, identity: Identity) -> State | None:
        """The task's state once its end is asked for; None for a task that the caller does not see. Raises MayNotEnd.

        The write goes on when the caller gives up, and one caller's calls for one task share it.
        """
        call = task_id, identity
        write = self._cancels.get(call)
        if write is None:
            write = self._cancels[call] = asyncio.create_task(self._cancel(*call), name=f"cancel {task_id}")
            write.add_done_callback(lambda _: self._cancels.pop(call))
        return await asyncio.shield(write)

    async def _cancel(self, task_id: TaskId, identity: Identity) -> State | None:
        state = await self._store.cancel(task_id, identity)
        if state is None:
            return None
        self._work.queue.pop(task_id)
        if state is State.CANCELING:
            self.begin(task_id)
        return state

    async def stop(self) -> None:
        writes = list(self._cancels.values())
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)

    async def is_over(self, task_id: TaskId) -> bool:
        """Whether the store has the task's end, or no such task. The end of a CANCELING task is begun."""
        row = await self._store.get(task_id, "MINIMAL", SERVER)
        if row is not None and row.state is State.CANCELING:
            self.begin(task_id)
        return row is None or row.state.is_terminal

    async def watch(self) -> None:
        """Ends, for ever, whatever is CANCELING in the store and is not being ended: whoever wrote that state may have
        given up before the write was done."""
        while True:
            try:
                await self._begin_all()
            except StoreError as error:
                log.error("looking for cancelled tasks: %s", error)
            await asyncio.sleep(CANCELING_S)

    async def _begin_all(self) -> None:
        """Begins the end of each CANCELING task. The page may show as CANCELING a task whose end is being recorded."""
        before = None
        while True:
            busy = self._work.ending | self._work.recording
            page = await self._store.page(Query(PAGE, before=before, state=State.CANCELING), SERVER)
            for row in page:
                if row.id not in busy and row.id not in self._work.recording:
                    self.begin(row.id)
            if len(page) < PAGE:
                return
            before = page[-1].id

    def begin(self, task_id: TaskId) -> None:
        """Ends a CANCELING task, which is not admitted any more, unless that is under way."""
        if task_id in self._work.stalled:
            self._work.stalled.pop(task_id).cancel()
        if task_id not in self._work.ending:
            self._work.ending.add(task_id)
            self._work.spawn(self._end(task_id), f"cancel {task_id}")

    async def _end(self, task_id: TaskId) -> None:
        """Cancels the task in the place. Retries for ever: after CANCELING no other code path ends the task."""
        try:
            while not await repeat(f"task {task_id}: cancelling", lambda: self._place.cancel(task_id)):
                pass
        finally:
            self._work.ending.discard(task_id)
