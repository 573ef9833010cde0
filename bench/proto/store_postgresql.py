"""PostgreSQL by asyncpg: what waits goes into one `unnest` INSERT."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

SCHEMA = """
CREATE TABLE IF NOT EXISTS task(id BIGINT PRIMARY KEY, owner INT NOT NULL, state SMALLINT NOT NULL,
  name TEXT, created BIGINT NOT NULL, basic BYTEA NOT NULL, "full" BYTEA, logs BYTEA);
CREATE INDEX IF NOT EXISTS task_owner ON task(owner, id DESC) INCLUDE (state);
CREATE INDEX IF NOT EXISTS task_state ON task(owner, state, id DESC);
CREATE TABLE IF NOT EXISTS tag(owner INT, key TEXT, value TEXT, task BIGINT, PRIMARY KEY(owner,key,value,task));
"""
MANY = (
    'WITH t AS (INSERT INTO task(id,owner,state,name,created,basic,"full") SELECT * FROM '
    "unnest($1::bigint[],$2::int[],$3::smallint[],$4::text[],$5::bigint[],$6::bytea[],$7::bytea[])) "
    "INSERT INTO tag SELECT * FROM unnest($8::int[],$9::text[],$10::text[],$11::bigint[])"
)
Tags = Sequence[tuple[int, str, str, int]]


class Store:
    def __init__(self, url: str) -> None:
        self.url, self.last, self.node = url, 0, os.getpid() & 0x3FF
        self.pending: list[tuple[Any, Tags, asyncio.Future[None]]] = []
        self.writers: set[asyncio.Task[None]] = set()

    def new_id(self) -> int:
        now = (int(time.time() * 1000) << 20) | (self.node << 10)
        self.last = now if now > self.last else self.last + 1
        return self.last

    async def start(self) -> None:
        self.pool = await asyncpg.create_pool(self.url, min_size=16, max_size=16)
        await self.pool.execute(SCHEMA)

    async def insert(self, row: tuple[Any, ...], tags: Tags) -> None:
        answer = asyncio.get_running_loop().create_future()
        self.pending.append((row, tags, answer))
        if len(self.writers) < 2:
            writer = asyncio.create_task(self.write())
            self.writers.add(writer)
        await answer

    async def write(self) -> None:
        while self.pending:
            async with self.pool.acquire() as connection:
                items, self.pending = self.pending[:512], self.pending[512:]
                if items:
                    await self.store(connection, items)
        writer = asyncio.current_task()
        assert writer is not None
        self.writers.discard(writer)

    async def store(self, connection: Any, items: list[tuple[Any, Tags, asyncio.Future[None]]]) -> None:
        columns = list(zip(*(row for row, _, _ in items), strict=True))
        tags = [tag for _, each, _ in items for tag in each]
        tag_columns = list(zip(*tags, strict=True)) or [(), (), (), ()]
        await connection.execute(MANY, *map(list, columns), *map(list, tag_columns))
        for _, _, answer in items:
            if not answer.done():
                answer.set_result(None)

    async def get(self, number: int) -> Any:
        return await self.pool.fetchrow('SELECT state,created,basic,"full",logs FROM task WHERE id=$1', number)

    async def page(
        self, owner: int, n: int, before: int | None, state: int | None, view: str, tags: Sequence[tuple[str, str]]
    ) -> list[Any]:
        document = 'coalesce(t."full",t.basic)' if view == "FULL" else "t.basic"
        columns = "t.id,t.state" if view == "MINIMAL" else f"t.id,t.state,t.created,{document},t.logs"
        sql, args = f"SELECT {columns} FROM task t WHERE t.owner=$1", list[Any]([owner])
        if state is not None:
            args.append(state)
            sql += f" AND t.state=${len(args)}"
        if before:
            args.append(before)
            sql += f" AND t.id<${len(args)}"
        for key, value in tags:
            args += [key, value]
            match = f"g.key=${len(args) - 1} AND g.value=${len(args)}"
            sql += f" AND EXISTS(SELECT 1 FROM tag g WHERE g.owner=t.owner AND g.task=t.id AND {match})"
        args.append(n)
        rows: list[Any] = await self.pool.fetch(f"{sql} ORDER BY t.id DESC LIMIT ${len(args)}", *args)
        return rows
