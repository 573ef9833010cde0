"""How executors and tasks end: exit codes, what counts as a failure, time limits (pure)."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from msgspec import UNSET

from tesk import parameters
from tesk.life.facts import Facts
from tesk.tes import State, Task

TERMINATED: Final = 128 + 15
"""The exit code of a program that a TERM has ended."""
KILLED: Final = 128 + 9


class End(Exception):
    """The task's end: its state, and for a system error why."""

    def __init__(self, state: State, reason: str = "") -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason


def fails(task: Task, facts: Facts, n: int) -> bool:
    """True when executor `n`, which has ended, fails the task. A time limit that was reached is never ignored."""
    if n in facts.timed_out:
        return True
    return bool(facts.log.logs[n].exit_code) and not task.executors[n].ignore_error


def time_limit_s(task: Task, allowed: Collection[str], default_s: float) -> float:
    """Seconds that each executor of the task may run; 0 for ever. `allowed`: backend parameters that tasks may have."""
    return parameters.time_limit_s(parameters.given(task, allowed), default_s)


def left_s(facts: Facts, limit_s: float, now: datetime) -> float | None:
    """Seconds until the executor that runs has reached its time limit; None when it has none or does not run."""
    if not limit_s or facts.started is UNSET:
        return None
    return limit_s - max(0.0, (now - datetime.fromisoformat(facts.started)).total_seconds())
