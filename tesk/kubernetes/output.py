"""How a program's output stands in the log of its reporter or runner: JSON lines, so that streams can be told apart.

Kubernetes keeps the log and bounds it; the server reads its end for the live tails of a running task, the taskmaster
for a program whose reporter could not tell. A runner's log has the output of one executor after the other, and the
task's record each time it changes, for a server that could not be told.

Only the standard library: the reporter starts with every executor.
"""

import binascii
import json
from collections.abc import Iterable
from typing import Any

from tesk.tails import cut


def line(stream: str, text: str) -> str:
    """A piece of `stdout` or `stderr` as a line of the log."""
    return json.dumps({stream: text})


def executor_line(number: int) -> str:
    """What stands before the output of an executor in a runner's log."""
    return json.dumps({"executor": number})


def record_line(packed: bytes) -> str:
    """The task's record (record.pack) as a line of the log."""
    return json.dumps({"record": binascii.b2a_base64(packed, newline=False).decode()})


def tails_from_log(lines: Iterable[bytes], size_bytes: int) -> tuple[str, str]:
    """The ends of stdout and stderr, of at most so many bytes of UTF-8 each: of the last executor in the log. Lines
    that are no output are skipped."""
    pieces: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for each in lines:
        found = _decode(each)
        for stream, kept in pieces.items():
            if "executor" in found:
                kept.clear()
            if isinstance(text := found.get(stream), str):
                kept.append(text)
    stdout, stderr = ("".join(kept) for kept in pieces.values())
    return cut(stdout, size_bytes), cut(stderr, size_bytes)


def last_record(lines: Iterable[bytes]) -> bytes | None:
    """The newest record in a runner's log or termination message, packed; None where there is none."""
    last = None
    for each in lines:
        if each.startswith(_RECORD):
            text = _decode(each).get("record")
            try:
                last = binascii.a2b_base64(text, strict_mode=True) if isinstance(text, str) else last
            except ValueError:
                continue
    return last


_RECORD = b'{"record":'


def _decode(line: bytes) -> dict[str, Any]:
    """A line of the log; empty for one that is not ours."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
