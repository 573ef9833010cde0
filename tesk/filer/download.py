"""One file on its way in: whole, or in parts where it is large and its store gives parts.

The first stretch begins with the request for the file itself; once the store has told size and version, what lies
behind the first part is cut into jobs of the same pool. A stretch that breaks goes on where it was. Should a store
answer with another version meanwhile (the file changed, or a mirror numbers its versions differently), or should
the checksum be wrong in the end, the file is fetched once more, in one piece.
"""

import math
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from tesk.filer.attributes import Attributes
from tesk.filer.checksums import verify
from tesk.filer.errors import Changed, Damaged, TransferError
from tesk.filer.scheme import Ranged
from tesk.filer.step import Step
from tesk.filer.streams import Sink

LEAST_PART: Final = 16 * 1024 * 1024
MOST_PART: Final = 256 * 1024 * 1024
PARTS_PER_WORKER: Final = 4

Told = Callable[[], None]
Done = Callable[[Attributes], None]
Words = Callable[[], AbstractContextManager[None]]


class Download:
    """`fd` is an empty file; `done` is called with it complete, `ended` in any case; both in a job of the pool.

    `known` are the attributes that the file was found with; `done` hears those that it came with.

    What goes wrong passes `words`, which makes a sentence of it.
    """

    def __init__(
        self, url: str, size: int | None, known: Attributes, fd: int, step: Step, done: Done, ended: Told, words: Words
    ) -> None:
        self._url = url
        self._size = size
        self._known = known
        self._fd = fd
        self._step = step
        self._done = done
        self._ended = ended
        self._words = words
        self._lock = threading.Lock()
        self._sinks: list[Sink] = []
        self._left = 1
        self._well = True
        self._changed = False
        self._in_one = False

    def run(self) -> None:
        """The job that begins the file. Raises TransferError, Stopped, OSError, as do those that it adds."""
        sink = Sink(self._fd, self._step.meter, expected=self._size)
        sink.share, sink.attributes = self._share, self._known
        self._sinks = [sink]
        self._stretch(sink)

    def _share(self, sink: Sink) -> int:
        """Hands what lies behind the first part of a file to further jobs; where the first part ends."""
        bounds = [] if self._in_one else cut(sink.total or 0, self._step.settings.concurrency, sink.least_part)
        if len(bounds) < 2 or not isinstance(self._step.schemes.of(self._url), Ranged):
            return sink.total or 0
        rest = []
        for begin, end in bounds[1:]:
            part = Sink(self._fd, self._step.meter, begin, end)
            part.version, part.total = sink.version, sink.total
            rest.append(part)
        with self._lock:
            self._left += len(rest)
            self._sinks += rest
        sink.share = None
        self._step.add([partial(self._stretch, part) for part in rest])
        return bounds[0][1]

    def _stretch(self, sink: Sink) -> None:
        well = False
        try:
            with self._words():
                well = self._fetch(sink)
        finally:
            self._finish(well)

    def _fetch(self, sink: Sink) -> bool:
        """Fills a stretch. True, also where it turned out that the file has to be fetched anew."""
        if self._changed:
            return True
        scheme = self._step.schemes.of(self._url)

        def attempt() -> None:
            if sink.version and isinstance(scheme, Ranged):
                scheme.fetch_part(self._url, sink)
            else:
                sink.restart()
                scheme.fetch(self._url, sink)
            if sink.end is not None and not sink.is_full:
                raise TransferError(f"the file ended after {sink.position} of {sink.total} bytes", passing=True)

        try:
            self._step.with_retries(attempt, lambda: sink.size if sink.version else 0)
        except Changed:
            if self._in_one:
                raise
            self._changed = True
        return True

    def _finish(self, well: bool) -> None:
        """Counts a stretch as over; the last one of a file that is whole carries on with it."""
        with self._lock:
            self._left -= 1
            self._well = self._well and well
            last = not self._left
        if not last:
            return
        if self._well and self._changed:
            self._again()
            return
        try:
            if self._well:
                if self._is_damaged():
                    self._again()
                    return
                self._done(self._sinks[0].attributes)
        except BaseException:
            self._ended()
            raise
        else:
            self._ended()

    def _is_damaged(self) -> bool:
        """Compares size and checksums with what the store told. Raises Damaged the second time that they differ."""
        try:
            with self._words():
                self._check()
        except TransferError:
            if self._in_one:
                raise
            return True
        return False

    def _check(self) -> None:
        told = self._sinks[0]
        size = os.fstat(self._fd).st_size
        if told.total is not None and size != told.total:
            raise Damaged(f"{size} bytes arrived, not {told.total}", "check the store")
        try:
            verify(self._fd, size, told.checksums, "the bytes that arrived")
        except Damaged:
            instead = told.doubt()
            if instead is None:
                raise
            verify(self._fd, size, instead, "the bytes that arrived")

    def _again(self) -> None:
        """The whole file once more, in one piece."""
        for sink in self._sinks:
            sink.restart()
        self._size = self._sinks[0].total
        self._changed, self._in_one, self._left = False, True, 1
        self._step.add([self.run])


def cut(size: int, workers: int, least: int = 0) -> list[tuple[int, int]]:
    """The parts of a file, as (begin, end): none too small to be worth a request, several for each worker."""
    least = max(least, LEAST_PART)
    part = max(least, min(MOST_PART, math.ceil(size / (workers * PARTS_PER_WORKER))))
    if workers < 2 or size < 2 * least:
        return [(0, size)]
    return [(begin, min(begin + part, size)) for begin in range(0, size, part)]
