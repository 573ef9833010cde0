"""One answer to every request: what the interpreter and the server library take by themselves."""

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]


async def app(scope: Message, _: object, send: Callable[[Message], Awaitable[None]]) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})
