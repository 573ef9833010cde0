"""Servers that accept connections and never answer, or not what they were asked for."""

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator


class Silent:
    """`address`: host and port. `visits`: connections so far."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.visits: list[socket.socket] = []

    async def visited(self, seconds: float = 180.0) -> None:
        """Returns when somebody has come."""
        async with asyncio.timeout(seconds):
            while not self.visits:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@contextlib.contextmanager
def without_images(host: str) -> Iterator[Silent]:
    """A registry that says that it is one, and never answers for any image. Who asks for one is a visitor."""
    closing = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            if self.connection.recv(1, socket.MSG_PEEK) != b"\x16":  # TLS, which clients try first
                super().handle()

        def do_GET(self) -> None:
            if self.path == "/v2/":
                self.send_response(200)
                self.end_headers()
                return
            server.visits.append(self.connection)
            closing.wait()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.ThreadingHTTPServer((host, 0), Handler)
    listener.daemon_threads = True
    server = Silent(f"{host}:{listener.server_address[1]}")
    threading.Thread(target=listener.serve_forever, name="registry", daemon=True).start()
    try:
        yield server
    finally:
        closing.set()
        listener.shutdown()
        listener.server_close()


@contextlib.contextmanager
def silent(host: str) -> Iterator[Silent]:
    """Listens on all addresses of this machine; `host` is the one that visitors use."""
    with socket.create_server(("", 0)) as listener:
        server = Silent(f"{host}:{listener.getsockname()[1]}")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.visits.append(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(300)
            for connection in server.visits:
                connection.close()
