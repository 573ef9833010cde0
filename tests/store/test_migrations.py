"""Migrations, the tables of tesk.store.schema and the SQL for a fresh database all make the same thing."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tesk.store import migrate, open_store
from tesk.store.base import NewTask, Query, StoreError
from tesk.store.schema import dialects, statements
from tests.servers.postgres import Postgres

REVISIONS = sorted((Path(migrate.__file__).parent / "migrations" / "versions").glob("*.py"))


def sqlite_catalogue(path: Path) -> list[str]:
    """Columns and indexes, as the database itself describes them."""
    with sqlite3.connect(path) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        found = [f"{table} {row}" for table in tables for row in database.execute(f"PRAGMA table_xinfo({table})")]
        listed = [row for table in tables for row in database.execute(f"PRAGMA table_list({table})")]
        indexes = database.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1")
        rows = [
            f"{row}" for table in ("frontier", "alembic_version") for row in database.execute(f"SELECT * FROM {table}")
        ]
        return [*found, *map(str, listed), *(row[0] for row in indexes), *rows]


def postgresql_catalogue(server: Postgres, url: str) -> str:
    columns = (
        "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, collation_name, column_default, "
        "character_maximum_length FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    statements = (columns, indexes, "SELECT * FROM frontier", "SELECT * FROM alembic_version")
    return "\n".join(server.psql(each, url) for each in statements)


def alembic(url: str) -> None:
    environment = {**os.environ, "TESK_MIGRATE_URL": url}
    subprocess.run([sys.executable, "-m", "tesk.store.migrations"], env=environment, check=True, timeout=300)


async def opened(url: str) -> None:
    store = open_store(url, log_tail_bytes=9)
    await store.open()
    await store.close()


def test_the_shipped_sql_is_that_of_the_tables() -> None:
    for name, dialect in dialects().items():
        assert migrate.newest_sql(name) == statements(dialect), "run: python -m tesk.store.schema"


def test_the_newest_revision_is_the_last_migration() -> None:
    assert REVISIONS[-1].name.startswith(f"{migrate.NEWEST}_")


async def test_migrations_make_what_a_fresh_sqlite_file_has(tmp_path: Path) -> None:
    await opened(f"sqlite:///{tmp_path / 'fresh.db'}")
    await asyncio.to_thread(alembic, f"sqlite:///{tmp_path / 'migrated.db'}")
    assert sqlite_catalogue(tmp_path / "migrated.db") == sqlite_catalogue(tmp_path / "fresh.db")


async def test_migrations_make_what_a_fresh_postgresql_database_has(postgres_server: Postgres) -> None:
    fresh, migrated = postgres_server.new_database(), postgres_server.new_database()
    await opened(fresh)
    await asyncio.to_thread(alembic, migrated)
    assert postgresql_catalogue(postgres_server, migrated) == postgresql_catalogue(postgres_server, fresh)


async def test_a_database_made_by_migrations_serves(database_url: str) -> None:
    await asyncio.to_thread(alembic, database_url)
    store = open_store(database_url, log_tail_bytes=9)
    await store.open()
    task_id = await store.create(NewTask(basic=b"{}"))
    assert [each.id for each in await store.page(Query(limit=1))] == [task_id]
    await store.close()


def set_revision(url: str, revision: str, server: Postgres | None) -> None:
    statement = f"UPDATE alembic_version SET version_num = '{revision}'"
    if server is not None:
        server.psql(statement, url)
        return
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute(statement)


async def test_a_newer_schema_is_refused(database_url: str, postgres_server: Postgres) -> None:
    await opened(database_url)
    server = postgres_server if database_url.startswith("postgresql") else None
    set_revision(database_url, "9999", server)
    with pytest.raises(StoreError, match=r"schema 9999, which this version of tesk .* does not know"):
        await opened(database_url)


async def test_an_older_schema_is_migrated_at_start(
    database_url: str, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program believes in a newer schema; Alembic runs, finds the database at its own newest, and all is well."""
    await opened(database_url)
    monkeypatch.setattr(migrate, "NEWEST", "0002")
    await opened(database_url)


async def test_several_servers_may_start_at_once_on_an_empty_postgresql(postgres_server: Postgres) -> None:
    url = postgres_server.new_database()
    await asyncio.gather(*(opened(url) for _ in range(5)))


def test_serving_imports_neither_sqlalchemy_nor_alembic(tmp_path: Path, postgres_server: Postgres) -> None:
    for url in (f"sqlite:///{tmp_path / 'tasks.db'}", postgres_server.new_database()):
        program = (
            "import asyncio, sys; from tesk.store import open_store\n"
            f"store = open_store({url!r}, log_tail_bytes=9)\n"
            "async def run():\n    await store.open(); await store.ping(); await store.close()\n"
            "asyncio.run(run())\n"
            "print(sorted(name for name in sys.modules if name in ('sqlalchemy', 'alembic', 'asyncpg')))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)
        assert done.stdout.strip() == ("[]" if url.startswith("sqlite") else "['asyncpg']")
