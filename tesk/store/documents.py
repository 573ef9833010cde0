"""The two stored forms of a task's logs, BASIC and FULL, made once when the logs are written.

So a page is sent as it is stored. FULL logs have stdout and stderr, cut to their tails, and system logs; BASIC logs
have none of these (TES 1.1, ListTasks, `view`).
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from tesk.tes import ExecutorLog, TaskLog, encode

_read_logs = msgspec.json.Decoder(list[TaskLog]).decode
_read_texts = msgspec.json.Decoder(list[str]).decode


def basic_logs(logs: Sequence[TaskLog]) -> bytes:
    """The JSON array of the BASIC view, one log for each attempt."""
    return encode([replace(log, logs=list(map(_without_output, log.logs)), system_logs=UNSET) for log in logs])


def full_logs(logs: Sequence[TaskLog], tail_bytes: int) -> bytes:
    """The JSON array of the FULL view, with the last `tail_bytes` of UTF-8 of each stdout and stderr."""
    return encode([replace(log, logs=[_cut(each, tail_bytes) for each in log.logs]) for log in logs])


def _without_output(entry: ExecutorLog) -> ExecutorLog:
    return replace(entry, stdout=UNSET, stderr=UNSET)


def with_warnings(logs: bytes | None, warnings: bytes | None) -> bytes | None:
    """FULL logs with the warnings (a JSON array of texts) before the first log's own system logs."""
    if warnings is None:
        return logs
    read = _read_logs(logs) if logs is not None else []
    first = read[0] if read else TaskLog()
    own = [] if first.system_logs is UNSET else first.system_logs
    return encode([replace(first, system_logs=_read_texts(warnings) + own), *read[1:]])


def encode_warnings(warnings: Sequence[str] | None) -> bytes | None:
    return encode(list(warnings)) if warnings else None


def tail(text: str, size_bytes: int) -> str:
    """The end of the text that fits into `size_bytes` of UTF-8, without a torn character."""
    if len(text) * 4 <= size_bytes:
        return text
    data = text[-size_bytes:].encode("utf-8", "replace") if size_bytes else b""
    return data[-size_bytes:].decode("utf-8", "ignore") if size_bytes else ""


def _cut(log: ExecutorLog, size_bytes: int) -> ExecutorLog:
    return replace(log, stdout=_tail(log.stdout, size_bytes), stderr=_tail(log.stderr, size_bytes))


def _tail(text: str | UnsetType, size_bytes: int) -> str | UnsetType:
    return UNSET if text is UNSET else tail(text, size_bytes)
