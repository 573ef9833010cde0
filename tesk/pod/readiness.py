"""Waits for descriptors and signals at once (poll(2))."""

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from typing import Any


def is_broken(pipe: int) -> bool:
    """True when nobody reads from a pipe that is open for writing."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


class Readiness:
    """Waits until a descriptor can be read, a pipe is broken or a TERM comes. `is_ending`: one has come."""

    def __init__(self) -> None:
        self.is_ending = False
        self._wake, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._end)

    def wait(self, readable: Iterable[int | None], broken: Iterable[int | None], timeout_s: float | None) -> None:
        """Until one of them is so, or for so long."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for events, descriptors in ((select.POLLIN, readable), (0, broken)):
            for descriptor in descriptors:
                if descriptor is not None:
                    poll.register(descriptor, events)
        poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _end(self, *_: Any) -> None:
        self.is_ending = True
