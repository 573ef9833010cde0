"""An HTTP server that misbehaves as told: a real socket, a script per connection.

The script gets the connection, the number of the request (from 0) and its head, and writes what it likes; the
connection is closed when it returns.
"""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket, int, bytes], None]


class Faulty:
    """Where it listens, and the heads of the requests so far."""

    def __init__(self, script: Script, host: str) -> None:
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        self._script = script
        self._counting = threading.Lock()
        self._listener = socket.create_server((host, 0))
        self._open: set[socket.socket] = set()
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                got = connection.recv(65536)
                if not got:
                    return
                head += got
            with self._counting:
                number = len(self.requests)
                self.requests.append(head)
            self._script(connection, number, head)
        self._open.discard(connection)

    def close(self) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # also wakes the thread that reads from it
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@contextlib.contextmanager
def faulty(script: Script, host: str = "127.0.0.1") -> Iterator[Faulty]:
    """Listens at an address of this machine."""
    server = Faulty(script, host)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(5)


def answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A whole response; `length` is what it claims of its body."""
    claimed = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {claimed}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Versioned:
    """A script that serves `content` with ranges and an ETag, as a good server does; `spans` are the parts asked for.

    `spoil` gets the number of the request and its whole answer, and says what is sent of it. `newer` is the content
    from request `changes_at` on.
    """

    def __init__(
        self,
        content: bytes,
        spoil: Callable[[int, bytes], bytes] = lambda _, whole: whole,
        *,
        newer: bytes = b"",
        changes_at: int = sys.maxsize,
    ) -> None:
        self.content = content
        self._newer, self._changes_at = newer, changes_at
        self.etag = '"1"'
        self.headers: tuple[str, ...] = ()
        self.spans: list[tuple[int, int]] = []
        self._spoil = spoil

    def __call__(self, connection: socket.socket, number: int, head: bytes) -> None:
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
        content, etag = (self._newer, '"newer"') if number >= self._changes_at else (self.content, self.etag)
        begin, end, status, more = 0, len(content), "200 OK", [f"ETag: {etag}", "Accept-Ranges: bytes", *self.headers]
        fields = {name.lower(): value for name, value in fields.items()}
        if fields.get("if-match", etag) != etag:
            connection.sendall(answer("412 Precondition Failed"))
            return
        if "range" in fields and fields.get("if-range", etag) == etag:
            first, last = fields["range"].removeprefix("bytes=").split("-")
            begin, end, status = int(first), int(last) + 1, "206 Partial Content"
            more.append(f"Content-Range: bytes {begin}-{end - 1}/{len(content)}")
        self.spans.append((begin, end))
        whole = answer(status, content[begin:end], *more)
        if head.startswith(b"HEAD"):
            whole = whole[: whole.index(b"\r\n\r\n") + 4]
        connection.sendall(self._spoil(number, whole))
