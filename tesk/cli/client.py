"""A TES client over httpx: the five operations, and errors as sentences that name the server.

Every call has a time limit. A server that has answered once and is then away for a moment, as in a restart, is read
from again; a create is never repeated, since the task might have been stored.
"""

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

import click
import httpx

Document = dict[str, Any]

API: Final = "/ga4gh/tes/v1"
TIMEOUT_S: Final = 30.0
PAGE: Final = 256
RETRIES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


class ServerError(click.ClickException):
    """The server cannot be reached or refuses; ends the command with its text on one line."""


class Client:
    """A connection to one server. `server` is its URL, with or without the API's base path."""

    def __init__(self, server: str) -> None:
        parts = _server(server)
        self.shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        path = parts.path.rstrip("/")
        base = urlunsplit((parts.scheme, parts.netloc, path if path.endswith("/v1") else path + API, "", ""))
        self._http = httpx.Client(base_url=base, timeout=TIMEOUT_S, follow_redirects=True)
        self._has_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create(self, body: bytes) -> str:
        """The id of the new task."""
        reply = self._send("POST", "/tasks", content=body, headers={"content-type": "application/json"})
        return str(reply["id"])

    def get(self, task_id: str, view: str = "FULL") -> Document:
        return self._read(f"/tasks/{_segment(task_id)}", {"view": view})

    def service_info(self) -> Document:
        return self._read("/service-info", {})

    def cancel(self, task_id: str) -> None:
        self._send("POST", f"/tasks/{_segment(task_id)}:cancel", json={})

    def tasks(self, filters: list[tuple[str, str]], view: str, limit: int) -> Iterator[Document]:
        """Newest first, page after page; `limit` 0 is without end."""
        token = ""
        left = limit or None
        while True:
            size = PAGE if left is None else min(PAGE, left)
            query = [*filters, ("view", view), ("page_size", str(size))]
            reply = self._read("/tasks", [*query, ("page_token", token)] if token else query)
            page = reply.get("tasks") or []
            yield from page[:left]
            if left is not None:
                left -= len(page)
            token = reply.get("next_page_token") or ""
            if not token or (left is not None and left <= 0):
                return

    def _read(self, path: str, query: Mapping[str, str] | list[tuple[str, str]]) -> Document:
        for pause in RETRIES_S:
            try:
                return self._send("GET", path, params=query)
            except ServerError as error:
                if not self._has_answered or not isinstance(error.__cause__, httpx.TransportError):
                    raise
            time.sleep(pause)
        return self._send("GET", path, params=query)

    def _send(self, method: str, path: str, **request: Any) -> Document:
        try:
            reply = self._http.request(method, path, **request)
        except httpx.TimeoutException as error:
            raise ServerError(f"{self.shown} did not answer within {TIMEOUT_S:g} s") from error
        except httpx.ConnectError as error:
            raise ServerError(
                f"no server at {self.shown} ({error}): start one with `tesk serve`, or name another with --server or "
                "TESK_SERVER"
            ) from error
        except httpx.HTTPError as error:
            raise ServerError(f"{self.shown}: the connection broke: {error or type(error).__name__}") from error
        self._has_answered = True
        if reply.is_error:
            raise ServerError(f"{self.shown}: {_reason(reply)}")
        try:
            document = reply.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ServerError(f"{self.shown} answered something that is not TES: is it a TES server?")
        return document


def _server(text: str) -> SplitResult:
    """The server's URL in parts; a bare HOST:PORT is taken for http."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:
        pass
    raise click.UsageError("--server (or TESK_SERVER) is not a URL such as http://127.0.0.1:8080")


def _segment(task_id: str) -> str:
    if not task_id or "/" in task_id or not task_id.isprintable():
        raise click.UsageError(f"{task_id!r} is not a task id")
    return task_id


def _reason(reply: httpx.Response) -> str:
    """What the server gave as its reason, whichever of the usual shapes the body has."""
    try:
        body = reply.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        for key in ("msg", "message", "detail", "error", "title"):
            if body.get(key):
                return f"{body[key]} ({reply.status_code})"
    return f"{reply.status_code} {reply.reason_phrase}"
