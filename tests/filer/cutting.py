"""A way to a server that breaks: a TCP relay that cuts or stalls some connections once some bytes went through."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """`cuts`: how many connections were cut so far."""

    def __init__(self, to_port: int, after_bytes: int, times: int, stalls: bool, unanswered: bytes) -> None:
        self.cuts = 0
        self._unanswered = unanswered
        self._silent: set[socket.socket] = set()
        self._stalls = stalls
        self._closing = threading.Event()
        self._counting = threading.Lock()
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
                budget = [self._after]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(source, target, budget), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, budget: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._is_swallowed(source, target, data):
                    break
                if self._is_cut(budget, len(data)):
                    if self._stalls:
                        self._closing.wait()
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, budget: list[int], size: int) -> bool:
        """Takes so many bytes from what a connection may carry, which is all it likes once enough have been cut."""
        with self._counting:
            was_cut = budget[0] < 0
            if not was_cut and self.cuts < self._times:
                budget[0] -= size
                self.cuts += budget[0] < 0
            return budget[0] < 0

    def _is_swallowed(self, source: socket.socket, target: socket.socket, data: bytes) -> bool:
        """True for the answer to the first request with the words that shall have none: the connection ends instead."""
        if self._unanswered and self._unanswered in data and not self._silent:
            self._silent.add(target)
        elif source in self._silent:
            self.cuts += 1
            return True
        return False

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def relay(
    to_port: int, *, after_bytes: int = 0, times: int = 0, stalls: bool = False, unanswered: bytes = b""
) -> Iterator[Relay]:
    """So many `times` a connection is cut, or says no more, after `after_bytes` both ways together.

    `unanswered`: the first request with these words in it is carried out, and its answer is lost.
    """
    way = Relay(to_port, after_bytes, times, stalls, unanswered)
    thread = threading.Thread(target=way.serve, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        way.close()
        thread.join(5)
