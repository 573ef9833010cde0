"""Bodies that the kernel moves from a socket into a file, real ones both."""

import os
import socket
import threading
from pathlib import Path

import pytest

from tesk.filer import splices
from tesk.filer.errors import Stopped
from tesk.filer.streams import Meter, Sink

BYTES = os.urandom(3_000_000)


def filled(path: Path, flags: int, most: int, meter: Meter, *, begin: int = 0) -> tuple[int, bytes]:
    """How many bytes were moved of what a socket sends, and what the file has then."""
    ours, theirs = socket.socketpair()
    ours.settimeout(300)

    def send() -> None:
        with theirs:
            theirs.sendall(BYTES)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        with ours:
            moved = splices.fill(ours.fileno(), Sink(fd, meter, begin), most, 300)
            while ours.recv(1 << 20):
                pass
    finally:
        os.close(fd)
        sending.join()
    return moved, path.read_bytes()


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["splice", "a file that splice refuses"])
@pytest.mark.parametrize("most", [1, 1_500_001, len(BYTES), 2 * len(BYTES)])
def test_as_many_bytes_arrive_as_are_wanted_and_there(tmp_path: Path, flags: int, most: int) -> None:
    meter = Meter(threading.Event())
    wanted = BYTES[:most]
    assert filled(tmp_path / "f", flags, most, meter) == (len(wanted), wanted)
    assert meter.bytes_done == len(wanted)


def test_a_stretch_lands_where_it_belongs(tmp_path: Path) -> None:
    moved, content = filled(tmp_path / "f", 0, 10, Meter(threading.Event()), begin=4)
    assert (moved, content) == (10, b"\0" * 4 + BYTES[:10])


def test_a_step_that_was_told_to_stop_ends_within_a_block(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "f").open("wb") as file:
        theirs.sendall(b"x")
        with pytest.raises(Stopped):
            splices.fill(ours.fileno(), Sink(file.fileno(), Meter(stop)), 10, 300)


def test_a_silent_socket_is_given_up(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "f").open("wb") as file, pytest.raises(TimeoutError):
        splices.fill(ours.fileno(), Sink(file.fileno(), Meter(threading.Event())), 10, 0.05)


def test_what_is_no_socket_is_left_to_be_read(tmp_path: Path) -> None:
    """And costs no descriptor. Other threads of the tests may open some meanwhile, but not so many."""
    before = len(os.listdir("/proc/self/fd"))
    with Path("/dev/null").open("rb") as source, (tmp_path / "f").open("wb") as file:
        for _ in range(100):
            assert splices.fill(source.fileno(), Sink(file.fileno(), Meter(threading.Event())), 10, 300) == 0
    assert len(os.listdir("/proc/self/fd")) < before + 50
