"""One server per PostgreSQL database: two would both run every task that waits in it.

SQLite's lock file does the same for its file. Here the server holds an advisory lock of the database, on a connection
of its own. When a server is killed, its connection closes and the lock is free at once. The connection may also close
while the server lives (PostgreSQL restarts, a failover, an administrator ends it): then the server takes the lock
again, unless another server was faster. Source: PostgreSQL manual, 13.3.5 Advisory Locks.
"""

import asyncio
import contextlib
import logging
from datetime import datetime
from typing import Final, NoReturn

import asyncpg

from tesk.store.base import StoreError
from tesk.store.postgresql import CONNECT_S, DatabaseFailure, cannot_use, location

NUMBER: Final = 0x7465736B01
"""The lock's number: "tesk" and 1; migrations hold another."""
CHECK_S: Final = 10.0
"""Time between two checks that the connection still answers."""
RETRY_S: Final = 2.0
KEEPALIVES: Final = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
"""With these PostgreSQL notices within a minute that a server's machine is gone, and frees its lock."""
THIS: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
END_FORMER: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"

Session = tuple[int, datetime]
log = logging.getLogger(__name__)


class Lease:
    """The right to serve a database, from `take` to `close`; `keep` has to run in between."""

    def __init__(self, url: str, connection: "asyncpg.Connection", session: Session) -> None:
        self._url = url
        self._location = location(url)
        self._hold(connection, session)

    def _hold(self, connection: "asyncpg.Connection", session: Session) -> None:
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        self._connection, self.session, self._gone = connection, session, gone

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed, so that another server can take the lock."""
        return self._gone.is_set() or self._connection.is_closed()

    async def close(self) -> None:
        with contextlib.suppress(*DatabaseFailure):
            await self._connection.close(timeout=CONNECT_S)

    async def keep(self) -> NoReturn:
        """Takes the lock again whenever its connection is gone. Raises StoreError when another server has it."""
        while True:
            await self._until_gone()
            log.warning("%s: the connection that keeps other servers away is gone, making another", self._location)
            await self._take_again()
            log.warning("%s: other servers are kept away again", self._location)

    async def _until_gone(self) -> None:
        while not self.is_gone:
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._gone.wait()
            except TimeoutError:
                try:
                    await self._connection.fetchval("SELECT 1", timeout=CONNECT_S)
                except DatabaseFailure:
                    self._connection.terminate()

    async def _take_again(self) -> None:
        while not await self._is_taken_again():  # noqa: ASYNC110 - PostgreSQL does not call
            await asyncio.sleep(RETRY_S)

    async def _is_taken_again(self) -> bool:
        """False where a retry may help: PostgreSQL cannot be reached, or the former session has not ended yet."""
        try:
            connection = await _connect(self._url)
            try:
                former_lives = await connection.fetchval(END_FORMER, *self.session, timeout=CONNECT_S)
                session = await _lock(connection)
            except BaseException:
                connection.terminate()
                raise
        except DatabaseFailure as error:
            log.warning("%s", cannot_use(self._location, error))
            return False
        if session is not None:
            self._hold(connection, session)
            return True
        connection.terminate()
        if former_lives:
            return False
        raise StoreError(f"{self._location} was taken by another tesk while this one had lost it: stop one")


async def take(url: str) -> Lease:
    """Takes the right to serve the database. Raises StoreError when another server has it."""
    where = location(url)
    try:
        connection = await _connect(url)
        try:
            session = await _lock(connection)
        except BaseException:
            connection.terminate()
            raise
    except (*DatabaseFailure, ValueError) as error:
        raise cannot_use(where, error) from None
    if session is None:
        await connection.close(timeout=CONNECT_S)
        raise StoreError(f"{where} is served by another tesk: stop that one, or give this one a database of its own")
    return Lease(url, connection, session)


async def _connect(url: str) -> "asyncpg.Connection":
    connection = await asyncpg.connect(url, timeout=CONNECT_S, server_settings={"application_name": "tesk lease"})
    try:
        await connection.execute(KEEPALIVES, timeout=CONNECT_S)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _lock(connection: "asyncpg.Connection") -> Session | None:
    """The session that has the lock now, or None where another has it."""
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", NUMBER, timeout=CONNECT_S):
        return None
    row = await connection.fetchrow(THIS, timeout=CONNECT_S)
    return None if row is None else (row["pid"], row["backend_start"])
