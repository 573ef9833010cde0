"""The local end of each transfer: a Sink that is written, a Source that is read, a Meter that counts both.

Every byte passes a Meter, which is where a step that was told to stop notices it, and where a retry gives back what
its broken try had counted. A large file may have several sinks, one for each part that is on its way.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from tesk.filer.attributes import UNKNOWN, of_status
from tesk.filer.checksums import Checksum
from tesk.filer.errors import Stopped, TransferError, from_file

BLOCK: Final = 1024 * 1024
WRITING: Final = "writing the file"


class Meter:
    """Bytes and files done and expected; shared by all threads of a step."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._lock = threading.Lock()
        self.bytes_done = 0
        self.files_done = 0
        self.bytes_total: int | None = None
        self.files_total: int | None = None
        self._known = 0
        self._unknown = 0

    def expect(self, sizes: Sequence[int | None]) -> None:
        """Hears what is to be moved; where a size is not known yet, the total is not."""
        self.files_total = len(sizes)
        self._known = sum(size or 0 for size in sizes)
        self._unknown = sizes.count(None)
        self.bytes_total = None if self._unknown else self._known

    def learn(self, size: int) -> None:
        """Hears a size that was not known."""
        with self._lock:
            self._known += size
            self._unknown -= 1
            if not self._unknown:
                self.bytes_total = self._known

    def check(self) -> None:
        """Raises Stopped once the step was told to stop."""
        if self.stop.is_set():
            raise Stopped

    def add(self, n_bytes: int, files: int = 0) -> None:
        with self._lock:
            self.bytes_done += n_bytes
            self.files_done += files


class Sink:
    """A stretch of a new file, from `begin` up to `end`, that a scheme fills in order.

    `end` is None until the size is known. `doubt` is asked when the checksums differ from the bytes: what holds in
    their place where they may be no checksums of these bytes at all (nothing, often), else None. `expected` is the
    size that a listing told, `total` what the store says when it is asked for the file itself; `version` is what the
    store calls these very bytes (an ETag, say). `attributes` are what the copy is to have besides them.
    """

    def __init__(
        self, fd: int, meter: Meter, begin: int = 0, end: int | None = None, *, expected: int | None = None
    ) -> None:
        self.fd = fd
        self.begin = begin
        self.end = end
        self.expected = expected
        self._total: int | None = None
        self.version = ""
        self.least_part = 0
        self.checksums: list[Checksum] = []
        self.doubt: Callable[[], list[Checksum] | None] = lambda: None
        self.attributes = UNKNOWN
        self.share: Callable[[Sink], int] | None = None
        self.size = 0
        self._meter = meter

    @property
    def total(self) -> int | None:
        return self._total

    @total.setter
    def total(self, size: int | None) -> None:
        if size is not None and self._total is None and self.expected is None and not self.begin:
            self._meter.learn(size)
        self._total = size

    @property
    def position(self) -> int:
        """Where in the file the next byte belongs."""
        return self.begin + self.size

    @property
    def is_full(self) -> bool:
        return self.end is not None and self.position >= self.end

    def room(self, most: int) -> int:
        """How many of `most` bytes still belong to this stretch."""
        return most if self.end is None else min(most, self.end - self.position)

    def offer(self, size: int, version: str, least_part: int = 0) -> None:
        """Tells, before the first byte, that the file has `size` bytes and can be fetched by `fetch_part`.

        Parts have at least `least_part` bytes, where a small one costs too much. From then on `end` is set, and may be
        less than `size`: others fetch what lies behind it. A later try goes on where this one ended.
        """
        self.total, self.version, self.least_part = size, version, least_part
        self.end = self.share(self) if self.share else size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises Stopped, and TransferError where the file takes no more."""
        rest = memoryview(data)
        position = self.position
        while rest:
            try:
                written = os.pwrite(self.fd, rest, position)
            except OSError as error:
                raise from_file(error, WRITING) from error
            rest = rest[written:]
            position += written
        self.advance(len(data))

    def advance(self, n_bytes: int) -> None:
        """Counts bytes that were written; raises Stopped."""
        self.size += n_bytes
        self._meter.add(n_bytes)
        self._meter.check()

    def restart(self) -> None:
        """Empty again, for a try from the start."""
        if self.size and not self.begin:
            os.ftruncate(self.fd, 0)
        self._meter.add(-self.size)
        self.size = 0
        self.checksums, self.doubt = [], lambda: None


class Source:
    """A stretch of a file to be pushed: exactly `size` bytes from `begin` on, whatever happens to it meanwhile.

    Several threads may have stretches of one file.
    """

    def __init__(self, fd: int, meter: Meter, begin: int = 0, size: int | None = None) -> None:
        self.fd = fd
        self.begin = begin
        status = os.fstat(fd)
        self.attributes = of_status(status)
        self.size = status.st_size - begin if size is None else size
        self.position = 0
        self._meter = meter

    def stretch(self, begin: int, size: int) -> "Source":
        """A part of this one, which counts what it reads itself."""
        return Source(self.fd, self._meter, self.begin + begin, size)

    def block(self, n_bytes: int) -> bytes:
        """The next `n_bytes`, or all that is left; never less. Raises Stopped, TransferError."""
        wanted = min(n_bytes, self.size - self.position)
        data = self.read(wanted)
        while len(data) < wanted:
            data += self.read(wanted - len(data))
        return data

    def read(self, n_bytes: int) -> bytes:
        """Up to `n_bytes` more; empty at the end. Raises Stopped, TransferError."""
        wanted = min(n_bytes, self.size - self.position)
        try:
            data = os.pread(self.fd, wanted, self.begin + self.position) if wanted else b""
        except OSError as error:
            raise from_file(error, "reading the file") from error
        if wanted and not data:
            raise TransferError("the file became shorter while it was read", "check what still writes to it")
        self.advance(len(data))
        return data

    def advance(self, n_bytes: int) -> None:
        self.position += n_bytes
        self._meter.add(n_bytes)
        self._meter.check()

    def restart(self) -> None:
        """At its begin again; what it had read counts no more."""
        self._meter.add(-self.position)
        self.position = 0
