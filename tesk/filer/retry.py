"""Tries again what may pass: exponential back-off with jitter, or the wait that the server asked for.

Only the errors that a scheme marks as passing are tried again; a lasting one ends at once. A wait never counts against
a transfer that makes headway.
"""

import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from tesk.filer.errors import Stopped, TransferError

FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 30.0
LONGEST_ASKED_S: Final = 300.0
WORTH_BYTES: Final = 1024 * 1024

T = TypeVar("T")


def delay_s(tries: int, asked_s: float, chance: float) -> float:
    """Seconds before the next try, after `tries` failed ones; `chance` in [0, 1) is the jitter."""
    if asked_s > 0:
        return min(asked_s, LONGEST_ASKED_S)
    return float(min(FIRST_DELAY_S * 2 ** (tries - 1), LONGEST_DELAY_S) * (0.5 + chance / 2))


def with_retries(
    call: Callable[[], T],
    retries: int,
    stop: threading.Event,
    moved: Callable[[], int] = lambda: 0,
    on_passing_error: Callable[[TransferError], None] = lambda _: None,
) -> T:
    """Calls `call` up to 1 + `retries` times. Raises TransferError with the number of tries, or Stopped.

    `moved` gives how many bytes a resumed transfer has so far. After progress tries are counted anew, so that a
    large file survives any number of cuts. `on_passing_error` is called with each passing error.
    """
    tries = 0
    behind = moved()
    while True:
        if stop.is_set():
            raise Stopped
        try:
            return call()
        except TransferError as error:
            if moved() - behind >= WORTH_BYTES:
                tries, behind = 0, moved()
            tries += 1
            error.tries = max(error.tries, tries)
            if not error.passing or tries > retries:
                raise
            on_passing_error(error)
            wait = delay_s(tries, error.retry_after_s, os.urandom(1)[0] / 256)
        if stop.wait(wait):
            raise Stopped
