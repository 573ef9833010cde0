"""One run of the filer: what its jobs share, and how it tells of them.

Jobs look at `halt`, which is set when the step ends early, be it told to stop or failed. Events go out one at a
time, in whatever thread they arise.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from tesk.filer import retry
from tesk.filer.bounds import Listings
from tesk.filer.errors import TransferError
from tesk.filer.pace import Pace
from tesk.filer.plan import Done, Event, FilerSettings, Progress, Warned
from tesk.filer.pool import Job, Pool
from tesk.filer.reach import Reach
from tesk.filer.scheme import Context, Schemes
from tesk.filer.streams import Meter

PROGRESS_INTERVAL_S: Final = 2.0
MAX_WARNINGS: Final = 100

Emit = Callable[[Event], None]
T = TypeVar("T")


class Step:
    """Closed by whoever made it."""

    def __init__(self, settings: FilerSettings, emit: Emit, stop: threading.Event) -> None:
        self.settings = settings
        self.halt = threading.Event()
        self.meter = Meter(self.halt)
        reach = Reach(settings.allow, settings.deny)
        self.listings = Listings()
        context = Context(
            settings, self.meter, self.warn, reach, on_passing_error=self._on_passing_error, listings=self.listings
        )
        self.schemes = Schemes(context)
        self._pace = Pace(settings.concurrency, time.monotonic())
        self._pool: Pool | None = None
        self._emit = emit
        self._stop = stop
        self._lock = threading.Lock()
        self._warnings = 0
        self._told_at = time.monotonic()
        self._has_told = False

    def emit(self, event: Event) -> None:
        with self._lock:
            self._emit(event)

    def warn(self, message: str) -> None:
        """A warning, unless there were so many that more would help nobody."""
        self._warnings += 1
        if self._warnings < MAX_WARNINGS:
            self.emit(Warned(message))
        elif self._warnings == MAX_WARNINGS:
            self.emit(Warned("further warnings are left out"))

    def run(self, jobs: Sequence[Job], failed: Callable[[Exception], bool] = lambda _: False) -> None:
        """Runs all jobs and those that they add. `failed` hears of each exception and says whether to go on.

        Raises Stopped, or what `failed` would not go on from. Then `halt` is set and every connection is ended, which
        ends the waits of the other jobs.
        """
        if not jobs:
            return
        self._pool = Pool(self._pace.limit, self.halt)
        self._pool.add(jobs)
        try:
            self._pool.run(self._stop, failed, self._tick)
        except BaseException:
            self.halt.set()
            self.schemes.close()
            raise
        finally:
            self._pool.close()

    def add(self, jobs: Sequence[Job]) -> None:
        """More jobs, from within one; they go before those that wait."""
        assert self._pool is not None
        self._pool.add(jobs, first=True)

    def with_retries(self, call: Callable[[], T], moved: Callable[[], int] = lambda: 0) -> T:
        """The result of `call`, tried again as the settings say; see retry.with_retries."""
        return retry.with_retries(call, self.settings.retries, self.halt, moved, self._on_passing_error)

    def _on_passing_error(self, error: TransferError) -> None:
        if error.pushed_back:
            self._pace.pushed_back(time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        meter = self.meter
        if self._pool is not None:
            self._pace.look(now, meter.bytes_done, meter.files_done)
            self._pool.allow(self._pace.limit)
        if now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        self._tell()

    def _tell(self) -> None:
        meter = self.meter
        self._has_told = True
        self.emit(Progress(meter.bytes_done, meter.files_done, meter.bytes_total, meter.files_total))

    def end(self) -> None:
        """The last word of a step that went well; what was told of its progress is made complete before."""
        if self._has_told:
            self._tell()
        self.emit(Done())

    def close(self) -> None:
        self.halt.set()
        self.schemes.close()
