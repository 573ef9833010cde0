"""How many transfers run at once: more while that moves more, fewer when a store pushes back.

Every so often the throughput is compared with the best that a smaller number gave. This is a plain value that is told
the time, so that it can be tested as a table.
"""

from typing import Final

LOOK_EVERY_S: Final = 1.0
GAIN: Final = 1.05
PER_FILE_BYTES: Final = 100_000
QUIET_S: Final = 10.0


class Pace:
    """`limit` is between 1 and `most`; it starts at half of it."""

    def __init__(self, most: int, now: float) -> None:
        self.most = most
        self.limit = max(1, (most + 1) // 2)
        self._grown = False
        self._best = 0.0
        self._looked_at = now
        self._quiet_until = now
        self._moved = 0

    def look(self, now: float, n_bytes: int, n_files: int) -> None:
        """Hears how much was moved so far. A file counts as some bytes, for small ones cost round trips."""
        elapsed = now - self._looked_at
        if elapsed < LOOK_EVERY_S:
            return
        moved = n_bytes + n_files * PER_FILE_BYTES
        rate = (moved - self._moved) / elapsed
        self._looked_at, self._moved = now, moved
        if now < self._quiet_until:
            return
        if rate > self._best * GAIN or not self._grown:
            self._best = max(self._best, rate)
            self._grown = self.limit < self.most
            self.limit = min(self.most, self.limit + max(1, self.limit // 2))

    def pushed_back(self, now: float) -> None:
        """A store said that it is too much, or a connection to it timed out."""
        if now >= self._quiet_until:
            self.limit = max(1, self.limit // 2)
            self._grown = False
            self._best = 0.0
            self._quiet_until = now + QUIET_S
