"""The store in one SQLite file: durable, for one server process, with nothing to set up.

WAL with `synchronous=FULL`: a commit is on disk before it is answered. One thread does all writes, and those that wait
share a commit (see committer). The event loop itself reads single tasks, which takes microseconds; a thread reads pages
that may be long. Two processes on one file would only wait for each other's commits, so the second is refused.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TextIO

from tesk.store import migrate, transitions
from tesk.store.base import Brief, Documents, NewTask, NotConfirmed, Query, Queued, Row, StoreError, TaskId, Unfinished
from tesk.store.committer import Committer, Write
from tesk.store.documents import basic_logs, full_logs
from tesk.store.identifiers import GREATEST, Identifiers, now_ms, read, show
from tesk.store.pages import read_page
from tesk.store.queries import SQLITE, Sql, one
from tesk.store.rows import TASK_COLUMNS, NewRows, brief, new_rows, queued, unfinished, whole
from tesk.store.summariser import COUNT_PRUNED, BlockChange, addition, keep_up, renewal
from tesk.store.withdrawals import Withdrawals, noted
from tesk.tes import State, TaskLog

INSERT: Final = f"INSERT INTO task ({TASK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
NEWEST_ID: Final = "SELECT max(coalesce((SELECT max(id) FROM task), 0), coalesce((SELECT max(last) FROM span), 0))"
INSERT_TAG: Final = "INSERT INTO tag (owner, key, task, value) VALUES (?, ?, ?, ?)"
INSERT_CONTENT: Final = "INSERT INTO content (task, document) VALUES (?, ?)"
KEEP_LOG: Final = "INSERT INTO log (task, logs) VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET logs = excluded.logs"
DESCRIBE: Final = "UPDATE content SET document = ? WHERE task = ?"
PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "temp_store = MEMORY",
    "cache_size = -32768",
    "wal_autocheckpoint = 4000",
)
INLINE: Final = 512
"""The event loop itself reads pages of at most this many rows."""
PING_S: Final = 3.0

_ONE: Final = {view: one(view) for view in ("MINIMAL", "BASIC", "FULL")}


class SqliteStore:
    """tesk.store.base.Store on a file. A missing file and its folder are made."""

    def __init__(self, path: Path, *, log_tail_bytes: int) -> None:
        self._path = path
        self._log_tail_bytes = log_tail_bytes
        self._identifiers = Identifiers()
        self._notes = path.with_name(f"{path.name}.withdrawn")
        self._withdrawals = Withdrawals(self._withdraw, self._notes)
        self._connections: list[sqlite3.Connection] = []
        self._lock: TextIO | None = None
        self._committer: Committer | None = None
        self._pages: ThreadPoolExecutor | None = None
        self._summarising: asyncio.Task[None] | None = None
        self._one_step = asyncio.Lock()

    async def open(self) -> None:
        try:
            await asyncio.to_thread(self._open)
        except BaseException:
            self._release()
            raise
        self._committer = Committer(self._commit, "store-writer")
        self._pages = ThreadPoolExecutor(1, "store-pages")
        self._summarising = asyncio.create_task(keep_up(self._summarise_step))

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._path)
            migrate.sqlite(self._path)
            self._connections = [_connect(self._path) for _ in range(3)]
            self._reader, self._writer, self._page_reader = self._connections
            self._remove_withdrawn(self._writer)
            newest = self._reader.execute(NEWEST_ID).fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            raise _cannot_use(self._path, error) from error
        self._identifiers.follow(newest)

    def _remove_withdrawn(self, database: sqlite3.Connection) -> None:
        """Removes the tasks that a former process withdrew and did not remove."""
        if numbers := noted(self._notes):
            database.execute("BEGIN IMMEDIATE")
            _withdraw(database, numbers)
            database.execute("COMMIT")
        self._notes.unlink(missing_ok=True)

    async def close(self) -> None:
        if self._summarising is not None:
            self._summarising.cancel()
            await asyncio.gather(self._summarising, return_exceptions=True)
        if self._committer is not None:
            await self._committer.close()
        await self._withdrawals.close()
        if self._pages is not None:
            await asyncio.to_thread(self._pages.shutdown)
        self._release()

    def _release(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections = []
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._write("ping", ())
        except TimeoutError:
            raise StoreError(f"SQLite file {self._path} did not take a write within {PING_S:.0f} s") from None

    async def create(self, new: NewTask) -> TaskId:
        number = self._identifiers.give()
        undecided = self._withdrawals.undecided
        undecided.add(number)
        try:
            await self._write("create", (new_rows(number, new, now_ms()),))
        except (asyncio.CancelledError, NotConfirmed):
            await self._withdrawals.withdraw(number)
            raise
        except BaseException:
            undecided.discard(number)
            raise
        undecided.discard(number)
        return show(number)

    async def _withdraw(self, numbers: Sequence[int]) -> None:
        """Writes are done in order, so the creates of these tasks are done before this write."""
        await self._write("withdraw", (numbers,))

    async def get(self, task_id: TaskId, view: str) -> Row | Brief | None:
        number = read(task_id)
        if number is None:
            return None
        try:
            row = self._reader.execute(_ONE[view], (number,)).fetchone()
        except sqlite3.Error as error:
            raise _cannot_use(self._path, error) from error
        if row is None:
            return None
        return brief(row) if view == "MINIMAL" else whole(row)

    async def page(self, query: Query) -> list[Row | Brief]:
        inline = query.view != "FULL" and query.limit <= INLINE
        return await read_page(query, SQLITE, self._run_inline if inline else self._run_apart)

    async def submitted(self, task_id: TaskId) -> bool:
        return (number := read(task_id)) is not None and bool(await self._write("submitted", (number,)))

    async def advance(
        self, task_id: TaskId, state: State, log: TaskLog, earlier: Sequence[TaskLog] = (), new: Documents | None = None
    ) -> bool:
        number = read(task_id)
        if number is None:
            return False
        ended = now_ms() if state.is_terminal else None
        logs = basic_logs([*earlier, log]), full_logs([*earlier, log], self._log_tail_bytes)
        return bool(await self._write("advance", (number, state, ended, *logs, *(new or (None, None)))))

    async def cancel(self, task_id: TaskId) -> State | None:
        number = read(task_id)
        state = None if number is None else await self._write("cancel", (now_ms(), number))
        return None if state is None else State(state)

    async def unfinished(self, after: TaskId | None = None, limit: int = 1000) -> list[Unfinished]:
        number = 0 if after is None else read(after)
        if number is None:
            return []
        return [unfinished(row) for row in await self._run_apart(Sql(transitions.UNFINISHED, (number, limit)))]

    async def queued(self, after: TaskId | None = None, limit: int = 1000) -> list[Queued]:
        number = 0 if after is None else read(after)
        if number is None:
            return []
        undecided = self._withdrawals.undecided
        rows = await self._run_apart(Sql(transitions.QUEUED, (number, limit + len(undecided))))
        return [queued(row) for row in rows if row[0] not in undecided][:limit]

    async def prune(self, ended_before_ms: int, limit: int = 1000) -> int:
        return int(await self._write("prune", (ended_before_ms, limit)))

    async def summarise(self) -> None:
        while await self._summarise_step():
            pass

    async def _summarise_step(self) -> bool:
        async with self._one_step:
            change = await addition(self._run_apart, GREATEST) or await renewal(self._run_apart)
            if change is not None:
                await self._write("summarise", (change,))
        return change is not None

    async def _run_inline(self, sql: Sql) -> Sequence[Sequence[Any]]:
        return self._fetch(self._reader, sql)

    async def _run_apart(self, sql: Sql) -> Sequence[Sequence[Any]]:
        if self._pages is None:
            raise StoreError(f"SQLite file {self._path} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._pages, self._fetch, self._page_reader, sql)

    def _fetch(self, connection: sqlite3.Connection, sql: Sql) -> Sequence[Sequence[Any]]:
        try:
            return connection.execute(sql.text, sql.parameters).fetchall()
        except sqlite3.Error as error:
            raise _cannot_use(self._path, error) from error

    async def _write(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        if self._committer is None:
            raise StoreError(f"SQLite file {self._path} is not open")
        return await self._committer.put(kind, arguments)

    def _commit(self, batch: Sequence[Write]) -> list[Any]:
        """Runs in the committer's thread."""
        database = self._writer
        try:
            database.execute("BEGIN IMMEDIATE")
            wanted = [write for write in batch if write.kind == "create" and not write.answer.done()]
            insert(database, [write.arguments[0] for write in wanted])
            answers = [_CHANGES[write.kind](database, *write.arguments) for write in batch]
            database.execute("COMMIT")
        except BaseException as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _cannot_use(self._path, error) from error
            raise
        return answers


def insert(database: sqlite3.Connection, creates: Sequence[NewRows]) -> None:
    """Adds tasks with rising ids."""
    if not creates:
        return
    database.executemany(INSERT, [new.task for new in creates])
    database.executemany(INSERT_TAG, [tag for new in creates for tag in new.tags])
    database.executemany(INSERT_CONTENT, [new.content for new in creates if new.content is not None])


def _created(database: sqlite3.Connection, *_: Any) -> None:
    """Nothing: `insert` writes the creates of a batch together."""


def _advance(
    database: sqlite3.Connection, number: int, state: State, ended: int | None, basic_logs: bytes, full_logs: bytes,
    basic: bytes | None, full: bytes | None,
) -> bool:  # fmt: skip
    """`basic`, `full`: what the task's documents become; None for one that stays."""
    changed = database.execute(transitions.ADVANCE[state], (basic_logs, ended, basic, number)).rowcount == 1
    if changed:
        database.execute(KEEP_LOG, (number, full_logs))
    if changed and full is not None:
        database.execute(DESCRIBE, (full, number))
    return changed


def _submitted(database: sqlite3.Connection, number: int) -> bool:
    return database.execute(transitions.SUBMITTED, (number,)).rowcount == 1


def _cancel(database: sqlite3.Connection, now: int, number: int) -> int | None:
    database.execute(transitions.CANCEL, (now, number))
    row = database.execute(transitions.STATE, (number,)).fetchone()
    return None if row is None else int(row[0])


def _prune(database: sqlite3.Connection, ended_before: int, limit: int) -> int:
    return _remove(database, database.execute(transitions.PRUNABLE, (ended_before, limit)).fetchall())


def _withdraw(database: sqlite3.Connection, numbers: Sequence[int]) -> int:
    found = (database.execute(transitions.WITHDRAWN, (number,)).fetchone() for number in numbers)
    return _remove(database, [row for row in found if row is not None])


def _remove(database: sqlite3.Connection, rows: Sequence[Any]) -> int:
    """Rows: id, owner and tags."""
    tags = [(owner, key, number) for number, owner, tags in rows for key in transitions.tag_keys(tags)]
    database.executemany("DELETE FROM tag WHERE owner = ? AND key = ? AND task = ?", tags)
    for table, key in (("content", "task"), ("log", "task"), ("task", "id")):
        database.executemany(f"DELETE FROM {table} WHERE {key} = ?", [(row[0],) for row in rows])
    database.executemany(COUNT_PRUNED, [(row[0],) for row in rows])
    return len(rows)


def _summarise(database: sqlite3.Connection, change: BlockChange) -> None:
    for text, rows in change.statements():
        database.executemany(text, rows)


def _ping(database: sqlite3.Connection) -> None:
    database.execute("SELECT 1 FROM task LIMIT 1").fetchone()


_CHANGES: Final[dict[str, Callable[..., Any]]] = {
    "create": _created,
    "advance": _advance,
    "submitted": _submitted,
    "cancel": _cancel,
    "prune": _prune,
    "ping": _ping,
    "withdraw": _withdraw,
    "summarise": _summarise,
}


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=512)
    for pragma in PRAGMAS:
        database.execute(f"PRAGMA {pragma}").fetchall()
    return database


def _locked(path: Path) -> TextIO:
    """The locked lock file. The lock ends when the file is closed or the process ends."""
    lock = open(f"{path}.lock", "a+", encoding="ascii")  # noqa: SIM115 - it is closed by the store
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise StoreError(
            f"SQLite file {path} is in use by process {holder or 'unknown'}: stop that one, or give "
            "this one another --data"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _cannot_use(path: Path, error: Exception) -> StoreError:
    if isinstance(error, PermissionError) or "readonly" in str(error):
        return StoreError(f"SQLite file {path} cannot be written: {error}; the server needs to write it and its folder")
    if "not a database" in str(error):
        return StoreError(f"{path} is not a SQLite database: name another file, or move this one away")
    if "full" in str(error):
        return StoreError(f"SQLite file {path} cannot grow: {error}; make room on its disk")
    return StoreError(f"SQLite file {path} cannot be used: {error}")
