"""One memory budget for all request bodies and answers that the server holds.

A client that sends or reads slowly makes the server hold a body or an answer for up to a minute, and a few dozen large
ones would fill the server's memory. So a large body or answer takes its share of the budget before it is read. If the
budget has no room, the request waits a few seconds for some, then gets 503. Small bodies and answers, such as polls and
most tasks, take no share and are never refused: the buffers of a connection are as large.
"""

import asyncio
from collections import deque
from typing import Final

from tesk.server.exchange import Header, Refusal

MOST_BYTES: Final = 256 * 1024 * 1024
SMALL_BYTES: Final = 128 * 1024
"""A request may hold this much without a share: uvicorn and the transport buffer as much for each connection."""
WAIT_S: Final = 4.0
RETRY_AFTER: Final[Header] = (b"retry-after", b"5")


class MemoryBudget:
    """Bytes for all requests. `free`: how many can still be taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.free = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_take(self, size: int) -> bool:
        """False where there is no room. A size above the whole budget is possible while nothing else is taken."""
        if size > self.free and self.free < self._most:
            return False
        self.free -= size
        return True

    async def take(self, size: int) -> None:
        """Waits for room, first come first served. Raises Refusal (503)."""
        if not self._waiting and self.try_take(size):
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif not turn.cancelled():
                self.give_back(size)
            if isinstance(error, TimeoutError):
                raise no_room() from None
            raise

    def give_back(self, size: int) -> None:
        self.free += size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled():
                if not self.try_take(wanted):
                    return
                turn.set_result(None)
            self._waiting.popleft()


class MemoryShare:
    """What one request has taken of the budget. Each size is that of its whole body or answer."""

    __slots__ = ("_budget", "taken")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.taken = 0

    async def take(self, size: int) -> None:
        """Raises the share to `size`, and waits for room. Raises Refusal (503)."""
        more = _counted(size) - self.taken
        if more > 0:
            await self._budget.take(more)
            self.taken += more

    def try_take(self, size: int) -> bool:
        """Raises the share to `size`; False where there is no room."""
        more = _counted(size) - self.taken
        if more > 0:
            if not self._budget.try_take(more):
                return False
            self.taken += more
        return True

    def settle(self, size: int) -> None:
        """Sets the share to `size`, without a wait, whatever was taken before."""
        more = _counted(size) - self.taken
        if more:
            self.taken += more
            self._budget.give_back(-more)

    def give_back(self) -> None:
        self.settle(0)

    def page_bytes(self, most: int, least: int) -> int:
        """How large a page may become: smaller, the less room is left, so that there is room for others."""
        return min(most, max(least, (self._budget.free + self.taken) // 4))


def no_room() -> Refusal:
    why = "the server has as many large requests and answers under way as it has memory for; try again in a moment"
    return Refusal(503, why, headers=(RETRY_AFTER,))


def _counted(size: int) -> int:
    return size if size > SMALL_BYTES else 0
