"""One thread that writes: all writes that wait when it is free share one commit.

SQLite has one writer, and a commit costs an fsync. So the writes that come during one commit are done by the next. The
thread blocks on its queue between batches, so no write can get lost between "the queue is empty" and "the thread has
ended". When a batch fails, each of its writes is repeated alone: one bad write harms no other.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from tesk.limit import TimeLimit
from tesk.store.base import NotConfirmed, StoreError

BATCH: Final = 512
CONFIRM_S: Final = 60.0


class Write(NamedTuple):
    """`kind` and `arguments` are for the function that commits; `answer` gets its result."""

    kind: str
    arguments: Any
    answer: "asyncio.Future[Any]"


Commit = Callable[[Sequence[Write]], list[Any]]
"""Does all writes in one transaction and returns a result for each; or raises, and has written nothing."""


class Committer:
    """Runs `commit` in a thread of its own. `put` returns the result of its write, after the commit."""

    def __init__(self, commit: Commit, name: str) -> None:
        self._commit = commit
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._limit = TimeLimit(CONFIRM_S)
        self._closed = False
        self._thread.start()

    async def put(self, kind: str, arguments: Any) -> Any:
        if self._closed:
            raise StoreError("the database is closed: the server is stopping")
        answer = self._loop.create_future()
        self._queue.put(Write(kind, arguments, answer))
        try:
            return await self._limit.on(answer)
        except TimeoutError:
            raise NotConfirmed(
                f"the database did not confirm a write within {CONFIRM_S:.0f} s: is the disk stuck?"
            ) from None

    async def close(self) -> None:
        """Does the writes that wait, then ends the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join, CONFIRM_S)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            answers = self._answers(batch)
            self._loop.call_soon_threadsafe(_deliver, batch, answers)

    def _next_batch(self) -> list[Write] | None:
        """The writes that wait, at most BATCH; None at the end."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < BATCH:
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                break
            if write is None:
                self._queue.put(None)
                break
            batch.append(write)
        return batch

    def _answers(self, batch: list[Write]) -> list[Any]:
        try:
            return self._commit(batch)
        except Exception as error:  # noqa: BLE001 - the caller of `put` gets it
            if len(batch) == 1:
                return [error]
        return [self._answers([write])[0] for write in batch]


def _deliver(batch: list[Write], answers: list[Any]) -> None:
    for write, answer in zip(batch, answers, strict=True):
        if write.answer.done():
            continue
        if isinstance(answer, Exception):
            write.answer.set_exception(answer)
        else:
            write.answer.set_result(answer)
