"""`kill -9` at any moment: each answered task and transition is there and whole, and nothing is there by halves."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import asyncpg
import msgspec

from tesk.identity import SERVER
from tesk.store import open_store
from tesk.store.base import Brief, NewTask, Query, Row, Store
from tesk.tes import State
from tests.servers.postgres import Postgres
from tests.store.creating import content, document

KILLS = 6
CLIENTS = 16


def killed_at_random(url: str, folder: Path, after: int, program: str = "tests.store.creating") -> list[list[str]]:
    """What a process said that was killed some time after its `after`th word."""
    said = folder / "said"
    with said.open("wb") as out:
        child = subprocess.Popen([sys.executable, "-m", program, url, str(CLIENTS)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        try:
            for _ in range(after):
                out.write(child.stdout.readline())
            child.kill()
            out.write(child.stdout.read())
        finally:
            child.kill()
            child.stdout.close()
            child.wait()
    lines = said.read_bytes().split(b"\n")[:-1]
    assert lines[0] == b"open"
    return [line.decode().split() for line in lines[1:]]


async def test_what_was_answered_outlives_a_kill(durable_url: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    answered: dict[str, int] = {}
    running: set[str] = set()
    for _ in range(KILLS):
        for word, task_id, number in await asyncio.to_thread(
            killed_at_random, durable_url, tmp_path, chance.randint(2, 600)
        ):
            assert word in {"created", "running"}
            answered[task_id] = int(number)
            if word == "running":
                running.add(task_id)
        await _sessions_end(durable_url)
        store = open_store(durable_url, log_tail_bytes=1000)
        await store.open()
        try:
            await _all_is_whole(store, answered, running)
        finally:
            await store.close()
    assert len(answered) > KILLS
    assert running


async def _sessions_end(url: str) -> None:
    """PostgreSQL may still carry out what a process sent before it was killed: until its sessions have ended."""
    if not url.startswith("postgresql"):
        return
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(300):
            while await connection.fetchval(OTHERS):  # noqa: ASYNC110 - PostgreSQL does not call
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def _all_is_whole(store: Store, answered: dict[str, int], running: set[str]) -> None:
    for task_id in answered:
        assert await store.get(task_id, "MINIMAL", SERVER) is not None
    before, found = None, set[str]()
    while page := await store.page(Query(limit=500, view="FULL", before=before), SERVER):
        for row in page:
            assert isinstance(row, Row)
            await _is_whole(store, row)
            found.add(row.id)
            assert (row.state is State.RUNNING) or row.id not in running
        before = page[-1].id
    assert set(answered) <= found


async def _is_whole(store: Store, row: Row) -> None:
    number = int(msgspec.json.decode(row.document)["name"])
    basic = await store.get(row.id, "BASIC", SERVER)
    assert isinstance(basic, Row)
    assert (basic.document, row.document) == (document(number), content(number))
    assert (row.logs is None) is (basic.logs is None) is (row.state is State.QUEUED)
    if row.logs is not None:
        assert msgspec.json.decode(row.logs)[0]["logs"] == [{"exit_code": -1, "stdout": str(number)}]
    same = await store.page(Query(limit=100, tags=(("number", str(number)),), name_prefix=str(number)), SERVER)
    assert Brief(row.id, row.state) in same


async def test_every_commit_is_durable_where_the_database_says_off(postgres_server: Postgres) -> None:
    url = postgres_server.new_database()
    postgres_server.psql(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    store = open_store(url, log_tail_bytes=9)
    await store.open()
    try:
        postgres_server.psql(NOTE_EACH_COMMIT, url)
        for _ in range(5):
            await asyncio.gather(*(store.create(NewTask(basic=b"{}")) for _ in range(5)))
    finally:
        await store.close()
    assert postgres_server.psql("SELECT DISTINCT setting FROM noted", url) == "on"


NOTE_EACH_COMMIT = """
CREATE TABLE noted (setting text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT ON task FOR EACH STATEMENT EXECUTE FUNCTION note();
"""
