"""Reads the ends of files that a user's program writes, and keeps the files small. Follows no link on the way.

Only the standard library: this runs beside every executor.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from tesk.beneath import NotAFile, open_file

FALLOC_FL_KEEP_SIZE: Final = 1
FALLOC_FL_PUNCH_HOLE: Final = 2
TRIM_BYTES: Final = 16 * 1024 * 1024
_fallocate: Final = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def trim(root: Path, path: str) -> None:
    """Frees the disk space of a file except its end. The file keeps its size, so its writer can append."""
    descriptor = open_below(root, path, os.O_RDWR)
    if descriptor is None:
        return
    try:
        size = os.fstat(descriptor).st_size - TRIM_BYTES
        if size > 0:
            _fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size)
    finally:
        os.close(descriptor)


def tail(root: Path, path: str, size_bytes: int) -> str:
    """The end of a file below `root` as text; empty when there is no such regular file."""
    descriptor = open_below(root, path, os.O_RDONLY)
    if descriptor is None:
        return ""
    with open(descriptor, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - size_bytes))
        data = file.read(size_bytes)
    text = data.decode(errors="replace")
    return text.lstrip("\ufffd") if end > size_bytes else text


def cut(text: str, size_bytes: int) -> str:
    """The end of a text, of at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= size_bytes else data[len(data) - size_bytes :].decode("utf-8", "ignore")


def open_below(root: Path, path: str, flags: int) -> int | None:
    """A descriptor of the regular file at `root` + `path`; None where there is none or a symlink is on the way."""
    try:
        return open_file(str(root), path, flags)
    except OSError:
        return None


def oddity(root: Path, path: str) -> str | None:
    """Why `root` + `path` is not read, such as "it is a fifo"; None for a regular file and where nothing is."""
    try:
        os.close(open_file(str(root), path))
    except NotAFile as error:
        return error.strerror
    except OSError:
        return None
    return None
