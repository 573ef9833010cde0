"""Request bodies: read whole, within a size and a time, and only as JSON.

The media type keeps web pages from running containers: a browser sends application/json to another origin only after
a preflight request, which CORS answers (origins.py). A form, or a script without permission, gets 415 or no answer. A
request without a body needs no media type: its origin alone decides (Cors.check_write).
"""

from typing import Final

from tesk.limit import TimeLimit
from tesk.server.budget import no_room
from tesk.server.exchange import Call, Refusal

BODY_LIMIT_S: Final = 60.0
"""Time in which a request body must have arrived."""
DRAIN_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a refused body that are read and dropped, so that the client comes to read the answer."""

DOCUMENTS: Final = 2
"""A body takes this many times its size: the body, and the documents that are stored of it."""

_CLOSE: Final = ((b"connection", b"close"),)
_JSON: Final = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})


class Disconnected(Exception):
    """The client went away before its request was complete."""


class Bodies:
    """Reads bodies of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = TimeLimit(BODY_LIMIT_S)

    async def read_json(self, call: Call, *, may_be_empty: bool = False) -> bytes:
        """The body of a write. Raises Refusal (408, 413, 415, 503) and Disconnected."""
        if not (may_be_empty and _has_no_body(call)):
            _need_json(call)
        declared = call.headers.get(b"content-length", b"0")
        try:
            return await self._limit.on(self._read(call, int(declared) if declared.isdigit() else 0))
        except TimeoutError:
            reason = f"the request body did not arrive within {self._limit.seconds:.0f} s; send it again"
            raise Refusal(408, reason, headers=_CLOSE) from None

    async def _read(self, call: Call, expected: int) -> bytes:
        refusal = _too_large(self._most) if expected > self._most else None
        if refusal is None:
            try:
                await call.share.take(DOCUMENTS * expected)
            except Refusal as no_room:
                refusal = _closing(no_room)
        if refusal is not None and b"expect" in call.headers:
            raise refusal
        return await _read(call, self._most, refusal)


async def _read(call: Call, most: int, refusal: Refusal | None) -> bytes:
    """The body. Of a refused body the rest is read and dropped, so that the client comes to read the reason."""
    message = await call.receive()
    whole: bytes = message.get("body", b"")
    if refusal is None and len(whole) <= most and not message.get("more_body") and message["type"] == "http.request":
        return whole
    body = bytearray()
    received = 0
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        received += len(chunk)
        if refusal is None and received > most:
            refusal = _too_large(most)
        elif refusal is None and not call.share.try_take(DOCUMENTS * received):
            refusal = _closing(no_room())
        if refusal is None:
            body += chunk
        else:
            body.clear()
        if not message.get("more_body") or received > DRAIN_BYTES:
            break
        message = await call.receive()
    if refusal is not None:
        raise refusal
    return bytes(body)


def _closing(refusal: Refusal) -> Refusal:
    return Refusal(refusal.status, refusal.msg, headers=(*refusal.headers, *_CLOSE))


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the request body is larger than {limit} bytes (setting max_body_bytes)", headers=_CLOSE)


def _has_no_body(call: Call) -> bool:
    """True where the headers say so (RFC 9112 §6.3)."""
    return b"transfer-encoding" not in call.headers and call.headers.get(b"content-length", b"0").strip(b"0") == b""


def _need_json(call: Call) -> None:
    given = call.headers.get(b"content-type", b"")
    if given not in _JSON and given.partition(b";")[0].strip().lower() != b"application/json":
        sent = f", not {given[:100].decode('latin-1')!r}" if given else ""
        raise Refusal(415, f'send the header "Content-Type: application/json"{sent}', "Content-Type")
    if call.headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        raise Refusal(415, "send the body without Content-Encoding", "Content-Encoding")
