"""SQLite in WAL mode, `synchronous=FULL`; one thread drains a queue and commits what waits."""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS task(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, state INTEGER NOT NULL,
  name TEXT, created INTEGER NOT NULL, basic BLOB NOT NULL, full BLOB, logs BLOB);
CREATE INDEX IF NOT EXISTS task_owner ON task(owner, id DESC, state);
CREATE INDEX IF NOT EXISTS task_state ON task(owner, state, id DESC);
CREATE TABLE IF NOT EXISTS tag(owner INTEGER, key TEXT, value TEXT, task INTEGER,
  PRIMARY KEY(owner, key, value, task)) WITHOUT ROWID;
"""
INSERT = "INSERT INTO task(id,owner,state,name,created,basic,full) VALUES(?,?,?,?,?,?,?)"
INSERT_TAG = "INSERT INTO tag VALUES(?,?,?,?)"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY", "mmap_size=1073741824", "cache_size=-65536")

Tags = Sequence[tuple[int, str, str, int]]


def connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256)
    for pragma in (*PRAGMAS, "wal_autocheckpoint=4000"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    return db


class Store:
    def __init__(self, path: str) -> None:
        self.path = path
        self.reader = connect(path)
        self.reader.executescript(SCHEMA)
        self.last = 0
        self.node = os.getpid() & 0x3FF

    def new_id(self) -> int:
        """Time-ordered 63 bits: 43 of ms, 10 of process, 10 of sequence."""
        now = (int(time.time() * 1000) << 20) | (self.node << 10)
        self.last = now if now > self.last else self.last + 1
        return self.last

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.q: queue.SimpleQueue[tuple[Any, Tags, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self.writer, daemon=True).start()

    def commit(self, db: sqlite3.Connection, items: list[tuple[Any, Tags, asyncio.Future[None]]]) -> None:
        tags = [tag for _, each, _ in items for tag in each]
        db.execute("BEGIN IMMEDIATE")
        db.executemany(INSERT, [row for row, _, _ in items])
        if tags:
            db.executemany(INSERT_TAG, tags)
        db.execute("COMMIT")

    def writer(self) -> None:
        db = connect(self.path)
        while True:
            items = [self.q.get()]
            try:
                while len(items) < 512:
                    items.append(self.q.get_nowait())
            except queue.Empty:
                pass
            self.commit(db, items)
            self.loop.call_soon_threadsafe(self.done, items)

    @staticmethod
    def done(items: list[tuple[Any, Tags, asyncio.Future[None]]]) -> None:
        for _, _, answer in items:
            if not answer.done():
                answer.set_result(None)

    async def insert(self, row: tuple[Any, ...], tags: Tags) -> None:
        answer = self.loop.create_future()
        self.q.put((row, tags, answer))
        await answer

    async def get(self, number: int) -> Any:
        sql = "SELECT state,created,basic,full,logs FROM task WHERE id=?"
        return self.reader.execute(sql, (number,)).fetchone()

    async def page(
        self, owner: int, n: int, before: int | None, state: int | None, view: str, tags: Sequence[tuple[str, str]]
    ) -> list[Any]:
        document = "ifnull(t.full,t.basic)" if view == "FULL" else "t.basic"
        columns = "t.id,t.state" if view == "MINIMAL" else f"t.id,t.state,t.created,{document},t.logs"
        source, key, where, args = "task t", "t.id", ["t.owner=?"], list[Any]([owner])
        if tags:  # drive from the first tag's key: (owner, key, value, task) is in page order
            source, key = "tag g CROSS JOIN task t ON t.id=g.task", "g.task"
            where, args = ["g.owner=?", "g.key=?", "g.value=?"], [owner, *tags[0]]
            for tag in tags[1:]:
                where.append(
                    "EXISTS(SELECT 1 FROM tag h WHERE h.owner=g.owner AND h.key=? AND h.value=? AND h.task=g.task)"
                )
                args += tag
        if state is not None:
            where.append("t.state=?")
            args.append(state)
        if before:
            where.append(f"{key}<?")
            args.append(before)
        sql = f"SELECT {columns} FROM {source} WHERE {' AND '.join(where)} ORDER BY {key} DESC LIMIT ?"
        return self.reader.execute(sql, (*args, n)).fetchall()
