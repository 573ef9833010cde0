"""One server per PostgreSQL database: two would both run every task that waits in it.

SQLite's lock file says the same of its file. Here it is an advisory lock of the database, held by a connection of its
own for as long as the server lives, so that it is free again the moment a killed server's connection closes.
Source: PostgreSQL manual, 13.3.5 Advisory Locks.
"""

from typing import Final

import asyncpg

from tesk.store.base import StoreError
from tesk.store.postgresql import CONNECT_S, DatabaseFailure, cannot_use, location

NUMBER: Final = 0x7465736B01
"""The lock's number: "tesk" and 1; migrations hold another."""


class Lease:
    """The right to serve a database, from `take` to `close`."""

    def __init__(self, connection: "asyncpg.Connection") -> None:
        self._connection = connection

    async def close(self) -> None:
        await self._connection.close(timeout=CONNECT_S)


async def take(url: str) -> Lease:
    """Takes the right to serve the database. Raises StoreError when another server has it."""
    where = location(url)
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
        try:
            free = await connection.fetchval("SELECT pg_try_advisory_lock($1)", NUMBER, timeout=CONNECT_S)
        except BaseException:
            connection.terminate()
            raise
    except (*DatabaseFailure, ValueError) as error:
        raise cannot_use(where, error) from None
    if not free:
        await connection.close(timeout=CONNECT_S)
        raise StoreError(f"{where} is served by another tesk: stop that one, or give this one a database of its own")
    return Lease(connection)
