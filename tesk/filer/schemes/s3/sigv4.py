"""AWS Signature Version 4 of S3's requests, in the Authorization header.

obstore signs what it sends itself, but tells no header of an answer, sends none of ours, and takes no key that ends
with a slash. Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring
Payload in a Single Chunk".
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY: Final = hashlib.sha256(b"").hexdigest()


class Key(NamedTuple):
    access_key_id: str
    secret_access_key: str
    session_token: str = ""


def escaped(path: str) -> str:
    """A path as S3 wants it in the request and in what is signed: UTF-8, all but unreserved characters and `/`."""
    return quote(path, safe="/")


def query_of(parameters: Mapping[str, str]) -> str:
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed(
    method: str,
    host: str,
    path: str,
    key: Key,
    region: str,
    now: datetime,
    *,
    parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    digest: str = EMPTY,
) -> dict[str, str]:
    """The headers of a request, `headers` among them, that authorize it; `host` is what its Host header says.

    `path` is not escaped yet, and goes out as `escaped` makes it; `digest` is the SHA-256 of the body.
    """
    time = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {**(headers or {}), "x-amz-content-sha256": digest, "x-amz-date": time}
    if key.session_token:
        sent["x-amz-security-token"] = key.session_token
    lines = sorted((name.lower(), " ".join(value.split())) for name, value in {**sent, "host": host}.items())
    names = ";".join(name for name, _ in lines)
    fields = "".join(f"{name}:{value}\n" for name, value in lines)
    request = "\n".join([method, escaped(path), query_of(parameters or {}), fields, names, digest])
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    text = "\n".join([ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()])
    secret = f"AWS4{key.secret_access_key}".encode()
    for part in scope.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.new(secret, text.encode(), "sha256").hexdigest()
    credential = f"{key.access_key_id}/{scope}"
    return sent | {"Authorization": f"{ALGORITHM} Credential={credential},SignedHeaders={names},Signature={signature}"}
