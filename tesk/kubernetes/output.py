"""How a program's output stands in its reporter's log: JSON lines, so that both streams can be told apart again.

Kubernetes keeps the log and bounds it; the server reads its end for the live tails of a running task, the taskmaster
for a program whose reporter could not tell. Only the standard library: the reporter starts with every executor.
"""

import json
from collections.abc import Iterable

from tesk.tails import cut


def line(stream: str, text: str) -> str:
    """A piece of `stdout` or `stderr` as a line of the log."""
    return json.dumps({stream: text})


def tails_from_log(lines: Iterable[bytes], size_bytes: int) -> tuple[str, str]:
    """The ends of stdout and stderr, of at most so many bytes of UTF-8 each; lines that are no output are skipped."""
    pieces: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for each in lines:
        try:
            found = json.loads(each)
        except ValueError:
            continue
        if isinstance(found, dict):
            for stream, kept in pieces.items():
                if isinstance(text := found.get(stream), str):
                    kept.append(text)
    stdout, stderr = ("".join(kept) for kept in pieces.values())
    return cut(stdout, size_bytes), cut(stderr, size_bytes)
