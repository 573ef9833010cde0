"""A PostgreSQL database has one server at a time."""

import asyncio

import pytest

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
    async with asyncio.timeout(10):
        second = await take(url)
    await second.close()


async def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        await take("postgresql://me:secret-word@127.0.0.1:1/tasks")
    assert "secret-word" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
