"""The log of a task that users see, made from facts: entries, and lines that every place writes alike (pure)."""

from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from tesk.clock import now
from tesk.life.log_bound import TOO_LONG, fit
from tesk.life.outcome import KILLED, TERMINATED
from tesk.tes import ExecutorLog, TaskLog

CANCELED: Final = "canceled by the user"
CANCELED_EARLY: Final = "canceled by the user before it started"
RUNNING: Final = -1
"""The exit code in the entry of an executor that runs."""


def noted(log: TaskLog, *lines: str) -> TaskLog:
    """The log with further lines for the user."""
    known = [] if log.system_logs is UNSET else log.system_logs
    return replace(log, system_logs=[*known, *(line.replace("\n", " ") for line in lines)]) if lines else log


def with_entry(log: TaskLog, entry: ExecutorLog, most_bytes: int) -> TaskLog:
    """The log with the entry of an executor that has ended; of those before it, as much stays as may be kept."""
    entries = [*log.logs, entry]
    fitted = fit(entries, most_bytes)
    log = replace(log, logs=fitted)
    return log if fitted == entries or TOO_LONG in (log.system_logs or ()) else noted(log, TOO_LONG)


def running(log: TaskLog, started: str, stdout: str, stderr: str) -> TaskLog:
    """The log with the executor that runs, and what it has written so far."""
    return replace(log, logs=[*log.logs, ExecutorLog(RUNNING, started, UNSET, stdout, stderr)])


def cancelled(log: TaskLog, *, has_ended: bool = False) -> TaskLog:
    """The log of a cancelled task: what had ended, and what the executor that was stopped had written. `has_ended`: the
    task had come to its end before."""
    end = log.end_time if has_ended else now()
    entries = [
        replace(entry, exit_code=TERMINATED, end_time=end) if entry.exit_code == RUNNING else entry
        for entry in log.logs
    ]
    return noted(replace(log, logs=entries, end_time=end), CANCELED)


def exit_code(n: int, image: str, code: int, *, is_ignored: bool) -> str:
    """Executor `n` has ended with a code that is not 0."""
    return f"executor {n} ({image}): exit code {code}{', ignored' if is_ignored else ''}"


def timed_out(n: int, image: str, limit_s: float) -> str:
    """Executor `n` is ended for its time limit."""
    return f"executor {n} ({image}): ended after its time limit of {limit_s:g} s"


def out_of_memory(n: int, image: str, exit_code: int, limit_mib: float) -> str:
    """The kernel killed a process of executor N for want of memory: its program, or one of those that it had started,
    which it may have survived. `limit_mib` is 0 when it had no limit of its own."""
    limit = f", limit {limit_mib:.0f} MiB" if limit_mib else ""
    if exit_code == KILLED:
        return f"executor {n} ({image}): out of memory{limit}"
    return f"warning: executor {n} ({image}): a process that its program had started was killed: out of memory{limit}"


def replaced(step: str, why: str) -> str:
    """A step's program was never begun; the step is made again."""
    return f"warning: {step}: it could not be started: {why}; trying again"


def cut_outputs(pushed: int, shown: int) -> str:
    """The list of the files that were pushed is longer than what is kept of it."""
    return f"warning: {pushed} outputs were pushed; the list of them is too long to be kept, {shown} are shown"
