"""A create that failed for its client never runs, also where the database carries it out later or the server dies."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tesk.identity import SERVER
from tesk.store import open_store
from tesk.store.base import NewTask, Query, Store
from tests.servers.postgres import postgres
from tests.servers.process import program
from tests.servers.stalled import stalled

SOURCE = Path(__file__).parents[1] / "servers" / "fsync_gate.c"


class Disk:
    """`library`: preloaded into whoever writes the database, it stops at `gate`."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        self.library = folder / "fsync_gate.so"
        command = [program("cc"), "-O2", "-shared", "-fPIC", "-o", str(self.library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=300)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory(prefix="tesk-disk-") as folder:
        Path(folder).chmod(0o777)  # PostgreSQL has a user of its own
        yield Disk(Path(folder))


@pytest.fixture(params=["sqlite", "postgresql"])
def slow_url(
    request: pytest.FixtureRequest, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("FSYNC_GATE", str(disk.gate))
    if request.param == "sqlite":
        monkeypatch.setenv("LD_PRELOAD", str(disk.library))
        yield f"sqlite:///{tmp_path / 'tasks.db'}"
        return
    with postgres(durable=True, preload=str(disk.library)) as server:
        yield server.new_database()
        disk.gate.unlink(missing_ok=True)


@contextlib.contextmanager
def giving_up(url: str, disk: Disk) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, once it has given up a create whose commit still waits for the disk; the task that it kept."""
    command = [sys.executable, "-m", "tests.store.giving_up", url, str(disk.gate)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert child.stdout is not None
        word, kept = child.stdout.readline().split()
        assert (word, child.stdout.readline()) == ("kept", "gave up\n")
        yield child, kept
    finally:
        child.kill()
        child.communicate()


async def stored(url: str) -> list[str]:
    store = open_store(url, log_tail_bytes=9)
    await store.open()
    try:
        found = {row.id for row in await store.page(Query(10), SERVER)} | {each.id for each in await store.queued()}
        assert await store.page(Query(10, tags=(("a", "b"),)), SERVER) == []
        return sorted(found)
    finally:
        await store.close()


async def test_a_create_that_was_given_up_while_its_commit_waited_for_the_disk_never_runs(
    slow_url: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with giving_up(slow_url, disk) as (child, kept):
        monkeypatch.delenv("LD_PRELOAD", raising=False)
        disk.gate.unlink()
        said, _ = child.communicate("\n", timeout=300)
        assert said.split() == ["queued", kept]
        assert child.returncode == 0
    assert await stored(slow_url) == [kept]


@pytest.mark.parametrize("slow_url", ["sqlite"], indirect=True)
async def test_a_create_that_was_given_up_does_not_run_after_a_kill_either(
    slow_url: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with giving_up(slow_url, disk) as (child, kept):
        monkeypatch.delenv("LD_PRELOAD")
        child.kill()
        child.wait()
        disk.gate.unlink()
    assert await stored(slow_url) == [kept]
    assert await stored(slow_url) == [kept]


async def test_a_create_that_was_given_up_while_another_had_the_lock_never_runs(
    store: Store, database_url: str
) -> None:
    before = await store.create(NewTask(basic=b"{}"))
    with stalled(database_url):
        waiting = [asyncio.create_task(store.create(NewTask(basic=b"{}"))) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        assert not done
        for create in waiting:
            create.cancel()
        assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {
            asyncio.CancelledError
        }
    after = await store.create(NewTask(basic=b"{}"))
    assert [each.id for each in await store.queued()] == [before, after]
    async with asyncio.timeout(180):
        while len(await store.page(Query(10), SERVER)) > 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert [each.id for each in await store.page(Query(10), SERVER)] == [after, before]


async def test_a_create_is_in_the_queue_once_it_is_answered(store: Store) -> None:
    ids = [store.create(NewTask(basic=b"{}")) for _ in range(50)]
    created = await asyncio.gather(*ids)
    assert [each.id for each in await store.queued(limit=10)] == sorted(created)[:10]
    assert {each.id for each in await store.queued()} == set(created)
