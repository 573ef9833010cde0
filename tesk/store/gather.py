"""Questions that wait while a statement is under way go together into the next: one round trip answers many.

A few tasks take what waits and hand it over; they live as long as the store, so no question can fall between
"nothing waits" and "the worker is gone". A lone question is asked at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

BATCH: Final = 512


class Asked(NamedTuple):
    """A question that waits; whoever works on it sets the answer."""

    question: Any
    answer: "asyncio.Future[Any]"


class Gatherer:
    """Runs `work` on what waits, in `workers` tasks. `work` sets each answer, or sets an error as the answer."""

    def __init__(self, work: Callable[[Sequence[Asked]], Awaitable[None]], workers: int) -> None:
        self._work = work
        self._waiting: asyncio.Queue[Asked] = asyncio.Queue()
        self._workers = [asyncio.create_task(self._run()) for _ in range(workers)]

    async def ask(self, question: Any) -> Any:
        """The answer that the work gives. The caller limits the wait."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(Asked(question, answer))
        return await answer

    async def close(self, limit_s: float) -> None:
        """Lets what was asked be answered, within a time limit (TimeoutError), and ends the workers."""
        try:
            async with asyncio.timeout(limit_s):
                await self._waiting.join()
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await self._work(batch)
            finally:
                for asked in batch:
                    self._waiting.task_done()
                    asked.answer.cancel()


def fail(batch: Sequence[Asked], error: Exception) -> None:
    """The same error to all that still wait."""
    for asked in batch:
        give(asked, error)


def give(asked: Asked, answer: Any) -> None:
    """Answers, unless nobody waits any more; an exception is raised where the question was asked."""
    if asked.answer.done():
        return
    if isinstance(answer, Exception):
        asked.answer.set_exception(answer)
    else:
        asked.answer.set_result(answer)
