"""One run of the filer: what its jobs share, and how it tells of them.

Jobs look at `halt`, which is set when the step ends early, be it told to stop or failed. Events go out one at a
time, in whatever thread they arise.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from tesk.filer.plan import Event, FilerSettings, Progress, Warned
from tesk.filer.pool import Job, run_all
from tesk.filer.schemes import Context, Schemes
from tesk.filer.streams import Meter

PROGRESS_INTERVAL_S: Final = 2.0
MAX_WARNINGS: Final = 100

Emit = Callable[[Event], None]


class Step:
    """Closed by whoever made it."""

    def __init__(self, settings: FilerSettings, emit: Emit, stop: threading.Event) -> None:
        self.halt = threading.Event()
        self.meter = Meter(self.halt)
        self.schemes = Schemes(Context(settings, self.meter, self.warn))
        self._concurrency = settings.concurrency
        self._emit = emit
        self._stop = stop
        self._lock = threading.Lock()
        self._warnings = 0
        self._told_at = time.monotonic()

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
        """Runs all jobs; see pool.run_all."""
        if jobs:
            run_all(jobs, self._concurrency, self._stop, self.halt, failed, self._tell, self.schemes.close)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        meter = self.meter
        self.emit(Progress(meter.bytes_done, meter.files_done, meter.bytes_total, meter.files_total))

    def close(self) -> None:
        self.halt.set()
        self.schemes.close()
