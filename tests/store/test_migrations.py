"""Migrations, the tables of tesk.store.schema and the SQL for a fresh database all make the same thing."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tesk.identity import SERVER, Identity, Owner
from tesk.rules import NO_GRANTS
from tesk.store import blocks, migrate, open_store, pages, queries
from tesk.store.base import NewTask, Query, Row, StoreError
from tesk.store.identifiers import show
from tesk.store.schema import dialects, statements
from tesk.tes import State
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
        "SELECT table_name, row_number() OVER (PARTITION BY table_name ORDER BY ordinal_position), column_name, "
        "data_type, is_nullable, collation_name, column_default, "
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
    assert [each.id for each in await store.page(Query(limit=1), SERVER)] == [task_id]
    await store.close()


def catalogue(url: str, server: Postgres) -> object:
    if url.startswith("postgresql"):
        return postgresql_catalogue(server, url)
    return sqlite_catalogue(Path(url.removeprefix("sqlite:///")))


def run_sql(url: str, statements: str, server: Postgres | None) -> None:
    if server is not None:
        server.psql(statements, url)
        return
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.executescript(statements)


async def test_a_newer_schema_is_refused(database_url: str, postgres_server: Postgres) -> None:
    await opened(database_url)
    server = postgres_server if database_url.startswith("postgresql") else None
    run_sql(database_url, "UPDATE alembic_version SET version_num = '9999'", server)
    with pytest.raises(StoreError, match=r"schema 9999, which this version of tesk .* does not know"):
        await opened(database_url)


async def test_an_older_server_refuses_the_newest_schema(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(database_url)
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    shutil.copy(REVISIONS[0], versions)
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "migrate.py"))
    monkeypatch.setattr(migrate, "NEWEST", "0001")
    with pytest.raises(StoreError, match=f"schema {REVISIONS[-1].name[:4]}, which this version of tesk"):
        await opened(database_url)


def old_database(url: str, server: Postgres) -> None:
    """A database of schema 0001: three tasks, of which two are summarised."""
    program = (
        "from alembic import command; from tesk.store.migrations.__main__ import config\n"
        "command.upgrade(config(), '0001')"
    )
    environment = {**os.environ, "TESK_MIGRATE_URL": url}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
    is_sqlite = url.startswith("sqlite")

    def blob(data: bytes) -> str:
        return f"x'{data.hex()}'" if is_sqlite else f"'\\x{data.hex()}'"

    both, tags = blob(blocks.pack([0, 1])), blob(b'{"run":"1"}')
    rows = [f"({n << 20}, 0, {state}, 1, 1, {ended}, 'sample', {tags}, {blob(b'{}')})" for n, state, ended in OLD_TASKS]
    keys = [*((key, both) for key in ("krun", "t3:run=1", "msample", "nsamp", "nsa", "ns")), ("s5", both)]
    statements = [
        f"INSERT INTO task (id, owner, state, submitted, created, ended, name, tags, basic) VALUES {', '.join(rows)}",
        *(f"INSERT INTO tag VALUES (0, 'run', {n << 20}, '1')" for n, *_ in OLD_TASKS),
        f"INSERT INTO span VALUES (0, 0, {2 << 20}, 2, 0, 2, 0)",
        f"INSERT INTO place VALUES (0, {1 << 20}), (1, {2 << 20})",
        *(f"INSERT INTO term VALUES (0, 0, '{key}', {bitmap})" for key, bitmap in keys),
    ]
    if is_sqlite:
        with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
            database.executescript(";".join(statements))
    else:
        for statement in statements:
            server.psql(statement, url)


OLD_TASKS = [(1, 5, 2), (2, 5, 2), (3, 1, "NULL")]
"""Number, state and end."""


async def test_tasks_of_an_older_schema_are_nobodys_and_are_found_by_all_filters(
    database_url: str, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(old_database, database_url, postgres_server)
    store = open_store(database_url, log_tail_bytes=9)
    await store.open()
    ann = Identity(user="ann", groups=frozenset({"lab"}))
    new = await store.create(NewTask(basic=b"{}", name="sample", tags={"run": "1"}, owner=Owner("ann", "lab")))
    ids = [show(n << 20) for n, *_ in OLD_TASKS]
    for rare in (queries.RARE, 1):  # by indexes, and by the bitmaps that are there
        monkeypatch.setattr(queries, "RARE", rare)
        monkeypatch.setattr(pages, "RARE", rare)
        for prefix, tags in (("", ()), ("sam", ()), ("", (("run", "1"),)), ("samp", (("run", ""), ("run", "1")))):
            query = Query(9, name_prefix=prefix, tags=tags)
            assert [each.id for each in await store.page(query, SERVER)] == [new, *ids[::-1]]
            assert [each.id for each in await store.page(query, ann)] == [new]
            ended = msgspec.structs.replace(query, state=State.COMPLETE)
            assert [each.id for each in await store.page(ended, SERVER)] == ids[1::-1]
    found = await store.get(ids[0], "FULL", SERVER)
    assert isinstance(found, Row)
    assert found.grants == NO_GRANTS
    assert await store.get(ids[0], "BASIC", ann) is None
    assert await store.cancel(ids[2], ann) is None
    assert await store.cancel(ids[2], SERVER) is State.CANCELING
    await store.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database_url: str, postgres_server: Postgres
) -> None:
    await asyncio.to_thread(old_database, database_url, postgres_server)
    server = postgres_server if database_url.startswith("postgresql") else None
    run_sql(database_url, "UPDATE tag SET owner = 1; INSERT INTO tag VALUES (0, 'run', 1048576, '1')", server)
    before = catalogue(database_url, postgres_server)
    with pytest.raises(StoreError, match="could not be migrated from schema 0001 to 00"):
        await opened(database_url)
    assert catalogue(database_url, postgres_server) == before
    run_sql(database_url, "DELETE FROM tag WHERE owner = 0", server)
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
