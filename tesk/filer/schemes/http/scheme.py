"""`http:` and `https:`: GET in, PUT out, directories by WebDAV, else by the server's index pages.

Where a WebDAV server answers 409 (RFC 4918: no parent) or 500 (nginx, for the same), the parents are made. HTTP has no
rename that all servers know: a PUT writes to its own name.
"""

import posixpath
from collections.abc import Iterator
from typing import Final

from tesk.filer import bounds
from tesk.filer.checksums import verify
from tesk.filer.credentials import Credentials
from tesk.filer.errors import TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.http.listing import from_dav, from_index
from tesk.filer.streams import Source
from tesk.filer.wire import http_headers
from tesk.filer.wire.http import HttpTarget, Response, target_of
from tesk.filer.wire.http_login import headers_from
from tesk.filer.wire.http_transfers import PASSING, HttpTransfers, url_of

_NO_PARENT: Final = frozenset({409, 500})
_NO_DAV: Final = frozenset({400, 403, 405, 501})
_GRAVE: Final = PASSING | {401, 423}
"""Answers to MKCOL that say more than that a server has no directories."""
_DENIED: Final = frozenset({401, 403, 409})
_PROPFIND: Final = (
    b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"
)


class HttpScheme(HttpTransfers):
    """GET and PUT, and directories where the server knows such."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, headers_from(Credentials(context.settings.credentials)))
        self._no_dav: set[str] = set()

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        if declared is not Kind.DIRECTORY and (declared or "?" in url or not url.endswith("/")):
            return FileInfo(Kind.FILE)
        target, response = self._propfind(url, "0")
        if response.status in PASSING:
            raise self._refused(target, response)
        if response.status != 207:
            self._wire.drop(target)
            return FileInfo(Kind.DIRECTORY)
        itself, _ = from_dav(self._text(target, response), url_of(target))
        return FileInfo(Kind.DIRECTORY if itself.is_directory else Kind.FILE, itself.size, itself.attributes)

    def entries(self, url: str) -> Iterator[Entry]:
        pending = [("", 0)]
        with self._listings.listing(target_of(url).peer) as listing:
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
                return from_dav(self._text(target, response), url_of(target))[1]
            if response.status in PASSING:
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
        return from_index(self._text(target, response).decode("utf-8", "surrogateescape"), url_of(target))

    def _propfind(self, url: str, depth: str) -> tuple[HttpTarget, Response]:
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        return self._follow("PROPFIND", url, headers, _PROPFIND)

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

    def _make_parents(self, target: HttpTarget, url: str, *, needed: bool) -> None:
        """Makes what lies above `target`, of which only the nearest is sure to be the user's to make.

        Raises TransferError where a server has to be asked again, or where it denies what is `needed`.
        """
        own = self._headers(url) if target.peer == target_of(url).peer else {}
        parts = posixpath.dirname(target.path.partition("?")[0]).split("/")
        for n in range(2, len(parts) + 1):
            parent = target._replace(path="/".join(parts[:n]) + "/")
            response = self._wire.ask("MKCOL", parent, own)
            grave = PASSING - _NO_PARENT
            if n == len(parts):
                grave = PASSING | _DENIED if needed else PASSING
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


open_scheme = HttpScheme
