"""`http:` and `https:`: GET in, PUT out, with the standard library and kept connections.

Bytes are taken as sent: no encoding is asked for and none is undone. A user and a password in the URL become Basic
authentication, for that host only. Where a server announces ranges and tells a version (ETag, or Last-Modified), large
files come in parts and cut ones go on; every part is asked for with If-Range. Directories are listed by WebDAV, else
by the server's index pages. Where a WebDAV server answers 409 (RFC 4918: no parent) or 500 (nginx, for the same), the
parents are made. HTTP has no rename that all servers know: a PUT writes to its own name.
"""

import os
import posixpath
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, urljoin

from tesk.filer import bounds, splices
from tesk.filer.attributes import from_http
from tesk.filer.checksums import verify
from tesk.filer.credentials import Credentials
from tesk.filer.errors import Changed, NotFound, TransferError
from tesk.filer.schemes import Context, Entry, Found, Kind
from tesk.filer.schemes.http.listing import from_dav, from_index
from tesk.filer.schemes.http.login import headers_from
from tesk.filer.streams import BLOCK, Sink, Source
from tesk.filer.wire import http_headers
from tesk.filer.wire.http import Response, Target, Wire, target_of

MAX_REDIRECTS: Final = 10
READ: Final = BLOCK // 4
SPLICED: Final = 2 * BLOCK
"""Bodies larger than this are worth a pipe."""
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
_PUSHED_BACK: Final = frozenset({408, 429, 503, 504, 509, 529})
_NO_PARENT: Final = frozenset({409, 500})
_NO_DAV: Final = frozenset({400, 403, 405, 501})
_GRAVE: Final = _PASSING | {401, 423}
"""Answers to MKCOL that say more than that a server has no directories."""
_DENIED: Final = frozenset({401, 403, 409})
_PROPFIND: Final = (
    b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"
)
_LASTING_MOVES: Final = frozenset({307, 308})
_MOVES: Final = _LASTING_MOVES | {301, 302, 303}

Headers = Mapping[str, str]


class HttpScheme:
    """`headers` gives what else a request for a URL has to carry, to that URL's own host only.

    A redirect takes it along only to a URL of the same host for which `headers` gives the same.
    """

    def __init__(self, context: Context, headers: Callable[[str], Headers] = lambda _: {}) -> None:
        self._wire = Wire(context.reach, context.settings.timeout_s)
        self._timeout_s = context.settings.timeout_s
        self._headers = headers
        self._listed = context.listed
        self._buffers = threading.local()
        self._no_dav: set[str] = set()

    def find(self, url: str, declared: Kind | None) -> Found:
        if declared is not Kind.DIRECTORY and (declared or "?" in url or not url.endswith("/")):
            return Found(Kind.FILE)
        target, response = self._propfind(url, "0")
        if response.status in _PASSING:
            raise self._refused(target, response)
        if response.status != 207:
            self._wire.drop(target)
            return Found(Kind.DIRECTORY)
        itself, _ = from_dav(self._text(target, response), _url(target))
        return Found(Kind.DIRECTORY if itself.is_directory else Kind.FILE, itself.size, itself.attributes)

    def entries(self, url: str) -> Iterator[Entry]:
        pending = [("", 0)]
        with self._listed.listing(target_of(url).peer) as listing:
            while pending:
                relative, depth = pending.pop()
                bounds.check_depth(depth, relative)
                for found in self._listing(self.child(url, f"{relative}/" if relative else "")):
                    below = posixpath.join(relative, found.relative)
                    listing.add(below)
                    if found.is_directory:
                        pending.append((below, depth + 1))
                    yield found._replace(relative=below)

    def _listing(self, url: str) -> list[Entry]:
        """What is directly in the directory `url`, which ends with a slash."""
        if target_of(url).peer not in self._no_dav:
            target, response = self._propfind(url, "1")
            if response.status == 207:
                return from_dav(self._text(target, response), _url(target))[1]
            if response.status in _PASSING:
                raise self._refused(target, response)
            self._wire.settle(target, response)
            if response.status in _NO_DAV:
                self._no_dav.add(target_of(url).peer)
        target, response = self._follow("GET", url)
        if response.status != 200:
            raise self._refused(target, response)
        if "html" not in (response.getheader("Content-Type") or ""):
            self._wire.drop(target)
            raise TransferError(f"{target.peer} does not list this directory", "name its files one by one")
        return from_index(self._text(target, response).decode("utf-8", "surrogateescape"), _url(target))

    def _propfind(self, url: str, depth: str) -> tuple[Target, Response]:
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        return self._follow("PROPFIND", url, headers, _PROPFIND)

    def _text(self, target: Target, response: Response) -> bytes:
        with self._wire.reading(target):
            text = response.read(bounds.MAX_PAGE_BYTES)
            if not response.isclosed() and response.read(1):
                raise TransferError(
                    f"{target.peer} answers with more than {bounds.MAX_PAGE_BYTES:,} bytes in one page",
                    "name the files",
                )
            if response.length:
                raise TransferError(f"{target.peer} ended its answer early", "check the server", passing=True)
        return text

    def child(self, url: str, relative: str) -> str:
        head, mark, query = url.partition("?")
        return f"{head.rstrip('/')}/{quote(os.fsencode(relative))}{mark}{query}"

    def fetch(self, url: str, sink: Sink) -> None:
        target, response = self._follow("GET", url)
        if response.status != 200:
            raise self._refused(target, response)
        head = response.headers
        sink.checksums = http_headers.checksums(head)
        sink.attributes = from_http(head.get("Last-Modified"), sink.attributes)
        sink.total = size = response.length
        if size and http_headers.gives_parts(head) and (version := http_headers.version(head)):
            sink.offer(size, version)
        self._receive(target, response, sink, size)

    def fetch_part(self, url: str, sink: Sink) -> None:
        if sink.is_full or sink.end is None:
            return
        wanted = (sink.position, sink.end, sink.total)
        span = {"Range": f"bytes={sink.position}-{sink.end - 1}", "If-Range": sink.version}
        target, response = self._follow("GET", url, span)
        if response.status in (200, 412, 416):
            self._wire.drop(target)
            raise Changed(f"{target.peer} has another version of the file than at first", "see that it rests meanwhile")
        if response.status != 206:
            raise self._refused(target, response)
        told = response.getheader("ETag" if sink.version.startswith('"') else "Last-Modified") or sink.version
        if http_headers.part(response.headers) != wanted or told != sink.version:
            self._wire.drop(target)
            raise Changed(f"{target.peer} gives another part of the file than was asked for", "check the server")
        self._receive(target, response, sink, wanted[1] - wanted[0])

    def _receive(self, target: Target, response: Response, sink: Sink, expected: int | None) -> None:
        """Reads a body into the sink, as far as that goes. Raises TransferError when the server sent less."""
        before = sink.size
        buffer = self._buffer()
        with self._wire.reading(target):
            if not target.secure and response.length is not None and response.length > SPLICED:
                self._splice(response, sink)
            while (room := sink.room(READ)) and (n := response.readinto(buffer[:room])):
                sink.write(buffer[:n])
        received = sink.size - before
        if sink.is_full and expected is not None and received < expected:
            self._wire.drop(target)
        elif expected is not None and received != expected:
            self._wire.drop(target)
            raise TransferError(f"{target.peer} sent {received} of {expected} bytes", "check the server", passing=True)
        else:
            self._wire.settle(target, response)

    def _splice(self, response: Response, sink: Sink) -> None:
        """Most of a body past this process; its rest, and whatever ends it early, is left to be read."""
        held = response.peek(1)
        sink.write(response.read(min(len(held), sink.room(len(held)))))
        left = response.length or 0
        response.length = left - splices.fill(response.fileno(), sink, sink.room(left) - READ, self._timeout_s)

    def _buffer(self) -> memoryview:
        known: memoryview | None = getattr(self._buffers, "block", None)
        if known is None:
            known = self._buffers.block = memoryview(bytearray(READ))
        return known

    def _follow(
        self, method: str, url: str, headers: Headers | None = None, body: Source | bytes | None = None
    ) -> tuple[Target, Response]:
        """The first answer that is no redirect, and who gave it. Credentials go to the URL's own host only."""
        target = first = target_of(url)
        own = self._headers(url)
        moves = _MOVES if method in ("GET", "PROPFIND") else _LASTING_MOVES
        for _ in range(MAX_REDIRECTS + 1):
            more = own if target is first or self._may_have(target, first, own) else {}
            response = self._wire.ask(method, target, {**(headers or {}), **more}, body)
            location = response.getheader("Location")
            if response.status not in moves or not location:
                return target, response
            public = target.from_public or self._wire.is_public(target)
            self._wire.settle(target, response)
            target = target_of(urljoin(_url(target), location))._replace(from_public=public)
            if target.peer == first.peer:
                target = target._replace(authorization=target.authorization or first.authorization)
            if isinstance(body, Source):
                body.restart()
        raise TransferError(f"{first.peer} redirects more than {MAX_REDIRECTS} times", "check the URL")

    def _may_have(self, target: Target, first: Target, own: Headers) -> bool:
        """Whether a redirect from `first` to `target` takes along what lets the first request in."""
        return bool(own) and target.peer == first.peer and self._headers(_url(target)) == own

    def push(self, source: Source, url: str) -> None:
        target, response = self._follow("PUT", url, None, source)
        if response.status in _NO_PARENT:
            self._wire.settle(target, response)
            self._make_parents(target, url, needed=response.status == 409)
            source.restart()
            target, response = self._follow("PUT", url, None, source)
        if not 200 <= response.status < 300:
            raise self._refused(target, response)
        self._wire.settle(target, response)
        if response.getheader("x-goog-hash") or response.getheader("x-amz-checksum-crc32"):
            verify(source.fd, source.size, http_headers.checksums(response.headers), f"the bytes at {target.peer}")

    def _make_parents(self, target: Target, url: str, *, needed: bool) -> None:
        """Makes what lies above `target`, of which only the nearest is sure to be the user's to make.

        Raises TransferError where a server has to be asked again, or where it denies what is `needed`.
        """
        own = self._headers(url) if target.peer == target_of(url).peer else {}
        parts = posixpath.dirname(target.path.partition("?")[0]).split("/")
        for n in range(2, len(parts) + 1):
            parent = target._replace(path="/".join(parts[:n]) + "/")
            response = self._wire.ask("MKCOL", parent, own)
            grave = _PASSING - _NO_PARENT
            if n == len(parts):
                grave = _PASSING | _DENIED if needed else _PASSING
            if response.status in grave:
                raise self._refused(parent, response)
            self._wire.settle(parent, response)

    def make_directory(self, url: str) -> None:
        """MKCOL: what is there already (405) is fine, and so is a server that knows no directories."""
        path, mark, query = url.partition("?")
        whole = f"{path.rstrip('/')}/{mark}{query}"
        if target_of(whole).peer in self._no_dav:
            return
        target, response = self._follow("MKCOL", whole)
        if response.status in _NO_PARENT:
            self._wire.settle(target, response)
            self._make_parents(target, whole, needed=True)
            return
        if response.status == 501:
            self._no_dav.add(target_of(whole).peer)
        elif response.status in _GRAVE or 300 <= response.status < 400:
            raise self._refused(target, response)
        self._wire.settle(target, response)

    def close(self) -> None:
        self._wire.close()

    def _refused(self, target: Target, response: Response) -> TransferError:
        status, phrase = response.status, (response.reason or "").strip().lower()
        self._wire.drop(target)
        if status in (401, 403):
            return TransferError(f"access denied ({status}) by {target.peer}", "check the credentials for this URL")
        if status in (404, 410):
            return NotFound(f"not found ({status}) by {target.peer}", "check the URL")
        return TransferError(
            f"{phrase or 'refused'} ({status}) by {target.peer}",
            "check the server" if status >= 500 else "check the URL",
            passing=status in _PASSING,
            retry_after_s=http_headers.wait_s(response.headers, time.time()),
            pushed_back=status in _PUSHED_BACK,
        )


def _url(target: Target) -> str:
    return f"{target.peer}{target.path}"


def open_scheme(context: Context) -> HttpScheme:
    return HttpScheme(context, headers_from(Credentials(context.settings.credentials)))
