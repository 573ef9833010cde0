"""S3 requests that obstore cannot make, over HTTP.

They are signed with the keys that Python knows: of a table, the environment or a profile. Those of roles and of web
identity are obstore's secret; it signs URLs with them, which tell no checksums and name no key with a last slash.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import obstore
from obstore.store import S3Store

from tesk.filer.checksums import Checksum
from tesk.filer.errors import NotFound, TransferError
from tesk.filer.reach import Reach
from tesk.filer.schemes.s3.aws import Location
from tesk.filer.schemes.s3.sigv4 import EMPTY, escaped, query_of, signed
from tesk.filer.streams import BLOCK
from tesk.filer.wire.http import HttpTarget, Wire, target_of

DENIALS: Final = ("AccessDenied", "XAdminUserNotFound", "InvalidAccessKeyId")
_CODE: Final = re.compile(r"<Code>([^<]{1,80})</Code>")
_MD5: Final = re.compile(r"[0-9a-f]{32}")
MINUTES: Final = timedelta(minutes=5)


class S3Wire:
    """Safe for several threads."""

    def __init__(self, reach: Reach, timeout_s: float) -> None:
        self._wire = Wire(reach, timeout_s)
        self._heard: set[str] = set()
        self._mute: set[str] = set()

    def can_ask(self, location: Location) -> bool:
        """Whether we have what obstore asks with: the key, if any, and no proxy, which only it uses."""
        parts = urlsplit(location.shown)
        proxies = getproxies()
        proxied = (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.netloc)
        return not proxied and bool(location.anonymous or location.key)

    def head(self, store: S3Store, location: Location, bucket: str, key: str) -> Message | None:
        """What the store says of an object, its checksums among it where we may ask; None where it says nothing.

        A place that never answered is asked once.
        """
        base = location.address(bucket, key)[0]
        if base in self._mute:
            return None
        try:
            if self.can_ask(location):
                target, headers = request("HEAD", location, bucket, key, {"x-amz-checksum-mode": "ENABLED"})
            else:
                target, headers = _presigned(store, key), {}
            response = self._wire.ask("HEAD", target, headers)
        except TransferError:
            if base not in self._heard:
                self._mute.add(base)
            return None
        self._heard.add(base)
        self._wire.settle(target, response)
        return response.headers if response.status == 200 else None

    def put_empty(self, location: Location, bucket: str, key: str) -> tuple[int, str]:
        """Makes an empty object; status and text of the answer. Raises TransferError."""
        target, headers = request("PUT", location, bucket, key, {})
        response = self._wire.ask("PUT", target, headers)
        with self._wire.reading(target):
            text = response.read(BLOCK).decode(errors="replace")
        self._wire.settle(target, response)
        return response.status, text

    def close(self) -> None:
        self._wire.close()


def request(
    method: str,
    location: Location,
    bucket: str,
    key: str,
    headers: Mapping[str, str],
    parameters: Mapping[str, str] | None = None,
    digest: str = EMPTY,
) -> tuple[HttpTarget, dict[str, str]]:
    """Where a request goes and the headers that it has, signed where there is a key."""
    base, path = location.address(bucket, key)
    query = query_of(parameters or {})
    target = target_of(base)._replace(path=f"{escaped(path)}?{query}".rstrip("?"))
    if location.key is None:
        return target, dict(headers)
    host = target.peer.partition("://")[2]
    now, region = datetime.now(UTC), location.options["region"]
    sent = signed(method, host, path, location.key, region, now, parameters=parameters, headers=headers, digest=digest)
    return target, sent


def _presigned(store: S3Store, key: str) -> HttpTarget:
    try:
        parts = urlsplit(obstore.sign(store, "HEAD", key, MINUTES))
    except Exception as error:  # obstore raises what it likes
        raise TransferError("obstore signs no URL") from error
    return target_of(f"{parts.scheme}://{parts.netloc}")._replace(path=f"{parts.path}?{parts.query}")


def md5(etag: str) -> list[Checksum]:
    """The MD5 that an ETag is, unless the object came in parts, or its encryption makes the ETag something else."""
    text = etag.strip('"')
    return [Checksum("md5", bytes.fromhex(text))] if _MD5.fullmatch(text) else []


def is_encrypted(head: Message) -> bool:
    """Whether the object is encrypted in a way that makes its ETag something else than an MD5."""
    by_key = head.get("x-amz-server-side-encryption-customer-algorithm")
    return bool(by_key) or "kms" in (head.get("x-amz-server-side-encryption") or "")


def code_of(text: str) -> str:
    """The code of an error that S3 describes."""
    return match.group(1) if (match := _CODE.search(text)) else ""


def refused(status: str, code: str, host: str, location: Location, bucket: str, phrase: str = "") -> TransferError:
    """The TransferError for an answer that is no success."""
    answer = code or phrase
    if status in ("401", "403") or code in DENIALS:
        advice = f'check the key configured for "s3://{bucket}"'
        if location.anonymous:
            advice = f'no key is configured for "s3://{bucket}"; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY'
        return TransferError(f"access denied ({f'{status} {code}'.strip()}) by {host}", advice)
    if status == "404":
        missing = "the bucket is not there" if code == "NoSuchBucket" else "not found"
        return NotFound(f"{missing} (404) by {host}", "check bucket and key")
    advice = "check the store"
    if status in ("301", "307", "400") and not location.endpoint:
        advice = "set AWS_REGION to the bucket's region"
    busy = status in ("429", "503")
    return TransferError(f"{answer} ({status}) by {host}", advice, passing=busy or status[:1] == "5", pushed_back=busy)
