"""Puts what a program writes into the log of whoever stands beside it, while it runs, and reads the ends of it.

Only the standard library: this runs beside every executor.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tesk.kubernetes.output import line
from tesk.tails import cut, open_below, tail, trim

LOOK_S: Final = 1.0
"""How often it is time for `follow`."""
LAST_LOOK_S: Final = 0.2
"""The same once the pod is to end: what is not in the log when it is killed is lost."""
MOST_PER_LOOK: Final = 65536
Streams = Mapping[str, tuple[Path, str]]
"""For stdout and stderr, where each lies, as a root and a path below it."""


class OutputFollower:
    """Follows the output of one program. What lies in its `control` folder is for the log alone: it is kept small."""

    def __init__(self, streams: Streams, tail_bytes: int, control: Path) -> None:
        self._streams = streams
        self._tail_bytes = tail_bytes
        self._control = control
        self._said = dict.fromkeys(streams, 0)

    def follow(self, *, whole: bool = False) -> None:
        """Puts what was written since the last time into the log; of much, the end."""
        for name, (root, path) in self._streams.items():
            data = self._fresh(name, root, path, whole=whole)
            if data:
                print(line(name, cut(data.decode(errors="replace"), MOST_PER_LOOK)), flush=True)
            if root == self._control and self._said[name] > MOST_PER_LOOK:
                trim(root, path)

    def tails(self) -> dict[str, str]:
        """The ends of stdout and stderr."""
        return {name: tail(*where, self._tail_bytes) for name, where in self._streams.items()}

    def _fresh(self, name: str, root: Path, path: str, *, whole: bool) -> bytes:
        """What follows what was said; not the beginning of a character whose rest may still come."""
        descriptor = open_below(root, path, os.O_RDONLY)
        if descriptor is None:
            return b""
        with open(descriptor, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = max(self._said[name] if end >= self._said[name] else 0, end - max(MOST_PER_LOOK, self._tail_bytes))
            file.seek(begin)
            data = file.read(end - begin)
        if not whole:
            data = data[: len(data) - _torn(data)]
        self._said[name] = begin + len(data)
        return data


def streams(stdout: str, stderr: str, scratch: Path | None, control: Path) -> dict[str, tuple[Path, str]]:
    """Where the streams of a program lie: in the files that the task names, on the scratch volume if there is one, else
    in its control folder."""
    given = {"stdout": stdout, "stderr": stderr}
    return {
        name: (scratch, path) if path and scratch is not None else (control, f"/{name}") for name, path in given.items()
    }


def _torn(data: bytes) -> int:
    """The number of bytes at the end that begin a UTF-8 character without ending it."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            wanted = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < wanted else 0
        if byte < 0x80:
            return 0
    return 0
