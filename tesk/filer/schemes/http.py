"""`http:` and `https:`: GET in, PUT out, with the standard library and kept connections.

Bytes are taken as sent: no encoding is asked for and none is undone. A user and a password in the URL become Basic
authentication, for that host only. Where a WebDAV server answers 409 (RFC 4918: no parent) or 500 (nginx, for the
same), the parents are made.
"""

import base64
import contextlib
import http.client
import os
import posixpath
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from tesk.filer.errors import NotFound, TransferError
from tesk.filer.schemes import Context, Entry, Kind
from tesk.filer.schemes.sockets import from_socket, hang_up
from tesk.filer.streams import BLOCK, Sink, Source

MAX_REDIRECTS: Final = 10
_SEND_STEP: Final = 4 * BLOCK
_LEGAL: Final = "!#$%&'()*+,-./:;=?@[]_~"
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
_NO_PARENT: Final = frozenset({409, 500})
_BROKEN: Final = (OSError, http.client.HTTPException)


class Target(NamedTuple):
    """Where a request goes: `peer` is scheme://host:port without credentials."""

    secure: bool
    host: str
    port: int
    path: str
    authorization: str

    @property
    def peer(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.secure else 80
        return f"http{'s' * self.secure}://{host}" + (f":{self.port}" if self.port != usual else "")


def target_of(url: str) -> Target:
    """Where `url` points. Characters that no URL may hold are percent-encoded. Raises TransferError."""
    try:
        parts = urlsplit(url.replace("\n", "%0A").replace("\r", "%0D").replace("\t", "%09"))
        secure = parts.scheme.lower() == "https"
        port = parts.port or (443 if secure else 80)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise TransferError(f"not a URL ({error})", "check the URL") from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise TransferError("not an http or https URL with a host", "check the URL")
    path = quote(parts.path or "/", safe=_LEGAL) + (f"?{quote(parts.query, safe=_LEGAL)}" if parts.query else "")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Target(secure, host, port, path, authorization)


class _Lines:
    """A response's stream that remembers its last line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._stream.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class WholeHeadResponse(http.client.HTTPResponse):
    """A response whose head ended with an empty line: http.client takes one that was cut for complete."""

    fp: Any

    def begin(self) -> None:
        stream = self.fp
        self.fp = lines = _Lines(stream)
        super().begin()
        if self.fp is lines:
            self.fp = stream
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.BadStatusLine("the head of the answer was cut")


class HttpScheme:
    """Connections kept by thread and peer."""

    def __init__(self, context: Context) -> None:
        self._timeout_s = context.settings.timeout_s
        self._mine = threading.local()
        self._all: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def find(self, url: str, declared: Kind | None) -> tuple[Kind, int | None]:
        if declared is Kind.DIRECTORY:
            raise TransferError(
                "a directory cannot be listed over http", "name its files one by one, or use s3, ftp or a folder"
            )
        return Kind.FILE, None

    def entries(self, url: str) -> Iterator[Entry]:
        raise TransferError("a directory cannot be listed over http", "name its files one by one")

    def child(self, url: str, relative: str) -> str:
        head, mark, query = url.partition("?")
        return f"{head.rstrip('/')}/{quote(os.fsencode(relative))}{mark}{query}"

    def fetch(self, url: str, sink: Sink) -> None:
        target, response = self._get(url)
        expected = response.length
        buffer = memoryview(bytearray(BLOCK))
        with self._reading(target):
            while n := response.readinto(buffer):
                sink.write(buffer[:n])
        if expected is not None and sink.size != expected:
            self._drop(target)
            raise TransferError(f"{target.peer} sent {sink.size} of {expected} bytes", "check the server", passing=True)
        self._settle(target, response)

    def _get(self, url: str) -> tuple[Target, http.client.HTTPResponse]:
        """The response to a GET, 200, after redirects."""
        target = first = target_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._ask("GET", target)
            location = response.getheader("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                break
            self._settle(target, response)
            target = target_of(urljoin(f"{target.peer}{target.path}", location))
            if target.peer == first.peer:
                target = target._replace(authorization=target.authorization or first.authorization)
        else:
            raise TransferError(f"{first.peer} redirects more than {MAX_REDIRECTS} times", "check the URL")
        if response.status != 200:
            raise self._refused(target, response)
        return target, response

    def push(self, source: Source, url: str) -> None:
        made = False
        redirects = 0
        target = target_of(url)
        while True:
            response = self._ask("PUT", target, source)
            location = response.getheader("Location")
            if response.status in (307, 308) and location and redirects < MAX_REDIRECTS:
                redirects += 1
                self._settle(target, response)
                target = target_of(urljoin(f"{target.peer}{target.path}", location))
            elif response.status in _NO_PARENT and not made:
                made = True
                self._settle(target, response)
                self._make_parents(target)
            elif 200 <= response.status < 300:
                self._settle(target, response)
                return
            else:
                raise self._refused(target, response)
            source.restart()

    def _make_parents(self, target: Target) -> None:
        parts = posixpath.dirname(target.path.partition("?")[0]).split("/")
        for n in range(2, len(parts) + 1):
            response = self._ask("MKCOL", target._replace(path="/".join(parts[:n]) + "/"))
            self._settle(target, response)

    def make_directory(self, url: str) -> None:
        """Plain HTTP has no directories."""

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                hang_up(connection.sock)

    def _ask(self, method: str, target: Target, source: Source | None = None) -> http.client.HTTPResponse:
        """One request; once more on a fresh connection when a kept one proves dead."""
        connection, kept = self._connection(target)
        with self._reading(target):
            try:
                return self._exchange(connection, method, target, source)
            except ConnectionError:
                if not kept:
                    raise
            self._drop(target)
            if source is not None:
                source.restart()
            connection, _ = self._connection(target)
            return self._exchange(connection, method, target, source)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, target: Target, source: Source | None
    ) -> http.client.HTTPResponse:
        connection.putrequest(method, target.path, skip_accept_encoding=True)
        connection.putheader("Accept-Encoding", "identity")
        connection.putheader("User-Agent", "tesk")
        if target.authorization:
            connection.putheader("Authorization", target.authorization)
        if source is not None:
            connection.putheader("Content-Length", str(source.size))
            connection.putheader("Content-Type", "application/octet-stream")
        elif method != "GET":
            connection.putheader("Content-Length", "0")
        connection.endheaders()
        if source is None:
            return connection.getresponse()
        try:
            _send(connection, source)
        except (BrokenPipeError, ConnectionResetError) as error:
            # A server that refuses a body answers first and closes then: the answer says more than the broken pipe.
            try:
                return connection.getresponse()
            except _BROKEN:
                raise error from None
        return connection.getresponse()

    def _connection(self, target: Target) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection to the peer, and whether it was used before."""
        mine: dict[str, http.client.HTTPConnection] = self._mine.__dict__
        known = mine.get(target.peer)
        if known is not None and known.sock is not None:
            return known, True
        made: http.client.HTTPConnection
        if target.secure:
            made = http.client.HTTPSConnection(target.host, target.port, timeout=self._timeout_s)
        else:
            made = http.client.HTTPConnection(target.host, target.port, timeout=self._timeout_s)
        made.response_class = WholeHeadResponse
        mine[target.peer] = made
        with self._lock:
            self._all.add(made)
        return made, False

    def _drop(self, target: Target) -> None:
        known = self._mine.__dict__.pop(target.peer, None)
        if known is not None:
            known.close()
            with self._lock:
                self._all.discard(known)

    @contextlib.contextmanager
    def _reading(self, target: Target) -> Iterator[None]:
        """Turns what breaks a connection into a TransferError; a connection left in the middle is dropped."""
        try:
            yield
        except http.client.IncompleteRead as error:
            self._drop(target)
            raise TransferError(f"{target.peer} ended the file early", "check the server", passing=True) from error
        except http.client.HTTPException as error:
            self._drop(target)
            what = str(error).strip() or type(error).__name__
            raise TransferError(
                f"{target.peer} does not answer as HTTP ({what})", "check the URL", passing=True
            ) from error
        except OSError as error:
            self._drop(target)
            raise from_socket(error, target.peer, self._timeout_s) from error
        except BaseException:
            self._drop(target)
            raise

    def _settle(self, target: Target, response: http.client.HTTPResponse) -> None:
        """Reads what little is left of a response so that its connection can be used again, else drops it."""
        try:
            if response.isclosed() or (len(response.read(BLOCK)) < BLOCK and response.isclosed()):
                return
        except _BROKEN:
            pass
        self._drop(target)

    def _refused(self, target: Target, response: http.client.HTTPResponse) -> TransferError:
        status, phrase = response.status, (response.reason or "").strip().lower()
        asked = response.getheader("Retry-After") or ""
        self._drop(target)
        if status in (401, 403):
            return TransferError(f"access denied ({status}) by {target.peer}", "check the credentials for this URL")
        if status in (404, 410):
            return NotFound(f"not found ({status}) by {target.peer}", "check the URL")
        retry_after_s = float(asked) if asked.isascii() and asked.isdigit() else 0
        advice = "check the server" if status >= 500 else "check the URL"
        answer = f"{phrase or 'refused'} ({status}) by {target.peer}"
        return TransferError(answer, advice, passing=status in _PASSING, retry_after_s=retry_after_s)


def _send(connection: http.client.HTTPConnection, source: Source) -> None:
    sock = connection.sock
    if isinstance(connection, http.client.HTTPSConnection):
        while data := source.read(BLOCK // 4):
            sock.sendall(data)
        return
    with os.fdopen(source.fd, "rb", buffering=0, closefd=False) as file:
        while left := source.size - source.position:
            sent = sock.sendfile(file, source.position, min(left, _SEND_STEP))
            if not sent:
                raise TransferError("the file became shorter while it was read", "check what still writes to it")
            source.advance(sent)


def open_scheme(context: Context) -> HttpScheme:
    return HttpScheme(context)
