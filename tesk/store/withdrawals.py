"""Creates that were answered with an error while the database might still carry them out.

Their clients were told to try again. So such a task must never run, or its work would be done twice. A task is
undecided from before it is written until its create is answered, and queues leave undecided tasks out. A task whose
answer was an error stays undecided until it is certainly removed; the removal is retried for ever. Before that answer a
note is written to a file, so that a server that is killed in between removes the task at its next start.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tesk.store.base import StoreError

log = logging.getLogger(__name__)

NOTE_S: Final = 1.0
"""A client waits no longer for the note: perhaps it is the disk that does not answer."""
PAUSE_S: Final = 1.0


class Withdrawals:
    """`remove` certainly deletes tasks, even those whose inserts are still under way; `notes` is the file."""

    def __init__(self, remove: Callable[[Sequence[int]], Awaitable[object]], notes: Path | None = None) -> None:
        self.undecided: set[int] = set()
        self._remove = remove
        self._notes = notes
        self._withdrawn: set[int] = set()
        self._removing: asyncio.Task[None] | None = None

    async def withdraw(self, number: int) -> None:
        """Makes sure that the task never runs. It is removed in the background."""
        self._withdrawn.add(number)
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._run(), name="remove withdrawn tasks")
        if self._notes is None:
            return
        try:
            async with asyncio.timeout(NOTE_S):
                await asyncio.to_thread(_note, self._notes, number)
        except (OSError, TimeoutError) as error:
            log.warning("%s cannot be written: %s; a task may run although its create failed", self._notes, error)

    async def close(self) -> None:
        """Ends the removal. The file keeps the tasks that are not removed yet."""
        if self._removing is not None:
            self._removing.cancel()
            await asyncio.gather(self._removing, return_exceptions=True)

    async def _run(self) -> None:
        while self._withdrawn:
            numbers = sorted(self._withdrawn)
            try:
                await self._remove(numbers)
            except StoreError as error:
                log.error("tasks whose create failed are not removed yet, trying again: %s", error)
                await asyncio.sleep(PAUSE_S)
            else:
                self._withdrawn.difference_update(numbers)
                self.undecided.difference_update(numbers)
        if self._notes is not None:  # with no await since the loop's end, so that no new note is lost
            self._notes.unlink(missing_ok=True)


def noted(notes: Path) -> list[int]:
    """The tasks that were withdrawn and perhaps not removed. A line that was cut short names no task."""
    try:
        lines = notes.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [int(line) for line in lines if line.isdigit()]


def _note(notes: Path, number: int) -> None:
    """Adds a note by one write, without a wait for the disk: it survives a kill of this process."""
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, b"%d\n" % number)
    finally:
        os.close(file)
