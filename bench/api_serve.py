"""The server as it is measured: all of tesk's HTTP side, store and dispatcher, on an engine that has no room.

So created tasks stay queued and the figures are those of the API, not of containers. Run as
`python -m bench.api_serve DATABASE_URL [USERS_FILE]`; says `server: URL` as `tesk serve` does.
"""

import asyncio
import contextlib
import os
import sys

import uvloop

from bench.api_servers import ADMIN
from tesk.dispatch.dispatcher import Dispatcher
from tesk.life.status import TaskId
from tesk.places.base import ALL_ACTIVE, Demand, Denial, Job, Load, Report
from tesk.rules.file import RulesFile
from tesk.server.app import create_app
from tesk.server.listen import listen, url
from tesk.server.log import start
from tesk.server.people.ways import edge_of
from tesk.server.run import Server
from tesk.settings import Settings
from tesk.store import open_store
from tesk.tes import TaskLog


class NoRoom:
    """tesk.places.base.Engine that runs nothing."""

    name = "none"
    backend_parameters: frozenset[str] = frozenset()

    async def open(self, report: Report) -> None: ...

    async def close(self) -> None: ...

    def admission(self, demand: Demand, load: Load) -> Denial | None:
        return ALL_ACTIVE

    async def submit(self, job: Job) -> None:
        raise AssertionError(f"there is no room for {job.id}")

    async def cancel(self, task_id: TaskId) -> None: ...

    async def forget(self, task_id: TaskId) -> None: ...

    async def known(self) -> set[TaskId]:
        return set()

    async def live_log(self, task_id: TaskId) -> TaskLog | None:
        return None

    async def ready(self) -> str | None:
        return None


async def serve(database_url: str, users_file: str = "") -> None:
    settings = Settings(database_url=database_url, port=0, users_file=users_file, admins=(ADMIN,) if users_file else ())
    listener = listen(settings.host, 0, os.environ)
    with contextlib.closing(listener), contextlib.closing(start("warning")) as log:
        store = open_store(database_url, log_tail_bytes=settings.log_tail_bytes)
        await store.open()
        rules = RulesFile(settings.rules)
        dispatcher = Dispatcher(store, NoRoom(), settings, rules)
        await dispatcher.start()
        edge = edge_of(settings, log, store.tokens)
        if edge is not None:
            await edge.open()
        app = create_app(settings, store, dispatcher, rules=rules, log=log, edge=edge)
        await Server(app, url(listener)).serve(sockets=[listener])
        await dispatcher.stop()
        if edge is not None:
            await edge.close()
        await store.close()


if __name__ == "__main__":
    if sys.platform != "linux":
        raise SystemExit("the benchmarks run on Linux")
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(*sys.argv[1:]))
