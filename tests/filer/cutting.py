"""A way to a server that breaks: a TCP relay that cuts its first connections once so many bytes went through."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """`cuts`: how many connections were cut so far."""

    def __init__(self, to_port: int, after_bytes: int, times: int) -> None:
        self.cuts = 0
        self._to = ("127.0.0.1", to_port)
        self._after = after_bytes
        self._times = times
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._to)
                budget = [self._after if self.cuts < self._times else None]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(source, target, budget), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, budget: list[int | None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                left = budget[0]
                if left is not None and left < len(data):
                    self.cuts += 1
                    break
                budget[0] = None if left is None else left - len(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def relay(to_port: int, *, after_bytes: int, times: int) -> Iterator[Relay]:
    """Connections through it are cut after `after_bytes` both ways together, the first `times` of them."""
    way = Relay(to_port, after_bytes, times)
    thread = threading.Thread(target=way.serve, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        way.close()
        thread.join(5)
