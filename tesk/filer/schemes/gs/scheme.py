"""`gs:`, Google Cloud Storage, by its JSON API, with transfers over HTTP.

Downloads come in parts, are resumed after a cut, and are compared with the CRC-32C that the store tells. Uploads are
resumed after a cut, and compared with the checksums that the store tells of them. The key is what follows the bucket,
with nothing decoded. An empty directory is an empty object whose key ends with a slash.
"""

import base64
import contextlib
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode

from tesk.filer import bounds
from tesk.filer.attributes import Attributes, from_iso
from tesk.filer.checksums import Checksum, verify
from tesk.filer.credentials import Credentials
from tesk.filer.errors import NotFound, TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.gs.google import GoogleAccess, GoogleIdentity, access_of
from tesk.filer.streams import Sink, Source
from tesk.filer.wire.http import HttpTarget, Response
from tesk.filer.wire.http_transfers import Headers, HttpTransfers
from tesk.filer.wire.objects import Object, checked_bucket, checked_key, document, entries_of, found_at

PAGE: Final = 1000
WHOLE: Final = 8 * 1024 * 1024


def split(url: str) -> tuple[str, str]:
    """The bucket and the key of a `gs:` URL. Raises TransferError."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return checked_bucket(bucket, "gs://bucket/key"), checked_key(key, "Google Cloud Storage")


class GsScheme(HttpTransfers):
    """Transfers over HTTP with the URLs of the API."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, self._sign)
        self._credentials = Credentials(context.settings.credentials)
        self._identity = GoogleIdentity()
        self._retry_part = context.retry_part
        self._accesses: dict[str, GoogleAccess] = {}
        self._asking = threading.local()

    def _access(self, url: str) -> GoogleAccess:
        """How to ask for `url`; looked up once for each bucket and each table of the credentials."""
        table = self._credentials.of(url)
        bucket = url.partition("://")[2].partition("/")[0]
        key = f"{table.prefix} {bucket}"
        if key not in self._accesses:
            self._accesses[key] = access_of(table)
        return self._accesses[key]

    def _sign(self, _: str) -> dict[str, str]:
        """Objects are wanted as they are stored, which the second Accept-Encoding says (the first is `identity`)."""
        return {"Accept-Encoding": "gzip", **self._identity.headers(self._asking.access)}

    @contextlib.contextmanager
    def _asked_for(self, url: str) -> Iterator[None]:
        """In the block, requests of this thread have the credentials for `url`, and errors the advice for it."""
        self._asking.access = access = self._access(url)
        try:
            yield
        except NotFound as error:
            error.advice = "check bucket and key"
            raise
        except TransferError as error:
            if "access denied" in error.answer:
                bucket = f"gs://{split(url)[0]}"
                error.advice = f'check the credentials configured for "{bucket}"'
                if access.source is None:
                    error.advice = f'no credentials are configured for "{bucket}"; set GOOGLE_APPLICATION_CREDENTIALS'
            raise

    def _api(self, url: str, path: str, **parameters: str) -> str:
        return f"{self._access(url).endpoint}{path}" + (f"?{urlencode(parameters)}" if parameters else "")

    def _object(self, url: str, *, media: bool = False) -> str:
        bucket, key = split(url)
        path = f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}"
        return (
            self._api(url, f"/download{path}", alt="media")
            if media
            else self._api(url, path, fields="name,size,timeCreated")
        )

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        def ask() -> FileInfo:
            told = self._json(url, "GET", self._object(url))
            return FileInfo(Kind.FILE, bounds.size_of(str(told.get("size"))), _changed(told))

        holds = partial(any, self._pages(url, 1))  # a page may be empty and not the last
        return found_at(split(url)[1], declared, holds, ask)

    def _pages(self, url: str, size: int) -> Iterator[list[dict[str, Any]]]:
        bucket, key = split(url)
        page = ""
        for _ in bounds.pages(self._access(url).endpoint):
            more = {"pageToken": page} if page else {}
            asked = {"prefix": f"{key}/" if key else "", "maxResults": str(size), **more}
            fields = "items(name,size,timeCreated),nextPageToken"
            answer = self._json(url, "GET", self._api(url, f"/storage/v1/b/{bucket}/o", fields=fields, **asked))
            items = answer.get("items", [])
            if not isinstance(items, list) or not all(map(_is_object, items)):
                raise TransferError("the store's listing tells no name or no size of an object", "check the endpoint")
            yield items
            page = str(answer.get("nextPageToken") or "")
            if not page:
                return

    def entries(self, url: str) -> Iterator[Entry]:
        _, key = split(url)
        pages = self._pages(url, PAGE)
        found = (Object(item["name"], int(item["size"]), _changed(item)) for page in pages for item in page)
        with self._listings.listing(f"gs://{split(url)[0]}") as listing:
            yield from entries_of(found, f"{key}/" if key else "", listing)

    def child(self, url: str, relative: str) -> str:
        return f"{url.rstrip('/')}/{relative}"

    def fetch(self, url: str, sink: Sink) -> None:
        with self._asked_for(url):
            super().fetch(self._object(url, media=True), sink)

    def fetch_part(self, url: str, sink: Sink) -> None:
        with self._asked_for(url):
            super().fetch_part(self._object(url, media=True), sink)

    def push(self, source: Source, url: str) -> None:
        bucket, key = split(url)
        if not key or url.endswith("/"):
            raise TransferError("names a bucket or a directory, not a key", "such a URL of a file is gs://bucket/key")
        self._upload(source, url, bucket, key)

    def make_directory(self, url: str) -> None:
        bucket, key = split(url)
        if key:
            self._json(
                url, "POST", self._api(url, f"/upload/storage/v1/b/{bucket}/o", uploadType="media", name=f"{key}/")
            )

    def _upload(self, source: Source, url: str, bucket: str, key: str) -> None:
        path = f"/upload/storage/v1/b/{bucket}/o"
        if source.size <= WHOLE:
            told = self._json(url, "POST", self._api(url, path, uploadType="media", name=key), source)
        else:
            start = self._api(url, path, uploadType="resumable", name=key)
            headers = {"X-Upload-Content-Length": str(source.size)}
            with self._asked_for(url):
                target, response = self._follow("POST", start, headers)
                where = response.getheader("Location") or ""
                if response.status not in (200, 201) or not where:
                    raise self._refused(target, response)
                self._wire.settle(target, response)
            told = self._send(url, where, source)
        if bounds.size_of(str(told.get("size"))) != source.size:
            raise TransferError(
                f"{told.get('size', 'no')} of {source.size} bytes arrived", "check the store", passing=True
            )
        known = {"crc32c": told.get("crc32c", ""), "md5": told.get("md5Hash", "")}
        checksums = [Checksum(name, base64.b64decode(text)) for name, text in known.items() if text]
        verify(source.fd, source.size, checksums, "the bytes that went out")

    def _send(self, url: str, where: str, source: Source) -> dict[str, Any]:
        """Sends the bytes of an upload that was begun at `where`. Returns the store's document of the object.

        After a cut the upload resumes behind the bytes that the store has. A forgotten upload begins anew.
        """
        is_cut = False

        def attempt() -> dict[str, Any]:
            nonlocal is_cut
            if is_cut and (done := self._kept(url, where, source)):
                return done
            is_cut = True
            kept, size = source.position, source.size
            rest = source.stretch(kept, size - kept)
            headers = {"Content-Range": f"bytes {kept}-{size - 1}/{size}"} if kept else None
            try:
                return self._json(url, "PUT", where, rest, headers)
            except BaseException:
                rest.restart()
                raise

        try:
            return self._retry_part(attempt, lambda: source.position)
        except NotFound as error:
            error.passing = True
            raise

    def _kept(self, url: str, where: str, source: Source) -> dict[str, Any] | None:
        """Moves `source` behind the bytes that the store has. Returns the object's document if that is all."""
        with self._asked_for(url):
            target, response = self._follow("PUT", where, {"Content-Range": f"bytes */{source.size}"})
            if response.status != 308:
                return self._answer(target, response)
            self._wire.settle(target, response)
        last = (response.getheader("Range") or "").removeprefix("bytes=0-")
        kept = bounds.size_of(last)
        kept = 0 if kept is None else kept + 1
        source.advance(min(kept, source.size) - source.position)
        return None

    def _json(
        self, url: str, method: str, api_url: str, body: Source | None = None, headers: Headers | None = None
    ) -> dict[str, Any]:
        with self._asked_for(url):
            return self._answer(*self._follow(method, api_url, headers, body))

    def _answer(self, target: HttpTarget, response: Response) -> dict[str, Any]:
        if response.status not in (200, 201):
            raise self._refused(target, response)
        try:
            found = document(self._text(target, response))
        except ValueError:
            raise TransferError(f"{target.peer} does not answer in JSON", "check the endpoint") from None
        if not isinstance(found, dict):
            raise TransferError(f"{target.peer} does not answer in JSON", "check the endpoint")
        return found


def _changed(told: Mapping[str, Any]) -> Attributes:
    """When an object came to be, which is when its bytes were last written."""
    return from_iso(str(told.get("timeCreated")))


def _is_object(item: object) -> bool:
    """Whether an item of a listing has a name and a size."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and bounds.size_of(str(item.get("size"))) is not None
    )


open_scheme = GsScheme
