"""`drs:`, GA4GH's Data Repository Service 1.x: an object is fetched by the first of its access methods that works.

A URL is `drs://host/id`, asked for at `https://host/ga4gh/drs/v1/objects/id`. What the server says of an object's size
and checksums is compared with what arrives, whichever store it comes from. A bundle is a directory.
"""

import base64
import contextlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from tesk import schemes
from tesk.filer import bounds
from tesk.filer.attributes import Attributes, from_iso
from tesk.filer.bounds import Listing
from tesk.filer.checksums import HASHES, Checksum
from tesk.filer.credentials import Credentials
from tesk.filer.errors import Changed, NotFound, Stopped, TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind, Ranged, Scheme, Schemes
from tesk.filer.streams import Sink, Source
from tesk.filer.wire.http_login import headers_from
from tesk.filer.wire.http_transfers import Headers, HttpTransfers
from tesk.filer.wire.objects import document

ASKED_AT_ONCE: Final = 8
_HASHES: Final = {"sha": "sha1", "sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}

Document = Mapping[str, Any]
AccessMethod = tuple[Scheme | HttpTransfers, str, Headers]
"""Who fetches an object, its URL there, and the headers that the DRS server wants sent."""


def split(url: str) -> tuple[str, str]:
    """The server and the object of a DRS URL. Raises TransferError."""
    server, slash, name = url.partition("://")[2].partition("/")
    host, colon, port = server.partition(":")
    if colon and (not slash or not port.isdigit()):
        raise TransferError("compact DRS identifiers are not resolved", "write drs://HOST/ID")
    if not host or not name or "@" in server:
        raise TransferError("not a DRS URL", "a DRS URL is drs://HOST/ID")
    return server, unquote(name)


class Bundle(NamedTuple):
    """A bundle while it is being listed: its URL, the entries so far, the counter, and the threads that ask."""

    url: str
    found: list[Entry]
    listing: Listing
    threads: ThreadPoolExecutor


class DrsScheme(HttpTransfers):
    """Asks DRS servers over HTTP. Objects whose access URL needs headers are fetched over HTTP with these."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, lambda _: self._asking.headers)
        self._asking = threading.local()
        self._credentials = Credentials(context.settings.credentials)
        self._let_in = headers_from(self._credentials)
        self._stores = Schemes(context)
        outside = context._replace(reach=context.reach.from_public())
        self._outside = Schemes(outside)
        self._outside_http = HttpTransfers(outside, lambda _: self._asking.headers)
        self._public: set[str] = set()
        self._documents: dict[str, Document] = {}
        self._kept_bytes = 0
        self._keeping = threading.Lock()
        self._chosen: dict[str, AccessMethod] = {}
        self._below: dict[tuple[str, str], str] = {}

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        document = self._document(url)
        if is_bundle(document):
            return FileInfo(Kind.DIRECTORY, None, _changed(document))
        return FileInfo(Kind.FILE, _size(document))

    def entries(self, url: str) -> Iterator[Entry]:
        found: list[Entry] = []
        with (
            self._listings.listing(f"the bundle {split(url)[1][:200]!r}", bounds.MAX_BUNDLE_ENTRIES) as listing,
            ThreadPoolExecutor(ASKED_AT_ONCE, "drs") as threads,
        ):
            self._walk(Bundle(url, found, listing, threads), "", self._document(url), 0)
        yield from found

    def _walk(self, whole: "Bundle", above: str, bundle: Document, depth: int) -> None:
        """Adds the contents of a bundle, at any depth. An object that two bundles name counts twice."""
        bounds.check_depth(depth, above)
        items = _dicts(bundle.get("contents"))
        for item in items:
            whole.listing.add(f"{above}/{item.get('name')}")
        urls = [self._item_url(whole.url, item) for item in items]
        asked = list(dict.fromkeys(url for item, url in zip(items, urls, strict=True) if "contents" not in item))
        documents = dict(zip(asked, whole.threads.map(self._document, asked), strict=True))
        for item, url in zip(items, urls, strict=True):
            name = str(item.get("name") or "")
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise TransferError(f"the bundle lists {name[:200]!r}, which is no name of a file", "check the bundle")
            path = f"{above}/{name}".lstrip("/")
            document = item if "contents" in item else documents[url]
            if is_bundle(document):
                whole.found.append(Entry(path, True, None, _changed(document)))
                self._walk(whole, path, document, depth + 1)
            else:
                whole.found.append(Entry(path, False, _size(document)))
                self._below[whole.url, path] = url

    def _item_url(self, top: str, item: Document) -> str:
        """The object of the same server where it has an id, else its first DRS URL."""
        if name := item.get("id"):
            return f"drs://{split(top)[0]}/{quote(str(name), safe='')}"
        uris = item.get("drs_uri")
        first = uris[0] if isinstance(uris, list) and uris else uris
        if not isinstance(first, str) or not first.startswith("drs://"):
            raise TransferError(f"the bundle's {item.get('name')!r} has no id", "check the bundle")
        return first

    def child(self, url: str, relative: str) -> str:
        return self._below.get((url, relative)) or f"{url.rstrip('/')}/{quote(relative)}"

    def _ask(self, url: str, path: str) -> tuple[Document, int]:
        """What the DRS server of `url` answers, and the length of the answer.

        Raises TransferError, also where the server is still preparing the answer (202).
        """
        server, name = split(url)
        table = self._credentials.of(url)
        base = table.values.get("endpoint", "").rstrip("/") or f"https://{server}"
        self._asking.headers = self._let_in(url)
        target, response = self._follow("GET", f"{base}/ga4gh/drs/v1/objects/{quote(name, safe='')}{path}")
        if target.from_public or self._wire.is_public(target):
            self._public.add(server)
        if response.status != 200:
            failure = self._refused(target, response)
            if response.status == 202:
                failure = TransferError(
                    f"{target.peer} is still preparing it (202)",
                    "try later",
                    passing=True,
                    retry_after_s=failure.retry_after_s,
                )
            raise failure
        text = self._text(target, response)
        try:
            found = document(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise TransferError(f"{target.peer} does not answer as a DRS server", "check the URL")
        return found, len(text)

    def _document(self, url: str) -> Document:
        """The document of an object. Documents are kept while there is room, then asked for again."""
        known = self._documents.get(url)
        if known is None:
            known, size = self._ask(url, "?expand=true")
            with self._keeping:
                if self._kept_bytes + size > bounds.MAX_DOCUMENTS_BYTES:
                    self._documents.clear()
                    self._kept_bytes = 0
                self._documents[url] = known
                self._kept_bytes += size
        return known

    def _accesses(self, url: str, document: Document) -> Iterator[AccessMethod]:
        """Scheme, URL and headers of each access method that can be used, in the server's order.

        Raises TransferError at the end where one of them was not open to the task.
        """
        refused: TransferError | None = None
        for method in _dicts(document.get("access_methods")):
            found: object = method.get("access_url")
            if not found and method.get("type") in schemes.ACCESS_METHODS and method.get("access_id"):
                found, _ = self._ask(url, f"/access/{quote(str(method['access_id']), safe='')}")
            if not isinstance(found, dict):
                continue
            where = str(found.get("url") or "")
            store = schemes.ACCESS_METHODS.get(schemes.name_of(where))
            if store is None:
                continue
            headers = dict(_headers(found.get("headers") or []))
            # A public server names no host of private addresses.
            is_outside = split(url)[0] in self._public and not store.bucket
            try:
                scheme: Scheme | HttpTransfers = (self._outside if is_outside else self._stores).of(where)
            except TransferError as error:
                refused = error
                continue
            if headers:
                scheme = self._outside_http if is_outside else self
            yield scheme, where, headers
        if refused is not None:
            raise refused

    def fetch(self, url: str, sink: Sink) -> None:
        document = self._document(url)
        if is_bundle(document):
            raise TransferError("is a bundle, not an object", "declare it as a DIRECTORY")
        failure: TransferError = NotFound(
            "the DRS server offers no access method that tesk has",
            f"one of {', '.join(schemes.ACCESS_METHODS)} is needed",
        )
        for access in self._accesses(url, document):
            self._chosen[url] = access
            try:
                self._fetch(access, sink, document)
                return
            except (Stopped, Changed):
                raise
            except TransferError as error:
                if error.passing:
                    raise
                failure = error
                sink.restart()
                sink.end, sink.total, sink.version = None, None, ""
        raise failure

    def _fetch(self, access: AccessMethod, sink: Sink, document: Document) -> None:
        scheme, where, headers = access
        self._asking.headers = headers
        try:
            if scheme is self:
                super().fetch(where, sink)
            else:
                scheme.fetch(where, sink)
        finally:
            if known := [checksum for checksum in checksums(document) if checksum.algorithm in HASHES]:
                sink.checksums, sink.doubt = known, lambda: None
        if sink.attributes.modified_ns is None:
            sink.attributes = sink.attributes._replace(modified_ns=_changed(document).modified_ns)
        size = _size(document)
        told = sink.total if sink.total is not None else sink.size
        if size is not None and told != size:
            raise TransferError(f"the store has {told} bytes, the DRS server says {size}", "check the object")

    def fetch_part(self, url: str, sink: Sink) -> None:
        if url not in self._chosen:
            raise Changed("it is not known any more where its first part came from", "try again")
        scheme, where, headers = self._chosen[url]
        self._asking.headers = headers
        if scheme is self:
            super().fetch_part(where, sink)
        elif isinstance(scheme, Ranged):
            scheme.fetch_part(where, sink)

    def push(self, source: Source, url: str) -> None:
        raise TransferError("DRS is for reading only", "use the URL of a store")

    def make_directory(self, url: str) -> None:
        raise TransferError("DRS is for reading only", "use the URL of a store")

    def close(self) -> None:
        super().close()
        for each in (self._stores, self._outside, self._outside_http):
            each.close()


def is_bundle(document: Document) -> bool:
    return bool(document.get("contents")) or ("contents" in document and not document.get("access_methods"))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _size(document: Document) -> int | None:
    size = document.get("size")
    return size if isinstance(size, int) and size >= 0 else None


def _changed(document: Document) -> Attributes:
    return from_iso(str(document.get("updated_time")), from_iso(str(document.get("created_time"))))


def _headers(lines: object) -> Iterator[tuple[str, str]]:
    """The headers of an access URL, written as `Name: value`. Raises TransferError for what would be two."""
    for line in lines if isinstance(lines, list) else []:
        name, colon, value = str(line).partition(":")
        if not colon or any(c in str(line) for c in "\r\n\0"):
            raise TransferError("the DRS server wants a header that is none", "check the object")
        yield name.strip(), value.strip()


def checksums(document: Document) -> Iterator[Checksum]:
    """What the server says of the bytes: hexadecimal, or Base64 as clouds write a CRC-32C."""
    for told in _dicts(document.get("checksums")):
        kind, text = str(told.get("type", "")).lower(), str(told.get("checksum", ""))
        with contextlib.suppress(ValueError):
            is_base64 = kind == "crc32c" and len(text) == 8 and text.endswith("==")
            digest = base64.b64decode(text, validate=True) if is_base64 else bytes.fromhex(text)
            yield Checksum(_HASHES.get(kind, kind), digest)


open_scheme = DrsScheme
