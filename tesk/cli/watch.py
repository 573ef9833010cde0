"""Waits for tasks by polling, since TES has no other way.

The pause grows from a twentieth of a second to a second: the end of a short task is seen at once, and a long task costs
the server one small request each second.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tesk.tes import State

FIRST_PAUSE_S: Final = 0.05
LAST_PAUSE_S: Final = 1.0
GROWTH: Final = 1.3

Change = Callable[[str, State], None]


class Interrupts:
    """Remembers a SIGINT: Python drops a KeyboardInterrupt that is raised in a finalizer or a callback."""

    def __init__(self) -> None:
        self.came = False

    def take(self, *_: object) -> None:
        self.came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self.came:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Remembers each SIGINT inside the context. Only the main thread can."""
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = signal.signal(signal.SIGINT, found.take)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)


def state_of(name: object) -> State:
    """A TES state by its name. A name that this version does not know is UNKNOWN, which is not terminal."""
    return State.__members__.get(str(name), State.UNKNOWN)


def wait(
    ids: Iterable[str],
    look: Callable[[str], State],
    changed: Change,
    *,
    timeout_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, State]:
    """Polls each task until all have ended. Returns their last states, in the order of `ids`.

    Calls `changed` for the first state of a task and for each new one. Raises TimeoutError after `timeout_s` seconds,
    and KeyboardInterrupt for a SIGINT.
    """
    with interrupts() as found:
        return _wait(ids, look, changed, found, timeout_s, sleep, clock)


def _wait(
    ids: Iterable[str], look: Callable[[str], State], changed: Change, found: Interrupts, timeout_s: float | None,
    sleep: Callable[[float], None], clock: Callable[[], float],
) -> dict[str, State]:  # fmt: skip
    states: dict[str, State | None] = dict.fromkeys(ids)
    deadline = None if timeout_s is None else clock() + timeout_s
    pause = FIRST_PAUSE_S
    while True:
        for task_id, known in states.items():
            if known is not None and known.is_terminal:
                continue
            state = look(task_id)
            if state is not known:
                states[task_id] = state
                changed(task_id, state)
        found.check()
        seen = {task_id: state for task_id, state in states.items() if state is not None}
        running = sum(not state.is_terminal for state in seen.values())
        if not running:
            return seen
        if deadline is not None and clock() >= deadline:
            raise TimeoutError(f"{running} of {len(seen)} tasks still run after {timeout_s:g} s")
        sleep(pause if deadline is None else max(0.0, min(pause, deadline - clock())))
        pause = min(LAST_PAUSE_S, pause * GROWTH)
