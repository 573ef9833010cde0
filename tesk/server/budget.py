"""One budget of memory for the bodies and answers that are under way.

A client that sends or reads slowly makes the server hold a body or an answer for up to a minute, and a few dozen large
ones would be all the memory that a server has. So large ones take room here before they are read. They wait a moment
for it, and are refused with 503 where none is given back meanwhile. Small ones, as polls and most tasks are, take none
and are never refused: a connection holds as much anyway.
"""

import asyncio
from collections import deque
from typing import Final

from tesk.server.exchange import Header, Refusal

MOST_BYTES: Final = 256 * 1024 * 1024
SMALL_BYTES: Final = 128 * 1024
"""What a request may hold without taking room: as much as uvicorn and the transport buffer for a connection."""
WAIT_S: Final = 4.0
RETRY_AFTER: Final[Header] = (b"retry-after", b"5")


class Budget:
    """`free`: bytes that may still be taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.free = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_take(self, size: int) -> bool:
        """False where there is no room. What is larger than all of the budget may be the only one."""
        if size > self.free and self.free < self._most:
            return False
        self.free -= size
        return True

    async def take(self, size: int) -> None:
        """Waits in turn. Raises Refusal (503)."""
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


class Share:
    """What one request holds of the budget; sizes are those of its body or answer as a whole."""

    __slots__ = ("_budget", "taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken = 0

    async def take(self, size: int) -> None:
        """Makes room for so much, and waits for it. Raises Refusal (503)."""
        more = _counted(size) - self.taken
        if more > 0:
            await self._budget.take(more)
            self.taken += more

    def try_take(self, size: int) -> bool:
        """Makes room for so much, unless there is none."""
        more = _counted(size) - self.taken
        if more > 0:
            if not self._budget.try_take(more):
                return False
            self.taken += more
        return True

    def settle(self, size: int) -> None:
        """So much is held now, whatever was taken for it."""
        more = _counted(size) - self.taken
        if more:
            self.taken += more
            self._budget.give_back(-more)

    def give_back(self) -> None:
        self.settle(0)

    def page_bytes(self, most: int, least: int) -> int:
        """How large a page may become: the less room there is, the smaller, so that there is some for everybody."""
        return min(most, max(least, (self._budget.free + self.taken) // 4))


def no_room() -> Refusal:
    why = "the server has as many large requests and answers under way as it has memory for; try again in a moment"
    return Refusal(503, why, headers=(RETRY_AFTER,))


def _counted(size: int) -> int:
    return size if size > SMALL_BYTES else 0
