"""A PostgreSQL database has one server at a time."""

import asyncio
import os
import signal

import pytest

from tesk.store import lease
from tesk.store.base import StoreError
from tesk.store.lease import take
from tests.servers.postgres import Postgres


async def test_a_second_server_is_refused_until_the_first_is_gone(postgres_server: Postgres) -> None:
    url = postgres_server.new_database()
    first = await take(url)
    with pytest.raises(StoreError, match="served by another tesk"):
        await take(url)
    other_database = await take(postgres_server.new_database())
    await other_database.close()
    await first.close()
    async with asyncio.timeout(300):
        second = await take(url)
    await second.close()


async def test_a_session_that_hangs_is_not_taken_for_another_server(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "CHECK_S", 0.1)
    monkeypatch.setattr(lease, "RETRY_S", 0.1)
    url = postgres_server.new_database()
    held = await take(url)
    former = held.session[0]
    monkeypatch.setattr(lease, "CONNECT_S", 2.0)
    os.kill(former, signal.SIGSTOP)
    keeping = asyncio.create_task(held.keep())
    try:
        async with asyncio.timeout(600):
            while not held.is_gone:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.05)
            monkeypatch.setattr(lease, "CONNECT_S", 300.0)  # so that the next session is not taken to hang too
            await asyncio.sleep(0.3)
            os.kill(former, signal.SIGCONT)
            while held.session[0] == former:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
        with pytest.raises(StoreError, match="served by another tesk"):
            await take(url)
        assert not keeping.done()
    finally:
        keeping.cancel()
        await held.close()


async def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        await take("postgresql://me:secret-word@127.0.0.1:1/tasks")
    assert "secret-word" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
