"""The local end of each transfer: a Sink that is written, a Source that is read, a Meter that counts both.

Every byte passes a Meter, which is where a step that was told to stop notices it, and where a retry gives back what
its broken try had counted.
"""

import os
import threading
from typing import Final

from tesk.filer.errors import Stopped, TransferError

BLOCK: Final = 1024 * 1024


class Meter:
    """Bytes and files done and expected; shared by all threads of a step."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._lock = threading.Lock()
        self.bytes_done = 0
        self.files_done = 0
        self.bytes_total: int | None = None
        self.files_total: int | None = None

    def check(self) -> None:
        """Raises Stopped once the step was told to stop."""
        if self.stop.is_set():
            raise Stopped

    def add(self, n_bytes: int, files: int = 0) -> None:
        with self._lock:
            self.bytes_done += n_bytes
            self.files_done += files


class Sink:
    """A new file that a scheme fills from its start; `fd` may be written directly where `advance` is told."""

    def __init__(self, fd: int, meter: Meter) -> None:
        self.fd = fd
        self.size = 0
        self._meter = meter

    def write(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fd, rest) :]
        self.advance(len(data))

    def advance(self, n_bytes: int) -> None:
        """Counts bytes that were written; raises Stopped."""
        self.size += n_bytes
        self._meter.add(n_bytes)
        self._meter.check()

    def restart(self) -> None:
        """Empty again, for the next try."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._meter.add(-self.size)
        self.size = 0


class Source:
    """A file to be pushed: exactly `size` bytes from its start, whatever happens to it meanwhile."""

    def __init__(self, fd: int, meter: Meter) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.position = 0
        self._meter = meter

    def read(self, n_bytes: int = -1) -> bytes:
        """Up to `n_bytes` more; all that is left when negative; empty at the end. Raises Stopped, TransferError."""
        left = self.size - self.position
        wanted = left if n_bytes < 0 else min(n_bytes, left)
        data = os.read(self.fd, wanted) if wanted else b""
        if wanted and not data:
            raise TransferError("the file became shorter while it was read", "check what still writes to it")
        self.advance(len(data))
        return data

    def advance(self, n_bytes: int) -> None:
        self.position += n_bytes
        self._meter.add(n_bytes)
        self._meter.check()

    def restart(self) -> None:
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._meter.add(-self.position)
        self.position = 0
