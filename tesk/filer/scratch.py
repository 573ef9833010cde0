"""A task's scratch folder: made ready before its inputs, scrubbed after its end.

Containers run as any user, so what is made here is open to all. Scrubbing has to work on whatever a container left:
trees deeper than any path may be long, directories without permissions, names of any bytes. It never follows a
symlink and moves each directory to the top before it looks inside, which no mount point lets happen to it.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from tesk.beneath import DIRECTORY, LOOK
from tesk.filer.jail import Scratch

_STAGING: Final = re.compile(r"\.tesk-staging-[0-9a-f]{16}")


def prepare(root: str, directories: Sequence[str], files: Sequence[str]) -> None:
    """Makes the directories (0777) and the empty files (0666) with their parents, whatever the umask; repeatable.

    Paths are container paths. What exists keeps its content. Raises OSError.
    """
    scratch = Scratch(root)
    for path in directories:
        fd = scratch.make_directory(path)
        try:
            if path != "/":
                _open_to_all(fd)
        finally:
            os.close(fd)
    for path in files:
        parent, name = scratch.open_parent(scratch.resolve(path, missing_ok=True))
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=parent)
            os.fchmod(fd, 0o666)
            os.close(fd)
        finally:
            os.close(parent)


def _open_to_all(fd: int) -> None:
    """A folder that the kubelet has made, to mount it, is root's, and has the mode of the volume's own folder."""
    try:
        os.fchmod(fd, 0o777)
    except PermissionError:
        if not os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK):
            raise


@contextlib.contextmanager
def staging(root: str) -> Iterator[str]:
    """A hidden folder on the scratch volume, outside all that containers see; removed on every way out.

    What a killed filer left behind is removed first.
    """
    for name in os.listdir(root):
        if _STAGING.fullmatch(name):
            scrub(os.path.join(root, name))
    folder = os.path.join(root, f".tesk-staging-{os.urandom(8).hex()}")
    os.mkdir(folder, 0o700)
    try:
        yield folder
    finally:
        scrub(folder)


def scrub(root: str) -> None:
    """Removes `root` and all that is in it; nothing when it is gone already.

    Raises OSError where something cannot be removed, such as a mount point (EBUSY or EXDEV).
    """
    try:
        top = os.open(root, DIRECTORY)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(root)
        return
    try:
        os.fchmod(top, 0o700)
        _flatten(top)
    finally:
        os.close(top)
    os.rmdir(root)


def _flatten(top: int) -> None:
    """Empties the directory `top`: each directory found is moved into it under a new name, then emptied likewise."""
    token = os.urandom(8).hex()
    moved = _clear(top, top, token, 0)
    done = 0
    while done < moved:
        name = f"{token}-{done}"
        _open_up(name, top)
        fd = os.open(name, DIRECTORY, dir_fd=top)
        try:
            moved = _clear(fd, top, token, moved)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top)
        done += 1


def _clear(directory: int, top: int, token: str, moved: int) -> int:
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=directory)
            continue
        _open_up(name, directory)
        os.rename(name, f"{token}-{moved}", src_dir_fd=directory, dst_dir_fd=top)
        moved += 1
    return moved


def _open_up(name: str, parent: int) -> None:
    """Gives the owner every right to a directory; through a descriptor, since chmod by name follows symlinks."""
    fd = os.open(name, LOOK | os.O_DIRECTORY, dir_fd=parent)
    try:
        with contextlib.suppress(PermissionError):
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)
