"""How much of what a task's executors wrote is kept, for all of them together.

Each executor's output is bounded, but a task may have a thousand executors, and its log is held by the server, the
store and every answer that shows it. The output of the last executors says most about a task's end, so the oldest give
up theirs first.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from tesk.tails import cut
from tesk.tes import ExecutorLog

TASK_BYTES: Final = 512 * 1024
TOO_LONG: Final = "warning: the executors wrote more than is kept of one task; less is shown of the first of them"
"""The line for the system logs of a task where not all could be kept."""


def task_bytes(tail_bytes: int) -> int:
    """Bytes of output that are kept of a task: one executor's, of `tail_bytes` for each stream, in any case."""
    return max(TASK_BYTES, 2 * tail_bytes)


def fit(logs: Sequence[ExecutorLog], most_bytes: int) -> list[ExecutorLog]:
    """The logs with so many bytes of output at most (UTF-8), each stream cut at its beginning."""
    room = most_bytes
    kept: list[ExecutorLog] = []
    for log in reversed(logs):
        fitted = log
        for stream in ("stderr", "stdout"):
            text = getattr(log, stream)
            if text is UNSET or not text:
                continue
            size = len(text.encode("utf-8", "replace"))
            if size > room:
                fitted = msgspec.structs.replace(fitted, **{stream: cut(text, room)})
            room = max(0, room - size)
        kept.append(fitted)
    return kept[::-1]
