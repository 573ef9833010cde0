"""Takes the messages of a task's own pods, from a port that any pod of the cluster may reach.

Whoever connects is a stranger until the task's word has been read. A stranger gets room for one small head and little
time for it, and there are few strangers at once: the oldest gives way to a new one. A reporter or filer sends its word
at once, so it needs no more than a moment; a hostile pod that opens connections and holds them costs 64 KiB in all and
keeps nobody out. One thread serves all connections, since what is done for each of them takes no time.
"""

import hmac
import logging
import selectors
import socket
import threading
import time
from functools import partial
from typing import Final

import msgspec

from tesk.kubernetes.message_head import HEAD_BYTES, HEAD_END, Head, Refused, answer, parse_head
from tesk.kubernetes.messages import Ended, Moved, Started
from tesk.taskmaster.observations import Observations

log = logging.getLogger(__name__)

HEAD_S: Final = 2.0
BODY_BYTES: Final = 4 * 1024 * 1024
BODY_S: Final = 10.0
CONNECTIONS: Final = 16
BACKLOG: Final = 128

_decode = msgspec.json.Decoder(Started | Ended | Moved).decode


class Connection:
    """One request. `head` is None while its sender is a stranger; `ends`: when it is closed at the latest."""

    def __init__(self, peer: socket.socket, moment: float) -> None:
        self.peer = peer
        self.head: Head | None = None
        self.ends = moment + HEAD_S
        self._data = bytearray()

    def read(self, word: bytes, moment: float) -> bytes | None:
        """Reads what there is; the body once it is whole. Raises Refused, and OSError when the sender is gone."""
        room = HEAD_BYTES if self.head is None else self.head.size
        data = self.peer.recv(min(room - len(self._data), 65536))
        if not data:
            raise ConnectionResetError
        self._data += data
        if self.head is None:
            head, end, rest = self._data.partition(HEAD_END)
            if not end and len(self._data) >= HEAD_BYTES:
                raise Refused(431)
            if not end:
                return None
            self.head = parse_head(bytes(head), partial(_check, word), BODY_BYTES)
            self._data = rest[: self.head.size]
            self.ends = moment + BODY_S
        return bytes(self._data) if len(self._data) == self.head.size else None

    def close(self, status: int = 0) -> None:
        """Ends it, with an answer if there is one. What was sent and not read is not waited for."""
        try:
            if status:
                self.peer.send(answer(status))
                self.peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # whoever asked has gone: the same is in its pod's status and log
        finally:
            self.peer.close()


class MessageListener:
    """Serves a port until it is closed. `port` 0 takes a free one, which `port` then is."""

    def __init__(self, observations: Observations, port: int, word: str) -> None:
        self._observations, self._word = observations, word.encode()
        self._socket = _bound(port)
        self.port: int = self._socket.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._accepts = True
        self._connections: dict[Connection, None] = {}
        self._wakes, self._wake = socket.socketpair()
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()
        self._socket.close()
        self._wakes.close()

    def _serve(self) -> None:
        """What has been sent is read before somebody else is let in, who may take a stranger's place."""
        while True:
            ready = [key for key, _ in self._selector.select(self._timeout_s())]
            for key in ready:
                if isinstance(key.data, Connection):
                    self._serve_one(key.data)
            if any(key.fileobj is self._wakes for key in ready):
                return
            if any(key.fileobj is self._socket for key in ready):
                self._accept()
            moment = time.monotonic()
            for connection in [each for each in self._connections if each.ends <= moment]:
                self._drop(connection, 408)
            self._accept_while_there_is_room()

    def _timeout_s(self) -> float | None:
        """Until the next connection is to be closed for its time; for ever while there is none."""
        ends = min((each.ends for each in self._connections), default=None)
        return None if ends is None else max(0.0, ends - time.monotonic())

    def _serve_one(self, connection: Connection) -> None:
        try:
            body = connection.read(self._word, time.monotonic())
            if body is not None:
                assert connection.head is not None
                self._drop(connection, self._take(connection.head.pod, body))
        except Refused as refused:
            self._drop(connection, refused.status)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
        except Exception:
            log.exception("a request could not be answered")
            self._drop(connection)

    def _take(self, pod: str, body: bytes) -> int:
        """Takes in the message of a pod that knows the word; the status of the answer."""
        try:
            message = _decode(body)
        except msgspec.MsgspecError as error:
            log.warning("pod %r told something that cannot be read: %s", pod, error)
            return 400
        return 204 if self._observations.add_message(pod, message) else 404

    def _accept(self) -> None:
        """Lets one in. Where all places are taken, the oldest stranger gives way."""
        try:
            peer, _ = self._socket.accept()
        except OSError as error:
            log.info("a connection could not be accepted: %s", error)
            return
        if len(self._connections) >= CONNECTIONS:
            oldest = next((each for each in self._connections if each.head is None), None)
            if oldest is None:
                peer.close()
                return
            self._drop(oldest)
        peer.setblocking(False)
        connection = Connection(peer, time.monotonic())
        self._connections[connection] = None
        self._selector.register(peer, selectors.EVENT_READ, connection)

    def _accept_while_there_is_room(self) -> None:
        """Leaves newcomers in the kernel's queue while only pods that know the word are being served."""
        accepts = len(self._connections) < CONNECTIONS or any(each.head is None for each in self._connections)
        if accepts != self._accepts:
            self._accepts = accepts
            if accepts:
                self._selector.register(self._socket, selectors.EVENT_READ)
            else:
                self._selector.unregister(self._socket)

    def _drop(self, connection: Connection, status: int = 0) -> None:
        del self._connections[connection]
        self._selector.unregister(connection.peer)
        connection.close(status)


def _check(word: bytes, _: str, given: bytes) -> None:
    if not hmac.compare_digest(given, word):
        raise Refused(401)


def _bound(port: int) -> socket.socket:
    """A socket that listens on all addresses, of both kinds where there are both."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    listening = socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    listening.setblocking(False)
    return listening
