"""Sending over a slow connection, and over one that stands still."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tesk.filer.streams import Meter, Source
from tesk.filer.wire.sockets import UNSENT, send_all, send_file

BYTES = bytes(range(256)) * 400


TIMEOUT_S = 0.3
PAUSE_S = 0.03


class SlowlyRead(socket.socket):
    """Each piece that goes takes a while, after which the peer has read it. `pieces` went so far."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        super().__init__(fileno=ours.detach())
        self.settimeout(TIMEOUT_S)
        self.pieces = 0
        self.got = bytearray()
        self._theirs = theirs

    def send(self, data: Any, flags: int = 0) -> int:
        time.sleep(PAUSE_S)
        sent = super().send(data, flags)
        self.got += self._theirs.recv(sent, socket.MSG_WAITALL)
        self.pieces += 1
        return sent


@pytest.fixture
def pair() -> "tuple[socket.socket, socket.socket]":
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.settimeout(TIMEOUT_S)
    return ours, theirs


def test_what_goes_slowly_goes_all(pair: tuple[socket.socket, socket.socket]) -> None:
    """All of it takes longer than the socket's timeout, and no piece of it does."""
    with pair[1], SlowlyRead(*pair) as ours:
        send_all(ours, BYTES)
        assert ours.got == BYTES
        assert ours.pieces * PAUSE_S > TIMEOUT_S


def test_what_stands_still_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs, pytest.raises(TimeoutError):
        send_all(ours, BYTES)


def test_a_file_goes_from_where_it_is_with_little_of_it_held_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BYTES)
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server, path.open("rb") as file:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()

        def read() -> None:
            while data := theirs.recv(8192):
                got.extend(data)

        reading = threading.Thread(target=read, daemon=True)
        with ours, theirs:
            reading.start()
            source = Source(file.fileno(), Meter(threading.Event()))
            source.read(1000)
            send_file(ours, source, 4096)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT
            ours.shutdown(socket.SHUT_WR)
            reading.join(300)
    assert got == BYTES[1000:]
