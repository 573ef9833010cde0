"""A TES client on the standard library's urllib: a command starts in a third of the time that it takes with httpx.

Every call has a time limit. If the server has answered once and then cannot be reached, as in a restart, reads are
repeated. A create is never repeated, since the server might have stored the task.
"""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlencode, urlsplit, urlunsplit
from urllib.request import ProxyHandler, Request, build_opener

import click

Document = dict[str, Any]
Query = Sequence[tuple[str, str]]

API: Final = "/ga4gh/tes/v1"
BESIDE_TES: Final = "/api/v1"
TIMEOUT_S: Final = 30.0
PAGE: Final = 256
RETRIES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class ServerError(click.ClickException):
    """The server cannot be reached or refuses; ends the command with its text on one line."""


class AwayError(ServerError):
    """The connection failed: no answer came."""


class TesClient:
    """The calls of the commands to one server.

    `server` is its URL, with or without the API's base path. `authorization` gives the header of that name for the
    server's URL, empty where there is no credential; a user and password in the URL come first.
    """

    def __init__(self, server: str, authorization: Callable[[str], str] = lambda _: "") -> None:
        parts = _server(server)
        userinfo, _, host = parts.netloc.rpartition("@")
        path = parts.path.rstrip("/")
        self.shown = urlunsplit((parts.scheme, host, path, "", ""))
        self._base = self.shown if path.endswith("/v1") else self.shown + API
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}
        basic = f"Basic {b64encode(unquote(userinfo).encode()).decode()}" if userinfo else ""
        self._authorization = basic or authorization(self.shown)
        self.is_here = parts.hostname in LOOPBACK
        self._opener = build_opener(*([ProxyHandler({})] if self.is_here else []))
        self._has_answered = False

    def create(self, body: bytes) -> str:
        """The id of the new task."""
        return str(self._send("POST", "/tasks", body)["id"])

    def get(self, task_id: str, view: str = "FULL") -> Document:
        return self._read(f"/tasks/{_segment(task_id)}", [("view", view)])

    def service_info(self) -> Document:
        return self._read("/service-info")

    def cancel(self, task_id: str) -> None:
        self._send("POST", f"/tasks/{_segment(task_id)}:cancel", b"{}")

    def beside_tes(self, method: str, path: str, content: Document | None = None) -> Document:
        """Calls the API of tesk that is no part of TES: /api/v1/PATH below the URL that the TES API is below, too."""
        root = self.shown.removesuffix("/v1").removesuffix("/ga4gh/tes")
        body = None if content is None else json.dumps(content).encode()
        return self._request(method, f"{root}{BESIDE_TES}/{path}", body)

    def tasks(self, filters: Query, view: str, limit: int) -> Iterator[Document]:
        """The newest tasks first, page after page; with `limit` 0 all of them."""
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

    def _read(self, path: str, query: Query = ()) -> Document:
        target = f"{path}?{urlencode(query)}" if query else path
        for pause in RETRIES_S:
            try:
                return self._send("GET", target)
            except AwayError:
                if not self._has_answered:
                    raise
            time.sleep(pause)
        return self._send("GET", target)

    def _send(self, method: str, target: str, body: bytes | None = None) -> Document:
        return self._request(method, self._base + target, body)

    def _request(self, method: str, url: str, body: bytes | None) -> Document:
        request = Request(url, body, self._headers, method=method)  # noqa: S310 - http(s), see _server
        if self._authorization:  # which goes nowhere else, should the server lead there
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                text = reply.read()
        except HTTPError as refusal:
            with refusal:
                raise ServerError(f"{self.shown}: {_reason(refusal)}") from None
        except (OSError, HTTPException) as error:
            raise AwayError(self._absence(error)) from error
        self._has_answered = True
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ServerError(f"{self.shown} answered something that is not TES: is it a TES server?")
        return document

    def _absence(self, error: OSError | HTTPException) -> str:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, TimeoutError):
            return f"{self.shown} did not answer within {TIMEOUT_S:g} s"
        if isinstance(error, URLError):
            hint = "start one with `tesk serve`, or name another with --server or TESK_SERVER"
            return f"no server at {self.shown} ({getattr(cause, 'strerror', None) or cause}): {hint}"
        return f"{self.shown}: the connection broke: {cause or type(cause).__name__}"


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


def _reason(refusal: HTTPError) -> str:
    """The server's reason, from a body in any of the usual shapes."""
    try:
        body = json.loads(refusal.read())
    except (ValueError, OSError, HTTPException):
        body = None
    if isinstance(body, dict):
        for key in ("msg", "message", "detail", "error", "title"):
            if body.get(key):
                return f"{body[key]} ({refusal.code})"
    return f"{refusal.code} {refusal.reason}"
