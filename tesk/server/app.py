"""The ASGI application: one thin layer around the handlers.

The application finds the handler. For every request it does what a stack of middleware would do: check Host and Origin,
give a request id, make errors JSON, compress, log. Routes are one dictionary and one rule for task ids, since most
requests are create, get and list: that costs a third less per request than a framework's router. A route names what the
caller must be good for; who calls is found (people/edge.py) before any handler is called.
"""

import asyncio
import os
import re
import time
import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Final

from tesk.dispatch.dispatcher import Dispatcher
from tesk.identity import EVERYBODY
from tesk.rules.file import RulesFile
from tesk.server.body import Disconnected
from tesk.server.budget import MOST_BYTES, MemoryBudget, MemoryShare
from tesk.server.capabilities import Capabilities
from tesk.server.exchange import (
    ANSWER,
    WHEN_SENT,
    Call,
    Handler,
    Header,
    Methods,
    Receive,
    Refusal,
    Reply,
    Route,
    Scope,
    Send,
    read,
)
from tesk.server.log import DEBUG, ERROR, INFO, Log, described
from tesk.server.maxima import maxima
from tesk.server.origins import Cors, Hosts
from tesk.server.people.audit import note
from tesk.server.people.sharing import Sharing
from tesk.server.people.ways import ways_in
from tesk.server.people.whoami import SignIn, whoami
from tesk.server.service import Service
from tesk.server.tasks import Tasks
from tesk.server.usage import UsageCalls
from tesk.settings import Settings
from tesk.store.base import Store, StoreError

if TYPE_CHECKING:
    from tesk.server.people.edge import Edge

PREFIXES: Final = ("/ga4gh/tes/v1", "/v1", "")
BESIDE_TES: Final = "/api/v1"
_ITEM: Final = "/{id}"
GZIP_BYTES: Final = 8 * 1024
"""Answers of at least this size are compressed for clients that accept it."""
THREAD_BYTES: Final = 64 * 1024
"""Answers of at least this size are compressed outside the event loop."""
AUDITED: Final = {"submit": "created", "cancel": "cancelled"}
"""What a call did whose route needs that scope, in the words of the audit log."""
NOT_ALLOWED: Final = frozenset({403, 429})
"""Refusals of what a caller who is known may not do, or not now: by role, scope, rules or quota."""
DISCONNECTED: Final = 499
"""Status in the log of a request whose client went away, as in nginx."""

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def create_app(
    settings: Settings,
    store: Store,
    dispatcher: Dispatcher,
    *,
    parameters: Collection[str] = (),
    rules: RulesFile,
    log: Log | None = None,
    edge: "Edge | None" = None,
) -> "App":
    """The application. `parameters` are the backend parameters that the place supports.

    `edge` finds out who calls; without one nobody is asked to sign in.
    """
    tasks = Tasks(store, dispatcher, parameters, settings.max_body_bytes, maxima(settings), rules)
    service = Service(settings, store, dispatcher, parameters, ways_in(settings), rules)
    capabilities = Capabilities(settings, rules)
    routes = _routes(tasks, service, public_info=settings.public_service_info)
    beside_tes = _beside_tes(settings, store, edge, log) | {"capabilities": read(capabilities.get, "signed-in")}
    routes |= {f"{BESIDE_TES}/{path}": methods for path, methods in beside_tes.items()}
    return App(tasks, routes, Hosts(settings.host, settings.allowed_hosts), Cors(settings.cors_origins), log, edge)


class App:
    """ASGI 3 callable."""

    def __init__(
        self, tasks: Tasks, routes: Mapping[str, Methods], hosts: Hosts, cors: Cors, log: Log | None,
        edge: "Edge | None",
    ) -> None:  # fmt: skip
        self._hosts = hosts
        self._cors = cors
        self._log = log
        self._edge = edge
        self._budget = MemoryBudget(MOST_BYTES)
        self._numbers = count(1)
        self._process = os.urandom(6).hex()
        self._routes = {path: methods for path, methods in routes.items() if not path.endswith(_ITEM)}
        self._items = {path.removesuffix(_ITEM): methods for path, methods in routes.items() if path.endswith(_ITEM)}
        self._folders = frozenset(prefix + "/tasks" for prefix in PREFIXES)
        self._task: Methods = read(tasks.get, "read")
        self._cancel: Methods = {"POST": Route(tasks.cancel, "cancel")}

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
            route = self._route(call)
            if call.method not in _READS:
                self._cors.check_write(call.headers)
            if self._edge is None:
                call.identity = EVERYBODY
            elif route.needs != "open":
                call.identity = await self._edge.identify(call)
                self._edge.check_scope(call.identity, route.needs)
                reply = await route.handler(call)
                if what := AUDITED.get(route.needs):
                    note(self._log, what, call.identity, id=call.request_id, task=call.task_id)
                return reply
            return await route.handler(call)
        except Refusal as refusal:
            if call.identity.user and refusal.status in NOT_ALLOWED:
                self._note_refused(call, refusal)
            return refusal.reply()
        except StoreError as error:
            self._failed(call, error)
            return Refusal(503, str(error)).reply()
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - a defect becomes an answer and a log entry
            self._failed(call, error)
            return Refusal(500, f"internal error; see request id {call.request_id} in the server's log").reply()

    def _route(self, call: Call) -> Route:
        """The route of a path and method. Sets `call.task_id` or `call.item`. Raises Refusal (404, 405)."""
        methods = self._routes.get(call.path)
        if methods is None:
            folder, _, name = call.path.rpartition("/")
            if folder in self._folders:
                methods = self._task
                if name.endswith(":cancel"):
                    name = name.removesuffix(":cancel")
                    methods = self._cancel
                call.task_id = name
            elif name and folder in self._items:
                methods = self._items[folder]
                call.item = name
            else:
                raise Refusal(404, f"there is nothing at {call.path[:200]!r}; the API is at {PREFIXES[0]}")
        route = methods.get(call.method)
        if route is None:
            allowed = ", ".join(methods)
            raise Refusal(
                405, f"{call.method} is not possible here; allowed: {allowed}", headers=((b"allow", allowed.encode()),)
            )
        return route

    def _headers(self, call: Call, reply: Reply) -> list[Header]:
        headers = [(b"x-request-id", call.request_id.encode()), *reply.headers]
        if reply.status != 204:
            headers.append(reply.content_type)
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
        about = {"task": call.task_id} if call.task_id and status < 400 else {}
        if call.identity.user:
            about["user"] = call.identity.user
        ms = round((time.perf_counter() - started) * 1000, 2)
        self._log.request(
            level, id=call.request_id, method=call.method, path=call.path[:500], status=status, ms=ms, **about
        )

    def _note_refused(self, call: Call, refusal: Refusal) -> None:
        about = {"task": call.task_id} if call.task_id else {}
        if refusal.field:
            about["field"] = refusal.field
        asked = f"{call.method} {call.path[:500]}"
        note(self._log, "refused", call.identity, id=call.request_id, asked=asked, reason=refusal.msg, **about)

    def _failed(self, call: Call, error: Exception) -> None:
        if self._log is not None:
            self._log.failure(described(error), id=call.request_id)


def _routes(tasks: Tasks, service: Service, *, public_info: bool) -> dict[str, Methods]:
    """Routes by path: fixed ones, and PATH/{id} for the items below a path. Those of TES tasks by id are in App."""
    routes: dict[str, Methods] = {
        "/": read(service.root, "open"),
        "/healthz": read(service.healthz, "open"),
        "/readyz": read(service.readyz, "open"),
        "/openapi.json": read(service.openapi, "open"),
    }
    for prefix in PREFIXES:
        routes[prefix + "/service-info"] = read(service.info, "open" if public_info else "signed-in")
        routes[prefix + "/tasks/service-info"] = read(service.old_info, "open" if public_info else "signed-in")
        routes[prefix + "/tasks"] = {**read(tasks.list_, "read"), "POST": Route(tasks.create, "submit")}
    return routes


def _beside_tes(settings: Settings, store: Store, edge: "Edge | None", log: Log | None) -> dict[str, Methods]:
    """What /api/v1 has, by its path there: NAME, or NAME/{id} for what is below NAME (see Call.item)."""
    sharing = Sharing(store, log)
    routes: dict[str, Methods] = {
        "shares": {
            **read(sharing.list_, "read"),
            "POST": Route(sharing.share, "submit"),
            "DELETE": Route(sharing.unshare, "submit"),
        },
        "usage": read(UsageCalls(store).get, "read"),
        "whoami": read(whoami, "signed-in"),
        "sign-in": read(SignIn(edge).get, "open"),
    }
    if edge is None or settings.tokens == "never":
        none = _refusing("nobody signs in here" if edge is None else "the setting tokens is never")
        return routes | {"tokens": {**read(none, "open"), "POST": Route(none, "open")}}
    from tesk.server.people.token_calls import TokenCalls

    tokens = TokenCalls(store.tokens, settings.token_days, edge.forget, log)
    return routes | {
        "tokens": {**read(tokens.list_, "signed-in"), "POST": Route(tokens.make, "signed-in")},
        "tokens/{id}": {"DELETE": Route(tokens.revoke, "signed-in")},
    }


def _refusing(reason: str) -> Handler:
    async def refuse(_: Call) -> Reply:
        raise Refusal(403, f"there are no API tokens on this server: {reason}")

    return refuse


def _lines(headers: list[Header]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


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
