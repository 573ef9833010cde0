"""The ASGI application: one thin layer around the handlers.

The application finds the handler. For every request it does what a stack of middleware would do: check Host and Origin,
give a request id, make errors JSON, compress, log. Routes are one dictionary and one rule for task ids, since most
requests are create, get and list: that costs a third less per request than a framework's router.
"""

import asyncio
import os
import re
import time
import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import count
from typing import Final

from tesk.dispatch.dispatcher import Dispatcher
from tesk.server.body import Disconnected
from tesk.server.budget import MOST_BYTES, MemoryBudget, MemoryShare
from tesk.server.exchange import ANSWER, WHEN_SENT, Call, Handler, Header, Receive, Refusal, Reply, Scope, Send
from tesk.server.log import DEBUG, ERROR, INFO, Log, described
from tesk.server.maxima import maxima
from tesk.server.origins import Cors, Hosts
from tesk.server.service import Service
from tesk.server.tasks import Tasks
from tesk.settings import Settings
from tesk.store.base import Store, StoreError

PREFIXES: Final = ("/ga4gh/tes/v1", "/v1", "")
GZIP_BYTES: Final = 8 * 1024
"""Answers of at least this size are compressed for clients that accept it."""
THREAD_BYTES: Final = 64 * 1024
"""Answers of at least this size are compressed outside the event loop."""
DISCONNECTED: Final = 499
"""Status in the log of a request whose client went away, as in nginx."""

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_JSON: Final = (b"content-type", b"application/json")

Methods = Mapping[str, Handler]


def create_app(
    settings: Settings,
    store: Store,
    dispatcher: Dispatcher,
    *,
    parameters: Collection[str] = (),
    log: Log | None = None,
) -> "App":
    """The application. `parameters` are the backend parameters that the place supports."""
    tasks = Tasks(store, dispatcher, parameters, settings.max_body_bytes, maxima(settings))
    service = Service(settings, store, dispatcher, parameters)
    return App(tasks, service, Hosts(settings.host, settings.allowed_hosts), Cors(settings.cors_origins), log)


class App:
    """ASGI 3 callable."""

    def __init__(self, tasks: Tasks, service: Service, hosts: Hosts, cors: Cors, log: Log | None) -> None:
        self._hosts = hosts
        self._cors = cors
        self._log = log
        self._budget = MemoryBudget(MOST_BYTES)
        self._numbers = count(1)
        self._process = os.urandom(6).hex()
        self._routes = _routes(tasks, service)
        self._folders = frozenset(prefix + "/tasks" for prefix in PREFIXES)
        self._task: Methods = {"GET": tasks.get, "HEAD": tasks.get}
        self._cancel: Methods = {"POST": tasks.cancel}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this application serves HTTP, not {scope['type']}")
        started = time.perf_counter()
        call = Call(scope, receive, MemoryShare(self._budget))
        call.request_id = self._request_id(call.headers.get(b"x-request-id"))
        when_sent = scope.get("extensions", {}).get(WHEN_SENT)
        try:
            status = await self._answer(call, send)
        finally:
            if call.share.taken and when_sent is not None:
                when_sent(call.share.give_back)
            else:
                call.share.give_back()
        self._note(call, status, started)

    async def _answer(self, call: Call, send: Send) -> int:
        """Sends the answer; its status."""
        try:
            reply = await self._reply(call)
        except Disconnected:
            return DISCONNECTED
        body = reply.body
        call.share.settle(len(body))
        headers = self._headers(call, reply)
        if len(body) >= GZIP_BYTES:
            headers.append((b"vary", b"accept-encoding"))
            if _accepts_gzip(call.headers.get(b"accept-encoding", b"")):
                body = await _compressed(body)
                call.share.settle(len(body))
                headers.append((b"content-encoding", b"gzip"))
        headers.append((b"content-length", b"%d" % len(body)))
        answer = call.scope.get("extensions", {}).get(ANSWER)
        if answer is None or not answer(reply.status, _lines(headers), body):
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        return reply.status

    async def _reply(self, call: Call) -> Reply:
        try:
            self._hosts.check(call.headers, call.scope["http_version"])
            if call.method == "OPTIONS" and (preflight := self._cors.preflight(call.headers)):
                return preflight
            handler = self._handler(call)
            if call.method == "POST":
                self._cors.check_write(call.headers)
            return await handler(call)
        except Refusal as refusal:
            return refusal.reply()
        except StoreError as error:
            self._failed(call, error)
            return Refusal(503, str(error)).reply()
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - a defect becomes an answer and a log entry
            self._failed(call, error)
            return Refusal(500, f"internal error; see request id {call.request_id} in the server's log").reply()

    def _handler(self, call: Call) -> Handler:
        """The handler of a path and method. Sets `call.task_id` from the path. Raises Refusal (404, 405)."""
        methods = self._routes.get(call.path)
        if methods is None:
            folder, _, name = call.path.rpartition("/")
            if folder not in self._folders:
                raise Refusal(404, f"there is nothing at {call.path[:200]!r}; the API is at {PREFIXES[0]}")
            methods = self._task
            if name.endswith(":cancel"):
                name = name.removesuffix(":cancel")
                methods = self._cancel
            call.task_id = name
        handler = methods.get(call.method)
        if handler is None:
            allowed = ", ".join(methods)
            raise Refusal(
                405, f"{call.method} is not possible here; allowed: {allowed}", headers=((b"allow", allowed.encode()),)
            )
        return handler

    def _headers(self, call: Call, reply: Reply) -> list[Header]:
        headers = [(b"x-request-id", call.request_id.encode()), *reply.headers]
        if reply.status != 204:
            headers.append(_JSON)
        headers.extend(self._cors.headers(call.headers.get(b"origin")))
        return headers

    def _request_id(self, given: bytes | None) -> str:
        if given is not None and _SANE_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._process}-{next(self._numbers)}"

    def _note(self, call: Call, status: int, started: float) -> None:
        level = ERROR if status >= 500 else INFO if status >= 400 or call.method == "POST" else DEBUG
        if self._log is None or not self._log.wants(level):
            return
        task = {"task": call.task_id} if call.task_id and status < 400 else {}
        ms = round((time.perf_counter() - started) * 1000, 2)
        self._log.request(
            level, id=call.request_id, method=call.method, path=call.path[:500], status=status, ms=ms, **task
        )

    def _failed(self, call: Call, error: Exception) -> None:
        if self._log is not None:
            self._log.failure(described(error), id=call.request_id)


def _routes(tasks: Tasks, service: Service) -> dict[str, Methods]:
    """Fixed paths and their handlers by method."""
    routes: dict[str, Methods] = {
        "/": _read(service.root),
        "/healthz": _read(service.healthz),
        "/readyz": _read(service.readyz),
        "/openapi.json": _read(service.openapi),
    }
    for prefix in PREFIXES:
        routes[prefix + "/service-info"] = _read(service.info)
        routes[prefix + "/tasks/service-info"] = _read(service.old_info)
        routes[prefix + "/tasks"] = {**_read(tasks.list_), "POST": tasks.create}
    return routes


def _lines(headers: list[Header]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _read(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "HEAD": handler}


@lru_cache(maxsize=256)
def _accepts_gzip(header: bytes) -> bool:
    """Source: RFC 9110 §12.5.3; a weight of 0 is a refusal."""
    for part in header.decode("latin-1").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


async def _compressed(body: bytes) -> bytes:
    if len(body) < THREAD_BYTES:
        return _gzip(body)
    return await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)
    return packer.compress(body) + packer.flush()
