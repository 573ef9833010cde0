"""The head of a request by which a task's own pod tells something (pure): to its taskmaster, or to the server.

`POST /POD` with `Authorization: Bearer WORD` and the size of what follows. Whoever connects is a stranger until the
word has been read, and it is looked at before anything else of the head counts.
"""

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

HEAD_BYTES: Final = 4096
"""A head with the word in it has some 300 bytes."""
HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_WORDS: Final = {
    204: "No Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 408: "Request Timeout",
    413: "Content Too Large", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
}  # fmt: skip


class Refused(Exception):
    """The answer to a request that is not taken: its status code."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Head(Struct, frozen=True):
    """What counts of a request's head: the pod that sends it, and the size of what follows."""

    pod: str
    size: int


def parse_head(data: bytes, check: Callable[[str, bytes], None], most_bytes: int) -> Head:
    """The head of a request, without its empty line. `check` takes the pod's name and its word, and raises Refused."""
    first, *lines = data.split(b"\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    method, _, rest = first.partition(b" ")
    path = rest.partition(b" ")[0]
    pod = path[1:].decode("ascii", "replace")
    kind, _, word = fields.get(b"authorization", b"").partition(b" ")
    check(pod, word if kind == b"Bearer" else b"")
    if method != b"POST" or not path.startswith(b"/"):
        raise Refused(400)
    size = fields.get(b"content-length", b"")
    if not _LENGTH.fullmatch(size) or int(size) > most_bytes:
        raise Refused(413)
    return Head(pod, int(size))


def answer(status: int) -> bytes:
    """The whole answer to a request."""
    return f"HTTP/1.1 {status} {_WORDS[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
