"""Brings a database to the newest schema, and refuses one that is newer than this program.

An empty database gets the newest tables at once, from SQL files in this package: that takes milliseconds, while the
import of Alembic takes longer than all the rest of the start. An older database is migrated by Alembic in a process of
its own, whose memory is free again when it ends.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tesk.store.base import StoreError

NEWEST: Final = "0005"
"""The newest revision in `migrations/versions`."""
MIGRATION_S: Final = 3600.0
CONNECT_S: Final = 10.0
LOCK: Final = 0x7465736B
"""The advisory lock that a server holds while it makes or migrates the tables: "tesk" in ASCII."""


def newest_sql(database: str) -> str:
    """SQL that makes all tables; `database` is sqlite or postgresql."""
    return (Path(__file__).parent / "newest" / f"{database}.sql").read_text()


def sqlite(path: Path) -> None:
    """Makes or migrates the tables of the file."""
    database = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        database.execute("PRAGMA journal_mode = WAL").fetchone()
        found = _sqlite_revision(database)
        if found is None:
            script = f"BEGIN IMMEDIATE;{newest_sql('sqlite')}INSERT INTO alembic_version VALUES ('{NEWEST}');COMMIT"
            database.executescript(script)
    finally:
        database.close()
    if found is not None and found != NEWEST:
        upgrade(f"sqlite:///{quote(str(path))}", found, f"SQLite file {path}")


def sqlite_revision(path: Path) -> str | None:
    """The schema that the file has; None for one that is missing or empty."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as database:
        return _sqlite_revision(database)


def _sqlite_revision(database: sqlite3.Connection) -> str | None:
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    found: str = database.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    return found


async def postgresql(url: str, location: str) -> None:
    """Makes or migrates the tables of the database. Of several servers that start at once, one does so."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=CONNECT_S)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK, timeout=MIGRATION_S)
        if await connection.fetchval("SELECT to_regclass('alembic_version')"):
            found = await connection.fetchval("SELECT version_num FROM alembic_version")
            if found != NEWEST:
                await asyncio.to_thread(upgrade, url, found, location)
            return
        async with connection.transaction():
            await connection.execute(newest_sql("postgresql"))
            await connection.execute("INSERT INTO alembic_version VALUES ($1)", NEWEST)
    finally:
        await connection.close(timeout=CONNECT_S)


def upgrade(url: str, found: str, location: str) -> None:
    """Runs Alembic in a process of its own. The URL is passed in the environment: everybody can read arguments."""
    check_known(found, location)
    command = [sys.executable, "-m", "tesk.store.migrations"]
    environment = {**os.environ, "TESK_MIGRATE_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MIGRATION_S, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise StoreError(f"{location} could not be migrated from schema {found} to {NEWEST}: {reason[0]}")


def check_known(found: str, location: str) -> None:
    """Raises StoreError for a revision that is not one of this program's."""
    versions = Path(__file__).parent / "migrations" / "versions"
    if not any(file.name.startswith(f"{found}_") for file in versions.glob("*.py")):
        raise StoreError(
            f"{location} has schema {found}, which this version of tesk (schema {NEWEST}) does not know: "
            "use the newer tesk that made it, or another database"
        )
