"""A server that accepts connections and never answers."""

import asyncio
import contextlib
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
