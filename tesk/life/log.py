"""Lines for the system logs that every engine writes alike."""

from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from tesk.tes import TaskLog

CANCELED: Final = "canceled by the user"
KILLED: Final = 128 + 9


def out_of_memory(n: int, image: str, exit_code: int, limit_mib: float) -> str:
    """The kernel killed a process of executor N for want of memory: its program, or one of those that it had started,
    which it may have survived. `limit_mib` is 0 when it had no limit of its own."""
    limit = f", limit {limit_mib:.0f} MiB" if limit_mib else ""
    if exit_code == KILLED:
        return f"executor {n} ({image}): out of memory{limit}"
    return f"warning: executor {n} ({image}): a process that its program had started was killed: out of memory{limit}"


def cut_outputs(pushed: int, shown: int) -> str:
    """The list of the files that were pushed is longer than what is kept of it."""
    return f"warning: {pushed} outputs were pushed; the list of them is too long to be kept, {shown} are shown"


def noted(log: TaskLog, line: str) -> TaskLog:
    """The log with a further line for the user."""
    lines = [] if log.system_logs is UNSET else log.system_logs
    return replace(log, system_logs=[*lines, line.replace("\n", " ")])
