"""What the executor that runs has written, by the log of its reporter or runner: so far, or up to its end when it is
cancelled.

A pod's log goes with the pod. So whoever ends a program and wants its last words listens from before it is told to.

Users ask for the output so far as often as they like. One request answers all who ask for the same within a second, and
these requests have a rate of their own, so that they keep no task from being started, cancelled or cleaned up.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from tesk.kubernetes import names
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.output import tails_from_log
from tesk.kubernetes.record import Record
from tesk.life.status import TaskId
from tesk.places.kubernetes.client import Client

log = logging.getLogger(__name__)

LINES: Final = 1000
BYTES: Final = 4 * 1024 * 1024
FEW_LINES: Final = 8
TIMEOUT_S: Final = 3.0
FRESH_S: Final = 1.0
"""For so long what was read is the answer to whoever asks for the same."""
HEARD_S: Final = 20.0
"""For so long the end of a program waits until its log is being read: what it wrote is lost with its pod."""
LAST_S: Final = 10.0
"""An ended program's log ends with it, but for the time that this takes on a busy node."""

Output = tuple[str, str]
"""The ends of stdout and stderr."""


class OutputLog(NamedTuple):
    """The log in which the output of an executor stands: that of a container of a pod."""

    pod: str
    container: str
    executor: int


def executor_at_work(record: Record | None) -> int | None:
    """The number of the executor that runs now; None when none does."""
    if record is None or not record.now.started or record.state.is_terminal:
        return None
    return len(record.now.log.logs)


def of_executor(task_id: TaskId, record: Record | None) -> OutputLog | None:
    """That of the executor that runs now in a pod of its own; None when none does."""
    n = executor_at_work(record)
    if record is None or n is None:
        return None
    return OutputLog(records.pod(record, task_id, names.EXECUTOR_ROLE, n), names.REPORTER_CONTAINER, n)


async def so_far(client: Client, source: OutputLog, tail_bytes: int) -> Output:
    """What the executor has written; nothing where that cannot be had."""
    try:
        for lines in (LINES, FEW_LINES):
            text = await client.logs(source.pod, source.container, lines, BYTES, TIMEOUT_S)
            if len(text) < BYTES:
                break
    except ApiError as error:
        log.info("the live output of pod %s cannot be had: %s", source.pod, error)
        return "", ""
    return tails_from_log(text.splitlines(), tail_bytes)


class _Asked:
    """One request, and how many wait for its answer."""

    def __init__(self, work: "asyncio.Task[Output]") -> None:
        self.work = work
        self.waiting = 0


class Outputs:
    """The output so far of any executor, for any number of users who ask."""

    def __init__(self, client: Client, tail_bytes: int) -> None:
        self._client, self._tail_bytes = client, tail_bytes
        self._asked: dict[OutputLog, _Asked] = {}

    async def of(self, source: OutputLog | None) -> Output:
        """What the executor has written; nothing where that cannot be had.

        A request that nobody waits for any more is given up.
        """
        if source is None:
            return "", ""
        asked = self._asked.get(source)
        if asked is None:
            reading = so_far(self._client, source, self._tail_bytes)
            work = asyncio.create_task(reading, name=f"live output of {source.pod}")
            asked = self._asked[source] = _Asked(work)
            work.add_done_callback(
                lambda _: asyncio.get_running_loop().call_later(FRESH_S, self._forget, source, asked)
            )
        asked.waiting += 1
        try:
            return await asyncio.shield(asked.work)
        finally:
            asked.waiting -= 1
            if not asked.waiting and not asked.work.done():
                asked.work.cancel()
                self._forget(source, asked)

    async def close(self) -> None:
        works = [each.work for each in self._asked.values()]
        self._asked.clear()
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    def _forget(self, source: OutputLog, asked: _Asked) -> None:
        if self._asked.get(source) is asked:
            del self._asked[source]


class Listener:
    """Keeps the end of the log of a pod's executor while somebody ends it."""

    def __init__(self, tail_bytes: int) -> None:
        self._tail_bytes = tail_bytes
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._heard = asyncio.Event()

    @property
    def output(self) -> Output:
        return tails_from_log(b"".join(self._pieces).split(b"\n"), self._tail_bytes)

    async def listen(self, client: Client, source: OutputLog) -> None:
        """Until the log ends."""
        try:
            async with contextlib.aclosing(client.follow(source.pod, source.container, LINES)) as pieces:
                async for piece in pieces:
                    self._heard.set()
                    self._take(piece)
        except ApiError as error:
            log.info("the last output of pod %s cannot be had: %s", source.pod, error)
        finally:
            self._heard.set()

    async def heard(self) -> None:
        """Returns when the log is being read, or cannot be."""
        await self._heard.wait()

    def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        while self._size - len(self._pieces[0]) > BYTES:
            self._size -= len(self._pieces.popleft())


@contextlib.asynccontextmanager
async def last_words(client: Client, source: OutputLog | None, tail_bytes: int) -> AsyncIterator[Listener]:
    """Within it the pod is ended; afterwards the listener has what its executor wrote until then."""
    listener = Listener(tail_bytes)
    if source is None:
        yield listener
        return
    listening = asyncio.create_task(listener.listen(client, source), name=f"listen to {source.pod}")
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_S):
                await listener.heard()
        yield listener
        await asyncio.wait([listening], timeout=LAST_S)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
