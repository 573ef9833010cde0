"""S3 objects whose keys hold control characters, which obstore does not carry: by transfers over HTTP."""

import base64
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from tesk.filer import bounds
from tesk.filer.attributes import from_http, from_iso
from tesk.filer.bounds import size_of
from tesk.filer.checksums import compute
from tesk.filer.errors import TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.s3.aws import Location
from tesk.filer.schemes.s3.parts import Parts
from tesk.filer.schemes.s3.sigv4 import EMPTY
from tesk.filer.schemes.s3.wire import code_of, is_encrypted, md5, refused, request
from tesk.filer.streams import BLOCK, Source
from tesk.filer.wire.http import HttpTarget, Response
from tesk.filer.wire.http_transfers import Headers, HttpTransfers
from tesk.filer.wire.objects import Object, entries_of, found_at
from tesk.filer.wire.xml import parsed

PAGE: Final = "1000"
ONE_PUT: Final = 4 * 1024**3
"""S3 takes 5 GiB in one request."""
Where = Callable[[str], tuple[Location, str, str]]


class OddKeys(HttpTransfers):
    """`where` gives location, bucket and key of a URL."""

    def __init__(self, context: Context, where: Where, parts: Parts) -> None:
        super().__init__(context)
        self._where = where
        self._parts = parts

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        def ask() -> FileInfo:
            target, response = self._follow("HEAD", url)
            self._wire.settle(target, response)
            size = size_of(response.getheader("Content-Length") or "0")
            return FileInfo(Kind.FILE, size, from_http(response.getheader("Last-Modified")))

        return found_at(self._where(url)[2], declared, partial(any, self._pages(url, "1")), ask)

    def entries(self, url: str) -> Iterator[Entry]:
        key = self._where(url)[2]
        found = (each for page in self._pages(url, PAGE) for each in page)
        with self._listings.listing(self._where(url)[0].shown) as listing:
            yield from entries_of(found, f"{key}/" if key else "", listing)

    def _pages(self, url: str, size: str) -> Iterator[list[Object]]:
        """What lies below a directory."""
        location, bucket, key = self._where(url)
        asked = {"list-type": "2", "prefix": f"{key}/" if key else "", "max-keys": size, "encoding-type": "url"}
        for _ in bounds.pages(location.shown):
            target, headers = request("GET", location, bucket, "", {}, asked)
            response = self._wire.ask("GET", target, headers)
            if response.status != 200:
                raise self._failed(url, target, response)
            found, token = read_page(self._text(target, response))
            yield found
            if not token:
                return
            if token == asked.get("continuation-token"):
                raise TransferError(f"{target.peer} lists the same page again and again", "check the endpoint")
            asked["continuation-token"] = token

    def _follow(
        self, method: str, url: str, headers: Headers | None = None, body: Source | bytes | None = None
    ) -> tuple[HttpTarget, Response]:
        """An answer that is no error. An ETag that is an MD5 counts as such."""
        location, bucket, key = self._where(url)
        more = dict(headers or {})
        if method == "GET" and not more:
            more["x-amz-checksum-mode"] = "ENABLED"
        digest = EMPTY
        if isinstance(body, Source):
            digest = compute(body.fd, body.size, "sha256").hex()
        target, sent = request(method, location, bucket, key, more, digest=digest)
        response = self._wire.ask(method, target, sent, body)
        if response.status not in (200, 206, 412, 416):
            raise self._failed(url, target, response)
        head = response.headers
        if (known := md5(head.get("ETag") or "")) and not is_encrypted(head):
            head["Content-MD5"] = base64.b64encode(known[0].digest).decode()
        return target, response

    def push(self, source: Source, url: str) -> None:
        if source.size > ONE_PUT:
            self._parts.push(source, *self._where(url))
            return
        target, response = self._follow("PUT", url, None, source)
        self._wire.settle(target, response)

    def _failed(self, url: str, target: HttpTarget, response: Response) -> TransferError:
        with self._wire.reading(target):
            text = response.read(BLOCK).decode(errors="replace")
        self._wire.drop(target)
        location, bucket, _ = self._where(url)
        return refused(str(response.status), code_of(text) or response.reason, target.peer, location, bucket)


def read_page(text: bytes) -> tuple[list[Object], str]:
    """One page of ListObjectsV2, and the token of the next. Raises TransferError."""
    found: list[Object] = []

    def take(each: Element) -> None:
        text = each.findtext("{*}Size") or ""
        if (size := size_of(text)) is None:
            raise TransferError(f"the store's listing tells a size of {text[:40]!r}", "check the endpoint")
        found.append(Object(each.findtext("{*}Key") or "", size, from_iso(each.findtext("{*}LastModified"))))

    page = parsed(text, "the store's listing", "check the endpoint", "Contents", take)
    if page.findtext("{*}EncodingType") == "url":
        found = [each._replace(key=unquote_plus(each.key)) for each in found]
    return found, page.findtext("{*}NextContinuationToken") or ""
