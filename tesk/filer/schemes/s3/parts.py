"""Uploads to S3 that obstore cannot make, in parts that go straight from the file and are never held in memory.

obstore holds each part whole, and a store takes 10,000 parts: those of a file of 5 TB have 600 MB. Here a part is read
twice, once for the SHA-256 that the store compares it with, once to be sent; one that was cut is sent again alone.
Source: Amazon S3 API Reference, CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.
"""

import base64
import contextlib
import hashlib
import math
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from xml.sax.saxutils import escape

from tesk.filer.checksums import compute
from tesk.filer.errors import NotFound, Stopped, TransferError
from tesk.filer.scheme import Context
from tesk.filer.schemes.s3.aws import Location
from tesk.filer.schemes.s3.sigv4 import EMPTY
from tesk.filer.schemes.s3.wire import code_of, refused, request
from tesk.filer.streams import BLOCK, Source
from tesk.filer.wire.http import Wire
from tesk.filer.wire.xml import parsed

PART: Final = 8 * 1024 * 1024
MAX_PARTS: Final = 9_000
AT_ONCE: Final = 3
_MD5: Final = re.compile(r'"?([0-9a-f]{32})"?')
_PASSING: Final = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"})


def part_size(size: int) -> int:
    """Bytes of each part of a file of `size` bytes."""
    return max(PART, math.ceil(size / MAX_PARTS))


def etag_of(etags: list[str]) -> str | None:
    """The ETag of an object by those of its parts, where they are MD5s."""
    found = [_MD5.fullmatch(etag) for etag in etags]
    digests = b"".join(bytes.fromhex(each[1]) for each in found if each is not None)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}" if all(found) else None


class Parts:
    """The uploads of one step. `location`, `bucket` and `key` of an object are what `request` takes."""

    def __init__(self, context: Context) -> None:
        self._wire = Wire(context.reach, context.settings.timeout_s)
        self._retry_part = context.retry_part

    def push(self, source: Source, location: Location, bucket: str, key: str) -> None:
        """Makes an object of all of `source`.

        Raises Stopped, and TransferError, never a passing one.
        """

        def ask(method: str, asked: Mapping[str, str], body: Source | bytes = b"") -> tuple[str, str]:
            return self._ask(location, bucket, key, method, asked, body)

        begun = self._retry_part(lambda: ask("POST", {"uploads": ""}))[0]
        upload = parsed(begun.encode(), "the store's answer", "check the endpoint").findtext("{*}UploadId") or ""
        if not upload:
            raise TransferError(f"{location.shown} begins no upload of parts", "check the endpoint")
        try:
            etags = self._send_all(source, lambda number, each: ask(
                "PUT", {"partNumber": str(number), "uploadId": upload}, each)[1])  # fmt: skip
            self._complete(ask, upload, etags)
        except BaseException:
            with contextlib.suppress(TransferError):
                ask("DELETE", {"uploadId": upload})
            raise

    def _complete(self, ask: Callable[..., tuple[str, str]], upload: str, etags: list[str]) -> None:
        """Makes the object of its parts.

        Where the answer is lost it is asked for again, and the store may know no such upload any more: then the
        object itself tells whether it is there.
        """
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        try:
            self._retry_part(lambda: ask("POST", {"uploadId": upload}, body))
        except NotFound:
            if self._retry_part(lambda: ask("HEAD", {})[1]).strip('"') != etag_of(etags):
                raise

    def _send_all(self, source: Source, send: Callable[[int, Source], str]) -> list[str]:
        """The ETags of the parts. When one fails, no other is begun."""
        failed = threading.Event()

        def deliver(number: int, each: Source) -> str:
            def attempt() -> str:
                each.restart()
                if failed.is_set():
                    raise Stopped
                return send(number, each)

            try:
                return self._retry_part(attempt)
            except BaseException:
                failed.set()
                each.restart()
                raise

        part = part_size(source.size)
        with ThreadPoolExecutor(AT_ONCE, "part") as pool:
            begins = range(0, source.size, part)
            sent = [
                pool.submit(deliver, number, source.stretch(begin, min(part, source.size - begin)))
                for number, begin in enumerate(begins, 1)
            ]
        errors = [error for each in sent if (error := each.exception())]
        for error in sorted(errors, key=lambda each: isinstance(each, Stopped)):
            raise error
        return [each.result() for each in sent]

    def _ask(
        self, location: Location, bucket: str, key: str, method: str, asked: Mapping[str, str], body: Source | bytes
    ) -> tuple[str, str]:
        """Text and ETag of a successful answer. Raises TransferError."""
        headers, digest = {}, EMPTY
        if isinstance(body, Source) and location.key is None:
            md5 = compute(body.fd, body.size, "md5", body.begin)
            headers["Content-MD5"] = base64.b64encode(md5).decode()
        elif isinstance(body, Source):
            digest = compute(body.fd, body.size, "sha256", body.begin).hex()
        elif body:
            digest = hashlib.sha256(body).hexdigest()
        target, sent = request(method, location, bucket, key, headers, asked, digest)
        response = self._wire.ask(method, target, sent, body)
        with self._wire.reading(target):
            text = response.read(BLOCK).decode(errors="replace")
        self._wire.settle(target, response)
        code = code_of(text)
        if response.status not in (200, 204) or code:
            failure = refused(str(response.status), code or response.reason, target.peer, location, bucket)
            failure.passing = failure.passing or code in _PASSING
            raise failure
        return text, response.getheader("ETag") or ""

    def close(self) -> None:
        self._wire.close()
