"""Runs jobs on a few threads: one budget for all files of a step and all parts of them.

A job may add others, such as the further parts of a large file; those go first, so that what was begun is ended. The
threads are daemons: one that hangs in a system call must not keep a step that was told to stop. The caller's thread
waits for results, which is also where it looks at the clock.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tesk.filer.errors import Stopped

TICK_S: Final = 0.1
CLEAN_UP_S: Final = 1.0

Job = Callable[[], None]


class Pool:
    """Threads are started as jobs come, up to `limit`, which may change at any time."""

    def __init__(self, limit: int, halt: threading.Event) -> None:
        self._limit = limit
        self._halt = halt
        self._todo: deque[Job] = deque()
        self._ready = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._active = 0
        self._pending = 0
        self._closed = False
        self._done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def add(self, jobs: Sequence[Job], *, first: bool = False) -> None:
        with self._ready:
            self._pending += len(jobs)
            if first:
                self._todo.extendleft(reversed(jobs))
            else:
                self._todo.extend(jobs)
            self._start()
            self._ready.notify(len(jobs))

    def allow(self, limit: int) -> None:
        """At most `limit` jobs at once from now on; what runs already is left to end."""
        if limit != self._limit:
            with self._ready:
                self._limit = limit
                self._start()
                self._ready.notify_all()

    def _start(self) -> None:
        while len(self._threads) < min(self._limit, self._active + len(self._todo)):
            self._threads.append(threading.Thread(target=self._work, daemon=True, name="transfer"))
            self._threads[-1].start()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            error: Exception | None = None
            try:
                job()
            except Exception as failure:  # noqa: BLE001 - handed to the caller's thread
                error = failure
            with self._ready:
                self._active -= 1
                self._ready.notify()
            self._done.put(error)

    def _take(self) -> Job | None:
        with self._ready:
            while not self._closed and not self._halt.is_set():
                if self._todo and self._active < self._limit:
                    self._active += 1
                    return self._todo.popleft()
                self._ready.wait()
        return None

    def run(self, stop: threading.Event, failed: Callable[[Exception], bool], tick: Callable[[], None]) -> None:
        """Until no job is left. `failed` hears of each exception and says whether to go on; `tick` is called often.

        Raises Stopped once `stop` is set, or what `failed` would not go on from.
        """
        while self._pending:
            if stop.is_set():
                raise Stopped
            tick()
            try:
                error = self._done.get(timeout=TICK_S)
            except queue.Empty:
                continue
            with self._ready:
                self._pending -= 1
            if error is not None and not failed(error):
                raise error
        tick()

    def close(self) -> None:
        """Ends the threads once their jobs end; gives those a moment to clean up after themselves."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        limit = time.monotonic() + CLEAN_UP_S
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
