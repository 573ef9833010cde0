"""A database that cannot be used is told in a sentence: which one, why, what to do; and never its password."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tesk.identity import SERVER
from tesk.store import open_store
from tesk.store.base import NewTask, Store, StoreError
from tests.servers.postgres import PASSWORD, Postgres, postgres
from tests.servers.process import free_port


async def failure(url: str) -> str:
    store = open_store(url, log_tail_bytes=9)
    with pytest.raises(StoreError) as caught:
        await store.open()
    return str(caught.value)


@pytest.mark.parametrize("url", ["", "mysql://h/d", "sqlite://", "sqlite:///", "sqlite://host/path", "/path"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="sqlite:///"):
        open_store(url, log_tail_bytes=9)


async def test_no_postgresql_there() -> None:
    port = free_port()
    message = await failure(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/tasks")
    assert message.startswith(f"PostgreSQL database me@127.0.0.1:{port}/tasks cannot be reached: ")
    assert PASSWORD not in message


async def test_a_wrong_password_is_not_shown(postgres_server: Postgres) -> None:
    message = await failure(postgres_server.url(password="wrong-one"))
    assert "refused the user or the password" in message
    assert "wrong-one" not in message


async def test_no_such_database(postgres_server: Postgres) -> None:
    assert "does not exist: create it first" in await failure(postgres_server.url("nothing"))


async def test_a_url_that_cannot_be_read(postgres_server: Postgres) -> None:
    message = await failure("postgresql://me:pa:ss/wo@rd@localhost:x/tasks")
    assert "cannot be read" in message
    assert "pa:ss" not in message


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database, but a text that is long enough to be taken for one" * 20)
    assert "x.db is not a SQLite database" in await failure(f"sqlite:///{tmp_path / 'x.db'}")


async def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert f"SQLite file {tmp_path}" in await failure(f"sqlite:///{tmp_path}")


async def test_a_file_in_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in await failure(f"sqlite:///{tmp_path / 'file' / 'x.db'}")


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """As a user that owns neither: root may write anything."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    store = open_store(url, log_tail_bytes=9)
    await store.open()
    await store.close()
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222 | 0o055)
    program = (
        "import asyncio, os, sys; from tesk.store import open_store\n"
        "import tesk.store.sqlite\n"
        f"store = open_store({url!r}, log_tail_bytes=9)\n"
        "os.geteuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))\n"
        "asyncio.run(store.open())\n"
    )
    for parent in tmp_path.parents[:3]:
        if parent != Path("/tmp") and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert "cannot be written" in done.stderr.splitlines()[-1]


async def test_a_second_process_on_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    store = open_store(url, log_tail_bytes=9)
    await store.open()
    assert f"in use by process {os.getpid()}" in await failure(url)
    await store.ping()
    await store.close()
    again = open_store(url, log_tail_bytes=9)
    await again.open()
    await again.close()


async def test_a_disk_that_is_full_fails_the_write_and_not_the_store(tmp_path: Path) -> None:
    """SQLite's own page limit stands for the end of the disk: it gives the same error."""
    path = tmp_path / "x.db"
    store = open_store(f"sqlite:///{path}", log_tail_bytes=9)
    await store.open()
    task_id = await store.create(NewTask(basic=b"{}"))
    writer: sqlite3.Connection = store._writer  # type: ignore[attr-defined]
    writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="make room"):
        await store.create(NewTask(basic=b"{}" * 100_000))
    writer.execute("PRAGMA max_page_count = 1000000")
    assert await store.get(task_id, "MINIMAL", SERVER) is not None
    assert await store.create(NewTask(basic=b"{}" * 100_000)) > task_id
    await store.close()


async def test_a_postgresql_that_goes_away_is_told_and_found_again() -> None:
    with postgres() as server:
        store = open_store(server.url(), log_tail_bytes=9)
        await store.open()
        await store.create(NewTask(basic=b"{}"))
    calls = [store.create(NewTask(basic=b"{}")), store.ping(), store.cancel("0" * 13, SERVER), store.prune(1)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, StoreError)
        assert PASSWORD not in str(error)
    await store.close()


async def test_connections_that_were_cut_are_made_anew(postgres_server: Postgres) -> None:
    store = open_store(postgres_server.new_database(), log_tail_bytes=9)
    await store.open()
    await store.create(NewTask(basic=b"{}"))
    postgres_server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tesk'")
    await _eventually_creates(store)
    await store.close()


async def _eventually_creates(store: Store) -> None:
    async with asyncio.timeout(180):
        while True:
            try:
                await store.create(NewTask(basic=b"{}"))
            except StoreError:
                await asyncio.sleep(0.01)
            else:
                return
