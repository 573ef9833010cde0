"""Bytes from a socket to a file by the kernel alone (splice(2)): through a pipe, never through this process.

It saves a copy of each byte. Not for TLS, whose bytes have to be decrypted here.
"""

import contextlib
import errno
import fcntl
import os
import select
from typing import Final

from tesk.filer.errors import from_file
from tesk.filer.streams import BLOCK, WRITING, Sink

_NOT_HERE: Final = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def fill(fd: int, sink: Sink, most: int, timeout_s: float) -> int:
    """Moves up to `most` bytes from a socket, as many as there are until its end; how many.

    Ends early where the kernel has no way between the two: what follows is still to be read. Raises TimeoutError when
    nothing comes for so long, OSError of the socket, TransferError of the file, Stopped.
    """
    moved = 0
    out, into = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(PermissionError):  # one user's many pipes: those that come later stay small
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, BLOCK)
        while moved < most:
            taken = left = _take(fd, into, min(BLOCK, most - moved), timeout_s)
            if not taken:
                break
            while left:
                left -= _pour(out, sink, left)
            moved += taken
    finally:
        os.close(out)
        os.close(into)
    return moved


def _take(fd: int, into: int, most: int, timeout_s: float) -> int:
    """From the socket into the pipe."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if not poll.poll(timeout_s * 1000):
            raise TimeoutError
        try:
            return os.splice(fd, into, most)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in _NOT_HERE:
                return 0
            raise


def _pour(out: int, sink: Sink, size: int) -> int:
    """From the pipe into the file; by hand where its file system cannot splice."""
    try:
        moved = os.splice(out, sink.fd, size, offset_dst=sink.position)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise from_file(error, WRITING) from error
        data = os.read(out, size)
        sink.write(data)
        return len(data)
    sink.advance(moved)
    return moved
