"""The store in one SQLite file: durable, for one server process, with nothing to set up.

WAL with `synchronous=FULL`: a commit is on disk before it is answered. One thread does all writes, and those that wait
share a commit (see committer). The event loop itself reads single tasks, which takes microseconds; a thread reads pages
that may be long. Two processes on one file would only wait for each other's commits, so the second is refused.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from tesk.identity import Identity, Owner
from tesk.store import migrate, transitions
from tesk.store.base import (
    Brief,
    Documents,
    NewTask,
    NotConfirmed,
    Query,
    Queued,
    Row,
    Shares,
    StoreError,
    TaskId,
    Unfinished,
)
from tesk.store.committer import Committer, Write
from tesk.store.documents import basic_logs, full_logs
from tesk.store.identifiers import GREATEST, Identifiers, now_ms, read, show
from tesk.store.pages import read_page
from tesk.store.principals import Principal, Principals
from tesk.store.queries import SQLITE, WHOSE, Sql, one
from tesk.store.rows import TASK_COLUMNS, NewRows, brief, new_rows, queued, unfinished, whole
from tesk.store.summariser import COUNT_PRUNED, BlockChange, addition, keep_up, renewal
from tesk.store.tokens import TokenTable
from tesk.store.usage import ADD_ONE, UsageTable
from tesk.store.withdrawals import Withdrawals, noted
from tesk.tes import State, TaskLog
from tesk.usage import MonthlyUsage, Used

INSERT: Final = f"INSERT INTO task ({TASK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
NEWEST_ID: Final = "SELECT max(coalesce((SELECT max(id) FROM task), 0), coalesce((SELECT max(last) FROM span), 0))"
INSERT_TAG: Final = "INSERT INTO tag (key, task, value) VALUES (?, ?, ?)"
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
        self.tokens = TokenTable(self._read_token, self._write_token)
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
        self._principals = Principals(self._find_principals, self._run_inline, self._run_write)
        self._usage = UsageTable(self._principals, self._run_apart, self._run_inline)

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
        owner = await self._principals.owner(new.owner)
        number = self._identifiers.give()
        undecided = self._withdrawals.undecided
        undecided.add(number)
        try:
            await self._write("create", (new_rows(number, new, *owner, now_ms()),))
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

    async def get(self, task_id: TaskId, view: str, identity: Identity) -> Row | Brief | None:
        number = read(task_id)
        if number is None:
            return None
        visible = await self._principals.seen_by(identity)
        row = self._fetch_one(_ONE[view], number)
        if row is None or not (visible is None or visible.holds(*row[-2:])):
            return None
        return brief(row) if view == "MINIMAL" else whole(row[:-2])

    async def page(self, query: Query, identity: Identity) -> list[Row | Brief]:
        inline = query.view != "FULL" and query.limit <= INLINE
        visible = await self._principals.seen_by(identity)
        return await read_page(query, visible, SQLITE, self._run_inline if inline else self._run_apart)

    async def submitted(self, task_id: TaskId) -> bool:
        return (number := read(task_id)) is not None and bool(await self._write("submitted", (number,)))

    async def advance(
        self, task_id: TaskId, state: State, log: TaskLog, earlier: Sequence[TaskLog] = (),
        new: Documents | None = None, used: Sequence[Used] = (),
    ) -> bool:  # fmt: skip
        number = read(task_id)
        if number is None:
            return False
        ended = now_ms() if state.is_terminal else None
        logs = basic_logs([*earlier, log]), full_logs([*earlier, log], self._log_tail_bytes)
        return bool(await self._write("advance", (number, state, ended, *logs, *(new or (None, None)), used)))

    async def cancel(self, task_id: TaskId, identity: Identity) -> State | None:
        number = read(task_id)
        if number is None:
            return None
        if not identity.is_admin:
            whose = self._fetch_one(WHOSE, number)
            if whose is None or not await self._principals.may_end(task_id, identity, *whose):
                return None
        state = await self._write("cancel", (now_ms(), number))
        return None if state is None else State(state)

    async def _find_principals(self, principals: Sequence[Principal]) -> Sequence[int]:
        return list[int](await self._write("principals", (principals,)))

    async def share(self, user: str, colleague: str) -> None:
        await self._principals.share(user, colleague)

    async def unshare(self, user: str, colleague: str) -> None:
        await self._principals.unshare(user, colleague)

    async def shares(self, user: str) -> Shares:
        return await self._principals.shares(user)

    async def usage(self, first: str, last: str, identity: Identity) -> list[MonthlyUsage]:
        return await self._usage.of(first, last, identity)

    async def core_seconds(self, month: str, owner: Owner) -> tuple[float, float]:
        return await self._usage.core_seconds(month, owner)

    async def unfinished(self, after: TaskId | None = None, limit: int = 1000) -> list[Unfinished]:
        number = 0 if after is None else read(after)
        if number is None:
            return []
        return [unfinished(row) for row in await self._run_apart(Sql(transitions.UNFINISHED, (number, limit)))]

    async def queued(
        self, after: TaskId | None = None, limit: int = 1000, without: Collection[int] = ()
    ) -> list[Queued]:
        number = 0 if after is None else read(after)
        if number is None:
            return []
        undecided = self._withdrawals.undecided
        rows = await self._run_apart(transitions.queued(number, limit + len(undecided), without, SQLITE))
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

    async def _read_token(self, text: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return self._fetch(self._reader, Sql(text, tuple(parameters)))

    async def _write_token(self, text: str, parameters: Sequence[Any]) -> Any:
        return await self._write("statement", (text, parameters))

    async def _run_inline(self, sql: Sql) -> Sequence[Sequence[Any]]:
        return self._fetch(self._reader, sql)

    async def _run_apart(self, sql: Sql) -> Sequence[Sequence[Any]]:
        if self._pages is None:
            raise StoreError(f"SQLite file {self._path} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._pages, self._fetch, self._page_reader, sql)

    async def _run_write(self, sql: Sql) -> Sequence[Sequence[Any]]:
        return list[Any](await self._write("statement", sql))

    def _fetch_one(self, sql: str, number: int) -> Any:
        """A row by its id, or None, read in the event loop."""
        try:
            return self._reader.execute(sql, (number,)).fetchone()
        except sqlite3.Error as error:
            raise _cannot_use(self._path, error) from error

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


@contextmanager
def beside_server(path: Path) -> Iterator[TokenTable]:
    """The API tokens of a file that a server may have open: SQLite itself has both wait for each other's commits."""
    try:
        _need_owner(path)
        if migrate.sqlite_revision(path) != migrate.NEWEST:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(path):
                migrate.sqlite(path)
        with closing(_connect(path)) as database:

            async def run(text: str, parameters: Sequence[Any]) -> list[Any]:
                return database.execute(text, parameters).fetchall()

            yield TokenTable(run, run)
    except (sqlite3.Error, OSError) as error:
        raise _cannot_use(path, error) from error


def _need_owner(path: Path) -> None:
    """Raises StoreError for root where the file is another's: files that root made the server could not write."""
    if os.geteuid() == 0 and path.exists() and (owner := path.stat().st_uid) != 0:
        raise StoreError(f"SQLite file {path} is the user {owner}'s: do this as that user (sudo -u '#{owner}' …)")


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
    basic: bytes | None, full: bytes | None, used: Sequence[Used],
) -> bool:  # fmt: skip
    """`basic`, `full`: what the task's documents become; None for one that stays."""
    changed = database.execute(transitions.ADVANCE[state], (basic_logs, ended, basic, number)).rowcount == 1
    if changed:
        database.execute(KEEP_LOG, (number, full_logs))
        for month in used:
            database.execute(ADD_ONE, (*month, number))
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
    """Rows: id and tags."""
    tags = [(key, number) for number, tags in rows for key in transitions.tag_keys(tags)]
    database.executemany("DELETE FROM tag WHERE key = ? AND task = ?", tags)
    for table, key in (("content", "task"), ("log", "task"), ("task", "id")):
        database.executemany(f"DELETE FROM {table} WHERE {key} = ?", [(row[0],) for row in rows])
    database.executemany(COUNT_PRUNED, [(row[0],) for row in rows])
    return len(rows)


def _principals(database: sqlite3.Connection, principals: Sequence[Principal]) -> list[int]:
    database.executemany(
        "INSERT INTO principal (kind, name) SELECT ?1, ?2 WHERE NOT EXISTS "
        "(SELECT 1 FROM principal WHERE kind = ?1 AND name = ?2)",
        principals,
    )
    find = "SELECT id FROM principal WHERE kind = ? AND name = ?"
    return [database.execute(find, principal).fetchone()[0] for principal in principals]


def _summarise(database: sqlite3.Connection, change: BlockChange) -> None:
    for text, rows in change.statements():
        database.executemany(text, rows)


def _statement(database: sqlite3.Connection, text: str, parameters: Sequence[Any]) -> list[Any]:
    return database.execute(text, parameters).fetchall()


def _ping(database: sqlite3.Connection) -> None:
    database.execute("SELECT 1 FROM task LIMIT 1").fetchone()


_CHANGES: Final[dict[str, Callable[..., Any]]] = {
    "create": _created,
    "advance": _advance,
    "submitted": _submitted,
    "cancel": _cancel,
    "prune": _prune,
    "ping": _ping,
    "principals": _principals,
    "statement": _statement,
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
