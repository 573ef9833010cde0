"""What uploads may hold in memory, all together: blocks that a store wants whole before it takes the first byte."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

UPLOADS_BYTES: Final = 64 * 1024 * 1024


class Memory:
    """A number of bytes that is lent out, first come, first served."""

    def __init__(self, total: int = UPLOADS_BYTES) -> None:
        self.total = total
        self._free = total
        self._turn = threading.Lock()
        self._room = threading.Condition()

    @contextlib.contextmanager
    def lend(self, n_bytes: int) -> Iterator[None]:
        """Waits for that much; what is more than all there is goes alone."""
        wanted = min(n_bytes, self.total)
        with self._turn, self._room:
            self._room.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._room:
                self._free += wanted
                self._room.notify()
