"""Batches questions: those that wait while a statement is under way share the next, so one round trip answers many.

A few asyncio tasks, the workers, take the questions that wait. They live as long as the store, so no question can get
lost between "nothing waits" and "the worker has ended". A question that comes alone is asked at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

BATCH: Final = 512


class Question(NamedTuple):
    """A question that waits, and its future answer."""

    content: Any
    answer: "asyncio.Future[Any]"


class Gatherer:
    """Runs `work` on the questions that wait, in `workers` tasks. `work` sets each answer, perhaps an exception."""

    def __init__(self, work: Callable[[Sequence[Question]], Awaitable[None]], workers: int) -> None:
        self._work = work
        self._waiting: asyncio.Queue[Question] = asyncio.Queue()
        self._workers = [asyncio.create_task(self._run()) for _ in range(workers)]

    async def ask(self, content: Any) -> Any:
        """The answer to a question. The caller limits the wait."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(Question(content, answer))
        return await answer

    async def close(self, limit_s: float) -> None:
        """Waits for the answers, with a time limit (TimeoutError), and ends the workers."""
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
                for question in batch:
                    self._waiting.task_done()
                    question.answer.cancel()


def fail(batch: Sequence[Question], error: Exception) -> None:
    """Answers all questions that still wait with the same error."""
    for question in batch:
        give(question, error)


def give(question: Question, answer: Any) -> None:
    """Answers a question, unless nobody waits any more. An exception is raised where the question was asked."""
    if question.answer.done():
        return
    if isinstance(answer, Exception):
        question.answer.set_exception(answer)
    else:
        question.answer.set_result(answer)
