"""`tesk serve`: opens everything in the right order, answers, and closes it again in the reverse order.

The socket is opened first: a client that connects early waits a moment and is not refused. The place where tasks run is
opened last, in the background: a slow engine delays no answer. One process serves: SQLite has one writer, and group
commit makes one process fast enough.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import uvicorn
import uvloop

from tesk.dispatch.dispatcher import Dispatcher
from tesk.errors import RulesError
from tesk.places import open_place
from tesk.places.base import PlaceError
from tesk.rules.check import check as check_rules
from tesk.rules.file import RulesFile
from tesk.server.app import App, create_app
from tesk.server.connection import HttpConnection
from tesk.server.listen import CannotListen, listen, url
from tesk.server.log import Log, start
from tesk.server.people.way import PeopleError
from tesk.server.people.ways import check, edge_of
from tesk.settings import Settings
from tesk.store import database_of, open_store
from tesk.store.base import StoreError

if TYPE_CHECKING:
    from tesk.store.lease import Lease

KEEP_ALIVE_S: Final = 75
"""An idle connection is kept for this long: longer than any client waits between two polls."""
SHUTDOWN_LIMIT_S: Final = 8
GARBAGE: Final = 20_000
"""New objects between two runs of the garbage collector. Requests leave it no work, and with Python's default of 700 it
takes a tenth of the time of a create."""


def serve(settings: Settings, warnings: Sequence[str] = ()) -> None:
    """Serves until TERM or INT, then returns. Raises SystemExit with one line where it cannot start.

    `warnings` are about the settings; they go into the log.
    """
    try:
        listener = listen(settings.host, settings.port, os.environ)
        with contextlib.closing(listener), contextlib.closing(start(settings.log_level)) as log:
            check(settings, listener.getsockname()[0])
            for warning in warnings:
                logging.getLogger(__name__).warning(warning)
            bound_to = listener.getsockname()[0]
            uvloop.run(_serve(msgspec.structs.replace(settings, host=bound_to), listener, log))
    except (CannotListen, PeopleError, RulesError, StoreError, PlaceError) as error:
        raise SystemExit(f"tesk serve: {error}") from None


async def _serve(settings: Settings, listener: socket.socket, log: Log) -> None:
    async with contextlib.AsyncExitStack() as opened:
        lease = await _take_lease(settings, opened)
        store = open_store(database_of(settings), log_tail_bytes=settings.log_tail_bytes)
        opened.push_async_callback(store.close)
        await store.open()
        edge = edge_of(settings, log, store.tokens)
        if edge is not None:
            opened.push_async_callback(edge.close)
            await edge.open()
        rules = RulesFile(settings.rules, partial(check_rules, settings=settings))
        opened.push_async_callback(rules.close)
        await rules.open()
        place = open_place(settings)
        dispatcher = Dispatcher(store, place, settings, rules)
        opened.push_async_callback(dispatcher.stop)
        app = create_app(
            settings, store, dispatcher, parameters=place.backend_parameters, rules=rules, log=log, edge=edge
        )
        server = Server(app, url(listener))
        await dispatcher.start()
        await _serve_while_leased(server, listener, lease)


HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("content-security-policy", "frame-ancestors 'none'"),
)
"""Of every answer: no page of another origin shows one of ours in a frame, where its reader could be made to click."""


class Server(uvicorn.Server):
    """uvicorn's server with our connection class, our signal handlers and one line on stdout when it is ready."""

    def __init__(self, app: App, address: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpConnection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=[*HEADERS],
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
            )
        )
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()
        gc.set_threshold(GARBAGE)
        print(f"server: {self._address}", flush=True)

    def end_at_once(self, _: object = None) -> None:
        """Ends without a wait for the requests under way."""
        self.should_exit = self.force_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def _take_lease(settings: Settings, opened: contextlib.AsyncExitStack) -> "Lease | None":
    """Keeps a second server from using a PostgreSQL database. SQLite's store does so by itself."""
    if not settings.database_url.startswith("postgres"):
        return None
    from tesk.store.lease import take

    lease = await take(settings.database_url)
    opened.push_async_callback(lease.close)
    return lease


async def _serve_while_leased(server: Server, listener: socket.socket, lease: "Lease | None") -> None:
    """Serves until a signal. Raises StoreError as soon as another server has the database."""
    keeping = None if lease is None else asyncio.create_task(lease.keep())
    if keeping is not None:
        keeping.add_done_callback(server.end_at_once)
    try:
        await server.serve(sockets=[listener])
    finally:
        if keeping is not None and not keeping.cancel():
            keeping.result()
