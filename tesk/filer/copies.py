"""Copies between two local files, made by the kernel: never links, but blocks are shared where the file system can."""

import errno
import fcntl
import os
from typing import Final

from tesk.filer.streams import BLOCK, Sink, Source

COPY_STEP: Final = 16 * BLOCK
FICLONE: Final = 0x40049409
_NOT_HERE: Final = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.ETXTBSY,
    errno.EBADF,
    errno.ENOTTY,
}


def copy(fd: int, sink: Sink) -> None:
    """The whole of a file into an empty sink. Raises OSError, Stopped."""
    if not sink.position and _clone(fd, sink.fd):
        sink.advance(os.fstat(sink.fd).st_size)
        return
    while True:
        try:
            copied = os.copy_file_range(fd, sink.fd, COPY_STEP, sink.position, sink.position)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            break
        if not copied:
            break
        sink.advance(copied)
    while data := os.pread(fd, BLOCK, sink.position):
        sink.write(data)


def copy_out(source: Source, fd: int) -> None:
    """The bytes of a source into an empty file. Raises OSError, TransferError, Stopped.

    One that is not cloned is not cut either: ext4 would write out at its end all of a file that was cut to nothing.
    """
    if _clone(source.fd, fd):
        if os.fstat(fd).st_size >= source.size:
            os.ftruncate(fd, source.size)
            source.advance(source.size)
            return
        os.ftruncate(fd, 0)
    while source.position < source.size:
        try:
            wanted = min(COPY_STEP, source.size - source.position)
            copied = os.copy_file_range(source.fd, fd, wanted, source.position)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            break
        if not copied:
            break
        source.advance(copied)
    while data := source.read(BLOCK):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]


def _clone(fd: int, new: int) -> bool:
    try:
        fcntl.ioctl(new, FICLONE, fd)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True
