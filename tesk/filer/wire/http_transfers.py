"""Transfers over HTTP that the web and the object stores share: requests, redirects, GET in parts, errors.

Bytes are taken as sent: no encoding is asked for and none is undone. A user and a password in the URL become Basic
authentication, for that host only. Where a server announces ranges and tells a version (ETag, or Last-Modified), large
files come in parts and cut ones go on; every part is asked for with If-Range.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote, urljoin

from msgspec.structs import replace

from tesk.filer import bounds, splices
from tesk.filer.access import judge
from tesk.filer.attributes import from_http
from tesk.filer.errors import Changed, NotFound, TransferError
from tesk.filer.scheme import Context
from tesk.filer.streams import BLOCK, Sink, Source
from tesk.filer.wire import http_headers
from tesk.filer.wire.http import HttpTarget, Response, Wire, target_of

MAX_REDIRECTS: Final = 10
READ: Final = BLOCK // 4
SPLICED: Final = 2 * BLOCK
"""Bodies larger than this are worth a pipe."""
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
_PUSHED_BACK: Final = frozenset({408, 429, 503, 504, 509, 529})
_LASTING_MOVES: Final = frozenset({307, 308})
_MOVES: Final = _LASTING_MOVES | {301, 302, 303}
Headers = Mapping[str, str]


class HttpTransfers:
    """`headers` gives what else a request for a URL has to carry, to that URL's own host only.

    A redirect takes it along only to a URL of the same host for which `headers` gives the same.
    """

    def __init__(self, context: Context, headers: Callable[[str], Headers] = lambda _: {}) -> None:
        self._wire = Wire(context.reach, context.settings.timeout_s)
        self._timeout_s = context.settings.timeout_s
        self._headers = headers
        self._listings = context.listings
        self._judge = judge(replace(context.settings.access, unlisted=True))
        self._buffers = threading.local()

    def _text(self, target: HttpTarget, response: Response) -> bytes:
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

    def _receive(self, target: HttpTarget, response: Response, sink: Sink, expected: int | None) -> None:
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
        """Moves most of a body within the kernel. The rest, and any early end, is left for the caller to read."""
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
    ) -> tuple[HttpTarget, Response]:
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
            target = target_of(urljoin(url_of(target), location))._replace(from_public=public)
            if refusal := self._judge.decide(url_of(target)).refusal:
                raise TransferError(f"{first.peer} redirects to a URL that may not be used: {refusal}", tries=0)
            if target.peer == first.peer:
                target = target._replace(authorization=target.authorization or first.authorization)
            if isinstance(body, Source):
                body.restart()
        raise TransferError(f"{first.peer} redirects more than {MAX_REDIRECTS} times", "check the URL")

    def _may_have(self, target: HttpTarget, first: HttpTarget, own: Headers) -> bool:
        """Whether a redirect from `first` to `target` takes along what lets the first request in."""
        return bool(own) and target.peer == first.peer and self._headers(url_of(target)) == own

    def close(self) -> None:
        self._wire.close()

    def _refused(self, target: HttpTarget, response: Response) -> TransferError:
        status, phrase = response.status, (response.reason or "").strip().lower()
        self._wire.drop(target)
        if status in (401, 403):
            return TransferError(f"access denied ({status}) by {target.peer}", "check the credentials for this URL")
        if status in (404, 410):
            return NotFound(f"not found ({status}) by {target.peer}", "check the URL")
        return TransferError(
            f"{phrase or 'refused'} ({status}) by {target.peer}",
            "check the server" if status >= 500 else "check the URL",
            passing=status in PASSING,
            retry_after_s=http_headers.wait_s(response.headers, time.time()),
            pushed_back=status in _PUSHED_BACK,
        )


def url_of(target: HttpTarget) -> str:
    return f"{target.peer}{target.path}"
