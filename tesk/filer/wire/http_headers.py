"""What the heads of HTTP answers mean for a transfer: version, parts, checksums, and how long to wait."""

import base64
import binascii
import email.utils
import re
from collections.abc import Iterator
from email.message import Message
from typing import Final

from tesk.filer.checksums import Checksum

_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_DIGESTS: Final = {
    "md5": "md5",
    "sha": "sha1",
    "sha-256": "sha256",
    "sha-512": "sha512",
}
_AMAZON: Final = {f"x-amz-checksum-{name}": name for name in ("crc64nvme", "crc32", "crc32c", "sha1", "sha256")}
LEAST_AGE_S: Final = 60


def version(head: Message) -> str:
    """What If-Range may carry: a strong ETag, else a date that is old enough to be one (RFC 9110, 8.8.2.2)."""
    etag = (head.get("ETag") or "").strip()
    if etag.startswith('"'):
        return etag
    changed, now = head.get("Last-Modified") or "", head.get("Date") or ""
    try:
        age = email.utils.parsedate_to_datetime(now) - email.utils.parsedate_to_datetime(changed)
    except (TypeError, ValueError):
        return ""
    return changed if age.total_seconds() >= LEAST_AGE_S else ""


def gives_parts(head: Message) -> bool:
    return "bytes" in (head.get("Accept-Ranges") or "").lower()


def part(head: Message) -> tuple[int, int, int] | None:
    """Begin, end (not included) and total size of the part that an answer holds; None where it does not say."""
    match = _RANGE.fullmatch((head.get("Content-Range") or "").strip())
    if not match:
        return None
    first, last, total = map(int, match.groups())
    return first, last + 1, total


def checksums(head: Message) -> list[Checksum]:
    """What is told of the bytes of a file: Content-MD5, Digest (RFC 3230), Repr-Digest (RFC 9530), Google, Amazon."""
    return [Checksum(name, digest) for name, text in _told(head) if (digest := _decoded(text))]


def _told(head: Message) -> Iterator[tuple[str, str]]:
    yield "md5", head.get("Content-MD5") or ""
    for field in ("Digest", "Repr-Digest"):
        for one in ",".join(head.get_all(field) or []).split(","):
            name, _, text = one.strip().partition("=")
            if known := _DIGESTS.get(name.lower()):
                yield known, text.strip(":")
    stored, sent = head.get("x-goog-stored-content-encoding") or "identity", head.get("Content-Encoding") or "identity"
    if stored == sent:
        for one in ",".join(head.get_all("x-goog-hash") or []).split(","):
            name, _, text = one.strip().partition("=")
            yield name, text
    for field, name in _AMAZON.items():
        text = head.get(field) or ""
        if "-" not in text and (head.get("x-amz-checksum-type") or "").upper() != "COMPOSITE":  # of parts' checksums
            yield name, text


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def wait_s(head: Message, now: float) -> float:
    """The seconds that Retry-After asks for, be it a number or a date; 0 without."""
    asked = (head.get("Retry-After") or "").strip()[:40]
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return 0.0
