"""The turn of one executor in the pod of a whole task: its shim, by a pipe and by what stands in its control folder.

All containers start at once, and each shim waits for its turn at a pipe that it makes itself (shim.c). The runner opens
the pipe as soon as it is there and holds it to the executor's end. So each sees the other's death at once: the runner's
kills the programs, and where nobody reads from the pipe any more, the executor's container has ended.
"""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final

from tesk.beneath import LOOK, open_beneath
from tesk.clock import now
from tesk.life.outcome import KILLED
from tesk.pod.control import ProgramEnd, Watch, has_mark, program_end
from tesk.pod.readiness import is_broken

PIPE: Final = "turn"
GO: Final = b"G"
TERMINATE: Final = b"T"
KILL: Final = b"K"


class Turn:
    """Gives executor `n` its turn, and ends it. `pipe`: None before its shim has come, and after its end."""

    def __init__(self, n: int, folder: Path, watch: Watch) -> None:
        self.n = n
        self.folder = folder
        self.started = ""
        self.is_given = False
        self.end: ProgramEnd | None = None
        self.pipe: int | None = None
        self._watch = watch
        _make_folder(folder)
        self._watched: int | None = watch.add(folder)

    def look(self) -> None:
        """Takes in what has changed. The end is the shim's: a program that says that it has ended still runs."""
        if self.pipe is None and self.end is None:
            self._open()
        if self.is_given and not self.started and has_mark(self.folder, "started"):
            self.started = now()
            self._let_go()
        if self.pipe is not None and is_broken(self.pipe):
            self.close()
            self.end = program_end(self.folder) or ProgramEnd(KILLED, is_untold=True)

    def give(self) -> None:
        """Its program runs from now on, as soon as its container is there."""
        self.is_given = True
        self._say(GO)
        self.look()

    def terminate(self) -> None:
        """Tells its program to end."""
        self._say(TERMINATE)

    def kill(self) -> None:
        """Ends its program."""
        self._say(KILL)

    def close(self) -> None:
        """Lets go of everything; a program that runs is killed by that."""
        self._let_go()
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    def _open(self) -> None:
        """Opens the shim's pipe. What else lies there, such as a pipe from which nobody reads, is not the shim's."""
        try:
            seen = open_beneath(str(self.folder), PIPE, LOOK)
        except OSError:
            return
        try:
            if stat.S_ISFIFO(os.fstat(seen).st_mode):
                self.pipe = os.open(f"/proc/self/fd/{seen}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                print(f"{self.folder / PIPE}: {error}", file=sys.stderr)
        finally:
            os.close(seen)
        if self.is_given:
            self._say(GO)

    def _say(self, order: bytes) -> None:
        if self.pipe is None:
            return
        try:
            os.write(self.pipe, order)
        except OSError as error:  # its end is seen by the next look
            print(f"executor {self.n}: its shim was not told {order.decode()}: {error}", file=sys.stderr)

    def _let_go(self) -> None:
        if self._watched is not None:
            self._watch.remove(self._watched)
            self._watched = None


def _make_folder(folder: Path) -> None:
    """Makes the folder, unless the kubelet has been faster, which makes it likewise."""
    try:
        folder.mkdir()
        folder.chmod(0o777)
    except FileExistsError:
        pass
