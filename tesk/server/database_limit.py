"""The time limit of every wait for the database: below the 10 s after which clients give up."""

from collections.abc import Awaitable
from typing import Final, TypeVar

from tesk.limit import TimeLimit
from tesk.server.exchange import Refusal

T = TypeVar("T")
STORE_LIMIT_S: Final = 8.0


class DatabaseLimit:
    """`within` gives the result of a wait. Raises Refusal (503) where it takes too long."""

    def __init__(self) -> None:
        self._limit = TimeLimit(STORE_LIMIT_S)

    async def within(self, wait: Awaitable[T]) -> T:
        try:
            return await self._limit.on(wait)
        except TimeoutError:
            raise Refusal(503, f"the database did not answer within {self._limit.seconds:.0f} s; try again") from None
