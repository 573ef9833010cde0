"""Where fetched files come to be: first without a name, then, once whole, at their paths.

A file that never had a name leaves nothing behind when its filer is killed, and costs no rename between directories,
of which a file system does one at a time. Where the file system has no such files (O_TMPFILE), they are hidden in a
staging folder and renamed. Nobody else is at work on the scratch volume while inputs arrive, so the directories that
files are put into are opened once.
"""

import contextlib
import errno
import os
import posixpath
import re
import stat
import threading
from collections.abc import Iterator
from typing import Final

from tesk.beneath import DIRECTORY
from tesk.filer.attributes import Attributes
from tesk.filer.jail import Scratch

MAX_OPEN: Final = 128
PRIVATE: Final = stat.S_ISVTX
"""The sticky bit, which means nothing for files."""
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY-----")
_NO_TMPFILE: Final = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}


class Landing:
    """`folder` is the staging folder."""

    def __init__(self, scratch: Scratch, folder: str) -> None:
        self._scratch = scratch
        self._folder = folder
        self._staging = os.open(folder, DIRECTORY)
        self._nameless = os.path.isdir("/proc/self/fd")
        self._lock = threading.Lock()
        self._parents: dict[str, int] = {}

    def new(self) -> tuple[int, str]:
        """A descriptor of a new empty file, and its hidden path, empty where it has none. Raises OSError."""
        if self._nameless:
            try:
                return os.open(self._folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), ""
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
                self._nameless = False
        hidden = self._hidden()
        return os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), hidden

    def _hidden(self) -> str:
        return os.path.join(self._folder, os.urandom(8).hex())

    def place(self, fd: int, hidden: str, path: str, attributes: Attributes) -> None:
        """Gives the file its container path, in place of what may be there. Raises OSError.

        Any user may read and change it, and run it unless its store says that it is no program. PRIVATE marks what is
        nobody's but the user's who takes it, which the shim of an executor does.
        """
        mode = 0o666 if attributes.executable is False else 0o777
        os.fchmod(fd, mode | (PRIVATE if attributes.private or _is_key(fd) else 0))
        attributes.set_time(fd)
        with self._parent(path) as parent:
            name = posixpath.basename(path)
            if not hidden:
                try:
                    _link(fd, name, parent)
                    return
                except FileExistsError:
                    hidden = self._hidden()
                    _link(fd, posixpath.basename(hidden), self._staging)
            os.rename(hidden, name, dst_dir_fd=parent)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[int]:
        """A descriptor of the directory that a path lies in, made if need be."""
        folder = posixpath.dirname(self._scratch.where(path))
        with self._lock:
            known = self._parents.get(folder)
            if known is None and len(self._parents) < MAX_OPEN:
                known = self._parents[folder] = self._scratch.open_parent(path)[0]
        if known is not None:
            yield known
            return
        parent, _ = self._scratch.open_parent(path)
        try:
            yield parent
        finally:
            os.close(parent)

    def close(self) -> None:
        for fd in (self._staging, *self._parents.values()):
            os.close(fd)


def _is_key(fd: int) -> bool:
    """Whether a file begins as private keys do (RFC 7468)."""
    return _KEY.match(os.pread(fd, 64, 0)) is not None


def _link(fd: int, name: str, parent: int) -> None:
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)
