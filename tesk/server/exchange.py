"""One HTTP exchange as the handlers see it: a Call comes in, a Reply goes out, a Refusal is an error for the client.

This module knows no route. Errors are JSON, `{"status_code": 400, "msg": "...", "field": "executors[0].image"}`: a
person reads the reason, a program finds the field.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from tesk import identity

if TYPE_CHECKING:
    from tesk.server.budget import MemoryShare

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

ANSWER: Final = "tesk.answer"
"""ASGI extension of HttpConnection: `answer(status, header lines, body)` sends the whole answer; False if it cannot."""
WHEN_SENT: Final = "tesk.when_sent"
"""ASGI extension of HttpConnection: `when_sent(done)` calls `done()` once the client has the answer, or is gone."""

encode: Final = msgspec.json.Encoder().encode


_JSON: Final[Header] = (b"content-type", b"application/json")


class Reply(NamedTuple):
    """An answer, JSON unless it says otherwise; length and request id are added where it is sent."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    content_type: Header = _JSON


class Refusal(Exception):
    """A request that is answered with an error. `field` names the place in the document or query."""

    def __init__(self, status: int, msg: str, field: str = "", headers: tuple[Header, ...] = ()) -> None:
        super().__init__(msg)
        self.status = status
        self.msg = msg
        self.field = field
        self.headers = headers

    def reply(self) -> Reply:
        error: dict[str, Any] = {"status_code": self.status, "msg": self.msg}
        if self.field:
            error["field"] = self.field
        return Reply(self.status, encode(error), self.headers)


class Call:
    """A request, as far as handlers read it. Of a repeated header, `headers` has the last value."""

    __slots__ = (
        "headers", "identity", "item", "method", "path", "query", "receive", "request_id", "scope", "share", "task_id",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, share: "MemoryShare") -> None:
        self.scope = scope
        self.receive = receive
        self.share = share
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.identity = identity.NOBODY
        """Who calls; the application sets it before it calls the handler."""
        self.request_id = ""
        self.task_id = ""
        self.item = ""
        """The last part of /api/v1/NAME/ITEM."""


Handler = Callable[[Call], Awaitable[Reply]]


class Route(NamedTuple):
    """A handler, and what a credential must be good for to call it: a scope, `signed-in`, or nothing (`open`)."""

    handler: Handler
    needs: identity.Scope | Literal["signed-in", "open"]


Methods = Mapping[str, Route]
"""The routes of a path by method."""


def read(handler: Handler, needs: identity.Scope | Literal["signed-in", "open"]) -> dict[str, Route]:
    return {"GET": Route(handler, needs), "HEAD": Route(handler, needs)}
