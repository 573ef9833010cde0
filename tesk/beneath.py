"""Opens files below a folder that a user's program may have filled with traps.

No symlink is followed: a path is opened component by component. And nothing is opened for use before its kind is known:
to open a device, a pipe or a socket may have an effect, or wait for ever. A path is first opened with O_PATH (open(2)),
which has no effect; if it is a regular file, it is then opened through that descriptor.

Only the standard library: this runs beside every executor.
"""

import contextlib
import errno
import os
import stat
from typing import Final

LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFile(OSError):
    """The path names something that the caller cannot use; `strerror` says what."""

    def __init__(self, mode: int, path: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind(mode)}", path)


def open_beneath(root: str, relative: str, flags: int, make_mode: int | None = None) -> int:
    """Opens a canonical path below `root` and follows no symlink. With `make_mode`, makes missing directories.

    `make_mode` 0 leaves the mode to the umask. Opens directories, and with LOOK everything; `open_file` opens files.
    """
    parts = [part for part in relative.split("/") if part and part != "."]
    if ".." in parts:
        raise OSError(errno.EXDEV, "'..' in a canonical path", relative)
    fd = os.open(root, LOOK | os.O_DIRECTORY if parts else DIRECTORY)
    try:
        for n, part in enumerate(parts):
            last = n == len(parts) - 1
            if make_mode is not None:
                _make(part, fd, make_mode)
            below = os.open(part, flags | os.O_CLOEXEC if last else LOOK | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
    except OSError as error:
        os.close(fd)
        error.filename = relative
        raise
    return fd


def open_file(root: str, relative: str, flags: int = os.O_RDONLY) -> int:
    """Opens the regular file at a canonical path below `root`. Raises OSError, and NotAFile for any other kind."""
    seen = open_beneath(root, relative, LOOK)
    try:
        mode = os.fstat(seen).st_mode
        if not stat.S_ISREG(mode):
            raise NotAFile(mode, relative)
        # O_NONBLOCK: a program may hold a lease on its file, and open would wait for its end (fcntl(2), F_SETLEASE).
        return os.open(f"/proc/self/fd/{seen}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(seen)


def look_beneath(root: str, relative: str) -> None:
    """Raises OSError unless a folder or a regular file is at a canonical path below `root`."""
    seen = open_beneath(root, relative, LOOK)
    try:
        mode = os.fstat(seen).st_mode
    finally:
        os.close(seen)
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise NotAFile(mode, relative)


def kind(mode: int) -> str:
    """The kind of a file that is not regular, in words."""
    known = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a fifo",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFLNK: "a symlink",
    }
    return known.get(stat.S_IFMT(mode), "no regular file")


def _make(name: str, parent: int, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o777, dir_fd=parent)
        if mode:
            os.chmod(name, mode, dir_fd=parent)
