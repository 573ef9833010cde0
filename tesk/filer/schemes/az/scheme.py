"""`az:` and the https URLs of Azure's blobs, by the REST API, with transfers over HTTP.

Downloads come in parts, are resumed after a cut, and are compared with the Content-MD5 that the store keeps. Every
uploaded block carries its MD5, which the store checks; after a cut only that block is sent again. The MD5 of the whole
file is kept with the blob. In `az://container/key` the key is as it is, in an https URL it is percent-encoded. An empty
directory is an empty blob marked hdi_isfolder, as AzCopy and Hadoop make them.
"""

import base64
import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlencode
from xml.etree.ElementTree import Element

from tesk.filer import bounds
from tesk.filer.attributes import from_http
from tesk.filer.bounds import size_of
from tesk.filer.credentials import Credentials
from tesk.filer.errors import NotFound, TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.az.azure import AzureAccess, AzureIdentity, access_of, account_in, query
from tesk.filer.streams import BLOCK, Sink, Source
from tesk.filer.wire.http import HttpTarget, Response
from tesk.filer.wire.http_transfers import HttpTransfers
from tesk.filer.wire.objects import Object, checked_bucket, checked_key, entries_of, found_at
from tesk.filer.wire.xml import parsed

PAGE: Final = 5000
WHOLE: Final = 8 * 1024 * 1024
MAX_BLOCKS: Final = 50_000
_FOLDER: Final = "x-ms-meta-hdi_isfolder"
_OWN_CONTAINERS: Final = frozenset({"$root", "$web", "$logs"})
_CHOICES: Final = frozenset({"snapshot", "versionid"})


class Blob(NamedTuple):
    """Where a URL points; `account` is "" for the configured one, `query` what the URL itself carries."""

    account: str
    host: str
    container: str
    key: str
    query: str

    @property
    def shown(self) -> str:
        return f"https://{self.host}/{self.container}" if self.host else f"az://{self.container}"


def split(url: str) -> Blob:
    """Raises TransferError for what is no URL of a blob or a container."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "az":
        container, _, key = rest.partition("/")
        account, host, asked = "", "", ""
    else:
        rest, _, asked = rest.partition("#")[0].partition("?")
        container, _, key = (unquote(part, errors="surrogateescape") for part in rest.partition("/")[2].partition("/"))
        account, host = account_in(url)
    checked_bucket(container, "az://container/key", _OWN_CONTAINERS)
    return Blob(account, host, container, checked_key(key, "Azure's blob store"), asked)


class AzScheme(HttpTransfers):
    """Transfers over HTTP with the URLs of the API."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, lambda _: self._identity.headers(self._asking.access))
        self._credentials = Credentials(context.settings.credentials)
        self._identity = AzureIdentity()
        self._memory = context.memory
        self._retry_part = context.retry_part
        self._accesses: dict[str, AzureAccess] = {}
        self._asking = threading.local()

    def _access(self, url: str, blob: Blob) -> AzureAccess:
        """How to ask for `url`; looked up once for each account, its host and each table of the credentials."""
        table = self._credentials.of(url)
        key = f"{table.prefix} {blob.account} {blob.host}"
        if key not in self._accesses:
            self._accesses[key] = access_of(blob.account, blob.host, table)
        return self._accesses[key]

    @contextlib.contextmanager
    def _asked_for(self, url: str) -> Iterator[Blob]:
        """In the block, requests of this thread have the credentials for `url`, and errors the advice for it."""
        blob = split(url)
        access = self._access(url, blob)
        if "sig=" in blob.query:
            access = access._replace(key=b"", sas=blob.query, way="")
        self._asking.access = access
        try:
            yield blob
        except NotFound as error:
            error.advice = "check account, container and key"
            raise
        except TransferError as error:
            if "access denied" in error.answer:
                error.advice = f'check the credentials configured for "{blob.shown}"'
                if access.is_anonymous:
                    error.advice = f'no credentials are configured for "{blob.shown}"; set AZURE_STORAGE_ACCOUNT_KEY'
            raise

    def _api(self, blob: Blob, key: str, **parameters: str) -> str:
        """The URL of a request; a query without a signature chooses a snapshot or version, and nothing else."""
        access: AzureAccess = self._asking.access
        chosen = [] if "sig=" in blob.query else blob.query.split("&")
        more = [pair for pair in chosen if pair.partition("=")[0].lower() in _CHOICES]
        asked = "&".join(filter(None, [urlencode(parameters), query(access, blob.container), *more]))
        path = f"/{blob.container}/{quote(key)}" if key else f"/{blob.container}"
        return f"{access.endpoint}{path}" + (f"?{asked}" if asked else "")

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        blob = split(url)

        def ask() -> FileInfo:
            with self._asked_for(url):
                target, response = self._follow("HEAD", self._api(blob, blob.key))
                if response.status != 200:
                    raise self._refused(target, response)
                self._wire.settle(target, response)
            if response.getheader(_FOLDER) == "true":
                return FileInfo(Kind.DIRECTORY)
            size = size_of(response.getheader("Content-Length") or "0")
            return FileInfo(Kind.FILE, size, from_http(response.getheader("Last-Modified")))

        holds = partial(any, self._pages(url, 1))  # a page may be empty and not the last
        return found_at(blob.key, declared, holds, ask)

    def _pages(self, url: str, size: int) -> Iterator[list[Object]]:
        """All that lies below `url`."""
        marker = ""
        for _ in bounds.pages(split(url).shown):
            with self._asked_for(url) as blob:
                asked = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": str(size)}
                asked["prefix"] = f"{blob.key}/" if blob.key else ""
                target, response = self._follow("GET", self._api(blob, "", **asked, marker=marker))
                if response.status != 200:
                    raise self._refused(target, response)
                found, marker = read_page(self._text(target, response))
            yield found
            if not marker:
                return

    def entries(self, url: str) -> Iterator[Entry]:
        key = split(url).key
        found = (item for page in self._pages(url, PAGE) for item in page)
        with self._listings.listing(split(url).shown) as listing:
            yield from entries_of(found, f"{key}/" if key else "", listing)

    def child(self, url: str, relative: str) -> str:
        if url[:3].lower() == "az:":
            return f"{url.rstrip('/')}/{relative}"
        return super().child(url, relative)

    def fetch(self, url: str, sink: Sink) -> None:
        with self._asked_for(url) as blob:
            super().fetch(self._api(blob, blob.key), sink)

    def fetch_part(self, url: str, sink: Sink) -> None:
        with self._asked_for(url) as blob:
            super().fetch_part(self._api(blob, blob.key), sink)

    def push(self, source: Source, url: str) -> None:
        with self._asked_for(url) as blob:
            if not blob.key or url.partition("?")[0].endswith("/"):
                raise TransferError("names a container or a directory, not a blob", "such a URL is az://container/key")
            if source.size <= WHOLE:
                with self._memory.lend(source.size):
                    self._put_bytes(self._api(blob, blob.key), source.block(WHOLE), {"x-ms-blob-type": "BlockBlob"})
                return
            self._put_blocks(source, blob)

    def _put_blocks(self, source: Source, blob: Blob) -> None:
        """Uploads without holding a block in memory. The file is read twice: for MD5s, and to be sent."""
        whole = hashlib.md5(usedforsecurity=False)
        size = max(WHOLE, math.ceil(source.size / MAX_BLOCKS))
        upload = os.urandom(8).hex()
        names: list[str] = []
        for begin in range(0, source.size, size):
            block = source.stretch(begin, min(size, source.size - begin))
            names.append(base64.b64encode(f"{upload}-{len(names):06}".encode()).decode())
            digest = hashlib.md5(usedforsecurity=False)
            while data := block.read(BLOCK):
                digest.update(data)
                whole.update(data)
            where = self._api(blob, blob.key, comp="block", blockid=names[-1])
            self._retry_part(partial(self._put, where, block, digest.digest(), {}))
        listed = "".join(f"<Latest>{name}</Latest>" for name in names)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        kept = {"x-ms-blob-content-md5": base64.b64encode(whole.digest()).decode()}
        self._retry_part(partial(self._put_bytes, self._api(blob, blob.key, comp="blocklist"), body, kept))

    def _put_bytes(self, api_url: str, data: bytes, headers: dict[str, str]) -> None:
        self._put(api_url, data, hashlib.md5(data, usedforsecurity=False).digest(), headers)

    def _put(self, api_url: str, body: Source | bytes, md5: bytes, headers: dict[str, str]) -> None:
        """One request with the MD5 of its body, which the store checks."""
        if isinstance(body, Source):
            body.restart()
        told = {**headers, "Content-MD5": base64.b64encode(md5).decode()}
        target, response = self._follow("PUT", api_url, told, body)
        if response.status not in (200, 201):
            raise self._refused(target, response)
        self._wire.settle(target, response)

    def make_directory(self, url: str) -> None:
        with self._asked_for(url) as blob:
            if blob.key:
                self._put_bytes(self._api(blob, blob.key), b"", {"x-ms-blob-type": "BlockBlob", _FOLDER: "true"})

    def _refused(self, target: HttpTarget, response: Response) -> TransferError:
        """Adds Azure's error code, such as AuthorizationFailure."""
        failure = super()._refused(target, response)
        code = response.getheader("x-ms-error-code") or ""
        if code.isalnum():
            failure.answer = failure.answer.replace(f"({response.status})", f"({response.status} {code})")
        if code == "PublicAccessNotPermitted":
            failure.answer = f"access denied ({response.status} {code}) by {target.peer}"
        return failure


def read_page(text: bytes) -> tuple[list[Object], str]:
    """One page of a listing, and the marker of the next. Raises TransferError."""
    found = []

    def take(blob: Element) -> None:
        name = blob.find("Name")
        if name is None:
            return
        key = unquote(name.text or "") if name.get("Encoded") == "true" else name.text or ""
        marked = (blob.findtext("Metadata/hdi_isfolder") or "").lower() == "true"
        is_directory = marked or blob.findtext("Properties/ResourceType") == "directory"
        size = size_of(blob.findtext("Properties/Content-Length") or "0")
        if size is None:
            raise TransferError(f"the store's listing tells no size of {key[:200]!r}", "check the endpoint")
        changed = from_http(blob.findtext("Properties/Last-Modified"))
        found.append(Object(key.rstrip("/") + "/" if is_directory else key, size, changed))

    page = parsed(text, "the store's listing", "check the endpoint", "Blob", take)
    return found, page.findtext("NextMarker") or ""


open_scheme = AzScheme
