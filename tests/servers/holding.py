"""A web server that keeps the first who comes waiting, so that a test can strike at a step that is surely at work."""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator

from tests.filer.faulty import answer, faulty


class Holding:
    """The first GET or PUT of each path is never answered, every other one is. `held` counts them, by path."""

    def __init__(self) -> None:
        self.url = ""
        self.held: Counter[str] = Counter()
        self._counting = threading.Lock()

    async def reached(self, path: str, seconds: float = 300.0) -> None:
        """Returns when somebody waits for the path."""
        async with asyncio.timeout(seconds):
            while not self.held[path]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def script(self, connection: socket.socket, _: int, head: bytes) -> None:
        method, path, _rest = head.decode(errors="replace").split(" ", 2)
        name = path.lstrip("/")
        if method != "HEAD":
            with self._counting:
                self.held[name] += 1
                is_first = self.held[name] == 1
            while is_first and connection.recv(65536):
                pass
        if method == "PUT":
            _read_body(connection, head)
        connection.sendall(answer("200 OK", b"" if method == "HEAD" else b"ok", length=2))


def _read_body(connection: socket.socket, head: bytes) -> None:
    """All of it: a client that is still sending when the connection ends may not hear the answer."""
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    left = length - len(head.partition(b"\r\n\r\n")[2])
    while left > 0 and (got := connection.recv(65536)):
        left -= len(got)


@contextlib.contextmanager
def holding(host: str) -> Iterator[Holding]:
    """Listens at an address of this machine."""
    server = Holding()
    with faulty(server.script, host) as running:
        server.url = running.url
        yield server
