"""HTTP connections: opened within `Reach`, kept for each thread and peer. Every failure becomes a TransferError."""

import base64
import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from tesk.filer import bounds
from tesk.filer.errors import NO_HOST, TransferError
from tesk.filer.reach import Reach, is_public
from tesk.filer.streams import BLOCK, Source
from tesk.filer.wire.sockets import from_socket, hang_up, peer_of, send_file

Response = http.client.HTTPResponse
_LONGEST_LINE: Final = 65536
_LEGAL: Final = "!#$%&'()*+,-./:;=?@[]_~"
_BROKEN: Final = (OSError, http.client.HTTPException)


class HttpTarget(NamedTuple):
    """Where a request goes: `peer` is scheme://host:port without credentials."""

    secure: bool
    host: str
    port: int
    path: str
    authorization: str
    from_public: bool = False

    @property
    def peer(self) -> str:
        return peer_of(f"http{'s' * self.secure}", self.host, self.port)


def target_of(url: str) -> HttpTarget:
    """Where `url` points. Characters that no URL may hold are percent-encoded. Raises TransferError."""
    try:
        parts = urlsplit(url.replace("\n", "%0A").replace("\r", "%0D").replace("\t", "%09"))
        secure = parts.scheme.lower() == "https"
        port = parts.port or (443 if secure else 80)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:
        raise TransferError("not a URL: its host or port cannot be read", NO_HOST) from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise TransferError("not an http or https URL with a host", "check the URL")
    path = quote(parts.path or "/", safe=_LEGAL) + (f"?{quote(parts.query, safe=_LEGAL)}" if parts.query else "")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return HttpTarget(secure, host, port, path, authorization)


class _HeadLines:
    """A response's stream that remembers its last line, and ends a head that has no end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._size = 0
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._stream.readline(limit)
        self._size += len(self.last)
        if self._size > bounds.MAX_HEAD_BYTES:
            raise TransferError(
                f"the server's answer has more than {bounds.MAX_HEAD_BYTES:,} bytes of headers", "check the server"
            )
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class WholeHeadResponse(http.client.HTTPResponse):
    """A response whose head ended with an empty line: http.client takes one that was cut for complete.

    The answers before it (100 Continue) count as its head, and the lines behind its last chunk are counted: of either,
    http.client reads as many as there are.
    """

    fp: Any

    def begin(self) -> None:
        stream = self.fp
        self.fp = lines = _HeadLines(stream)
        super().begin()
        if self.fp is lines:
            self.fp = stream
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.BadStatusLine("the head of the answer was cut")

    def _read_and_discard_trailer(self) -> None:
        for _ in range(bounds.MAX_TRAILER_LINES + 1):
            line = self.fp.readline(_LONGEST_LINE + 1)
            if len(line) > _LONGEST_LINE:
                raise http.client.LineTooLong("trailer line")
            if line in (b"\r\n", b"\n", b""):
                return
        raise TransferError(
            f"the server sends more than {bounds.MAX_TRAILER_LINES} lines behind the end of its answer",
            "check the server",
        )


class _PlainConnection(http.client.HTTPConnection):
    response_class = WholeHeadResponse
    is_public = False
    dial: Callable[[], socket.socket]

    def connect(self) -> None:
        self.sock = self.dial()
        self.is_public = is_public(self.sock)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _SecureConnection(_PlainConnection, http.client.HTTPSConnection):
    _context: Any

    def connect(self) -> None:
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


class Wire:
    """Connections kept by thread and peer."""

    def __init__(self, reach: Reach, timeout_s: float) -> None:
        self._reach = reach
        self._timeout_s = timeout_s
        self._mine = threading.local()
        self._all: set[_PlainConnection] = set()
        self._lock = threading.Lock()

    def ask(
        self, method: str, target: HttpTarget, headers: Mapping[str, str], body: Source | bytes | None = None
    ) -> Response:
        """Sends one request. If a kept connection turns out to be dead, sends the request again on a new one."""
        connection, kept = self._connection(target)
        with self.reading(target):
            try:
                return _exchange(connection, method, target, headers, body)
            except ConnectionError:
                if not kept:
                    raise
            self.drop(target)
            if isinstance(body, Source):
                body.restart()
            connection, _ = self._connection(target)
            return _exchange(connection, method, target, headers, body)

    def is_public(self, target: HttpTarget) -> bool:
        """Whether this thread's connection to the peer leads to the public Internet."""
        known = self._kept().get((target.peer, target.from_public))
        return known is not None and known.is_public

    def _kept(self) -> dict[tuple[str, bool], _PlainConnection]:
        mine: dict[tuple[str, bool], _PlainConnection] | None = getattr(self._mine, "kept", None)
        if mine is None:
            mine = self._mine.kept = {}
        return mine

    def _connection(self, target: HttpTarget) -> tuple[_PlainConnection, bool]:
        """This thread's connection to the peer, and whether it was used before."""
        mine = self._kept()
        key = target.peer, target.from_public
        known = mine.get(key)
        if known is not None and known.sock is not None:
            return known, True
        made: _PlainConnection = (_SecureConnection if target.secure else _PlainConnection)(
            target.host, target.port, timeout=self._timeout_s
        )
        made.dial = lambda: self._reach.connect(
            target.host, target.port, self._timeout_s, from_public=target.from_public
        )
        mine[key] = made
        with self._lock:
            self._all.add(made)
        return made, False

    def drop(self, target: HttpTarget) -> None:
        known = self._kept().pop((target.peer, target.from_public), None)
        if known is not None:
            known.close()
            with self._lock:
                self._all.discard(known)

    @contextlib.contextmanager
    def reading(self, target: HttpTarget) -> Iterator[None]:
        """Turns what breaks a connection into a TransferError; a connection left in the middle is dropped."""
        try:
            yield
        except http.client.IncompleteRead as error:
            self.drop(target)
            raise TransferError(f"{target.peer} ended the file early", "check the server", passing=True) from error
        except http.client.HTTPException as error:
            self.drop(target)
            what = str(error).strip() or type(error).__name__
            raise TransferError(
                f"{target.peer} does not answer as HTTP ({what})", "check the URL", passing=True
            ) from error
        except OSError as error:
            self.drop(target)
            raise from_socket(error, target.peer, self._timeout_s) from error
        except BaseException:
            self.drop(target)
            raise

    def settle(self, target: HttpTarget, response: Response) -> None:
        """Reads what little is left of a response so that its connection can be used again, else drops it."""
        try:
            if response.isclosed() or (len(response.read(BLOCK)) < BLOCK and response.isclosed()):
                return
        except _BROKEN:
            pass
        self.drop(target)

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                hang_up(connection.sock)


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: HttpTarget,
    headers: Mapping[str, str],
    body: Source | bytes | None,
) -> Response:
    connection.putrequest(method, target.path, skip_accept_encoding=True)
    connection.putheader("Accept-Encoding", "identity")
    connection.putheader("User-Agent", "tesk")
    for name, value in headers.items():
        connection.putheader(name, value)
    if target.authorization and "Authorization" not in headers:
        connection.putheader("Authorization", target.authorization)
    if isinstance(body, Source):
        connection.putheader("Content-Length", str(body.size))
        connection.putheader("Content-Type", "application/octet-stream")
    elif method not in ("GET", "HEAD"):
        connection.putheader("Content-Length", str(len(body or b"")))
    if not isinstance(body, Source):
        connection.endheaders(body)
        return connection.getresponse()
    connection.endheaders()
    try:
        send_file(connection.sock, body)
    except (BrokenPipeError, ConnectionResetError) as error:
        # A server that refuses a body answers first and closes then: the answer says more than the broken pipe.
        try:
            return connection.getresponse()
        except _BROKEN:
            raise error from None
    return connection.getresponse()
