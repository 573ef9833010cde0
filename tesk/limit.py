"""A time limit for waits that are many and nearly always short.

asyncio.timeout arms and cancels a timer for every wait, which is a twentieth of what answering a GET costs. Here the
waits that go on are looked at twice a second by one timer, which stops when none is left: coarser, but almost free.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

T = TypeVar("T")
LOOK_S: Final = 0.5


class Limit:
    """Raises TimeoutError in a wait of `seconds` (and up to half a second more). One event loop only."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._looking = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def on(self, wait: Awaitable[T]) -> T:
        """The result of the wait. A task is in one wait of a limit at a time."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._since[task] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(min(LOOK_S, self.seconds), self._look, loop)
        try:
            return await wait
        except asyncio.CancelledError:
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            del self._since[task]
            self._expired.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        before = loop.time() - self.seconds
        for task, since in self._since.items():  # in order of their begin
            if since > before:
                break
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._looking = bool(self._since)
        if self._looking:
            loop.call_later(min(LOOK_S, self.seconds), self._look, loop)
