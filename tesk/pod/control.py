"""What the shim leaves of its program in a control folder, for whoever stands beside it.

The folder is the program's to write in, so it may lie about itself there; links, pipes and what is no exit code count
for nothing. Only the standard library: this runs beside every executor.
"""

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final, NamedTuple

from tesk.shim import ENDED, MOST_ENDED
from tesk.tails import tail

IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_TO: Final = 0x80
_libc: Final = ctypes.CDLL(None, use_errno=True)


class ProgramEnd(NamedTuple):
    """How a program ended. `terminated`: it was told to end before, by a TERM or by its runner."""

    exit_code: int
    out_of_memory: bool = False
    terminated: bool = False
    problem: str = ""
    """Why the program never ran: its "workdir" is not there, or its files could not be copied in ("copies")."""
    is_untold: bool = False
    """The shim was killed too, before it could say anything."""


def has_mark(folder: Path, name: str) -> bool:
    """True when the shim has left a file of this name."""
    return os.path.lexists(folder / name)


def program_end(folder: Path) -> ProgramEnd | None:
    """The end of the program; None while there is none."""
    found = ENDED.fullmatch(tail(folder, "/ended", MOST_ENDED))
    if found is None:
        return None
    return ProgramEnd(int(found[1]), has_mark(folder, "oom"), has_mark(folder, "terminated"), (found[2] or "").strip())


class Watch:
    """Tells when something has been written in folders (inotify(7)): `descriptor` is readable then. One for all
    folders, since all pods of a node share how many there may be."""

    def __init__(self) -> None:
        self.descriptor: int = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")

    def add(self, folder: Path) -> int:
        """Watches a folder; the number by which it is let go."""
        events = IN_CLOSE_WRITE | IN_MOVED_TO
        return _checked(_libc.inotify_add_watch(self.descriptor, os.fsencode(folder), events), str(folder))

    def remove(self, number: int) -> None:
        """Lets a folder go."""
        _libc.inotify_rm_watch(self.descriptor, number)

    def clear(self) -> None:
        """Makes `descriptor` unreadable until the next change."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 65536)


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result
