"""Sending over a slow connection, and over one that stands still."""

import socket
import threading
import time

import pytest

from tesk.filer.schemes.sockets import send_all

BYTES = bytes(range(256)) * 400


@pytest.fixture
def pair() -> "tuple[socket.socket, socket.socket]":
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.settimeout(0.3)
    return ours, theirs


def test_what_goes_slowly_goes_all(pair: tuple[socket.socket, socket.socket]) -> None:
    """A reader that takes longer for all of it than the socket's timeout, but never so long for some of it."""
    ours, theirs = pair
    got = bytearray()

    def read() -> None:
        while data := theirs.recv(8192):
            got.extend(data)
            time.sleep(0.05)

    reading = threading.Thread(target=read, daemon=True)
    with ours, theirs:
        reading.start()
        send_all(ours, BYTES)
        ours.shutdown(socket.SHUT_WR)
        reading.join(30)
    assert got == BYTES


def test_what_stands_still_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs, pytest.raises(TimeoutError):
        send_all(ours, BYTES)
