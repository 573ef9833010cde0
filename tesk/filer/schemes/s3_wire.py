"""S3 requests that obstore has no word for, over HTTP's own connections.

They are signed with the keys that Python knows: of a table, the environment or a profile. Those of roles and of web
identity are obstore's secret; it signs URLs with them, which tell no checksums and name no key with a last slash.
"""

from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import obstore
from obstore.store import S3Store

from tesk.filer.errors import TransferError
from tesk.filer.reach import Reach
from tesk.filer.schemes.aws import Location
from tesk.filer.schemes.http_wire import Target, Wire, target_of
from tesk.filer.schemes.sigv4 import escaped, signed
from tesk.filer.streams import BLOCK

MINUTES: Final = timedelta(minutes=5)


class S3Wire:
    """Any thread may ask."""

    def __init__(self, reach: Reach, timeout_s: float) -> None:
        self._wire = Wire(reach, timeout_s)
        self._mute: set[str] = set()

    def can_ask(self, location: Location) -> bool:
        """Whether we have what obstore asks with: the key, if any, and no proxy, which only it uses."""
        parts = urlsplit(location.shown)
        proxies = getproxies()
        proxied = (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.netloc)
        return not proxied and bool(location.anonymous or location.key)

    def head(self, store: S3Store, location: Location, bucket: str, key: str) -> Message | None:
        """What the store says of an object, its checksums among it where we may ask; None where it says nothing.

        A place that cannot be reached is asked once.
        """
        base = location.address(bucket, key)[0]
        if base in self._mute:
            return None
        try:
            if self.can_ask(location):
                target, headers = _request("HEAD", location, bucket, key, {"x-amz-checksum-mode": "ENABLED"})
            else:
                target, headers = _presigned(store, key), {}
            response = self._wire.ask("HEAD", target, headers)
        except TransferError:
            self._mute.add(base)
            return None
        self._wire.settle(target, response)
        return response.headers if response.status == 200 else None

    def put_empty(self, location: Location, bucket: str, key: str) -> tuple[int, str]:
        """Makes an empty object; status and text of the answer. Raises TransferError."""
        target, headers = _request("PUT", location, bucket, key, {})
        response = self._wire.ask("PUT", target, headers)
        with self._wire.reading(target):
            text = response.read(BLOCK).decode(errors="replace")
        self._wire.settle(target, response)
        return response.status, text

    def close(self) -> None:
        self._wire.close()


def _request(
    method: str, location: Location, bucket: str, key: str, headers: dict[str, str]
) -> tuple[Target, dict[str, str]]:
    base, path = location.address(bucket, key)
    target = target_of(base)._replace(path=escaped(path))
    if location.key:
        host = target.peer.partition("://")[2]
        now = datetime.now(UTC)
        headers = signed(method, host, path, location.key, location.options["region"], now, headers=headers)
    return target, headers


def _presigned(store: S3Store, key: str) -> Target:
    try:
        parts = urlsplit(obstore.sign(store, "HEAD", key, MINUTES))
    except Exception as error:  # obstore raises what it likes
        raise TransferError("obstore signs no URL") from error
    return target_of(f"{parts.scheme}://{parts.netloc}")._replace(path=f"{parts.path}?{parts.query}")
