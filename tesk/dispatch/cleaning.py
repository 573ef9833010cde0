"""Removes what tasks leave: in the place once their end is on record, in the store when they are old."""

import asyncio
import logging
import time
from typing import Final

from tesk.dispatch.cancelling import Cancelling
from tesk.dispatch.work import PAGE, Work, repeat, unexpected
from tesk.life.status import TaskId
from tesk.places.base import Place
from tesk.store.base import Store, StoreError

log = logging.getLogger(__name__)

CLEANUP_S: Final = 5.0
"""A task that is still being cleaned up after so long takes no room from others."""
SWEEP_S: Final = 600.0
PRUNE_S: Final = 60.0


class Cleaning:
    """Cleans up in the place and in the store."""

    def __init__(self, store: Store, place: Place, work: Work, cancelling: Cancelling) -> None:
        self._store, self._place, self._work, self._cancelling = store, place, work, cancelling

    def begin(self, task_id: TaskId) -> None:
        """Cleans up after a task whose end is on record."""
        self._work.spawn(self._forget(task_id), f"forget {task_id}")

    async def _forget(self, task_id: TaskId) -> None:
        """Cleans up after a task, and then gives its room to the next: cleaning up is work for the place too."""
        late = asyncio.get_running_loop().call_later(CLEANUP_S, self._work.release, task_id)
        try:
            await self._clean_up(task_id)
        finally:
            late.cancel()
            self._work.release(task_id)

    async def _clean_up(self, task_id: TaskId) -> None:
        await repeat(f"task {task_id}: cleaning up", lambda: self._place.forget(task_id))

    async def sweep(self) -> None:
        """Removes what belongs to no unfinished task, at the start and now and then."""
        while True:
            try:
                for task_id in await self._place.known() - set(self._work.active) - self._work.recording:
                    if await self._cancelling.is_over(task_id):
                        await self._clean_up(task_id)
            except Exception as error:
                words = str(error) or repr(error)
                log.error("sweeping what is left over: %s", words, exc_info=unexpected(error))
            await asyncio.sleep(SWEEP_S)

    async def prune(self, after_s: float) -> None:
        """Deletes tasks from the store that ended so long ago."""
        while True:
            before_ms = int((time.time() - after_s) * 1000)
            try:
                pruned = PAGE
                while pruned:
                    pruned = await self._store.prune(before_ms)
            except StoreError as error:
                log.error("pruning old tasks: %s", error)
            await asyncio.sleep(min(PRUNE_S, after_s))
