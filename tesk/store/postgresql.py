"""The store in PostgreSQL, for a server whose database is elsewhere.

Creates that wait while a statement is under way share one `unnest` INSERT and its commit, ends of tasks one UPDATE;
reads by id share one SELECT.
Every other write is one conditional statement. Two processes may give the same id: the second then takes another. The
pool's sessions allow only the plans that the queries are written for: outdated statistics must not turn a page into a
scan of the table.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from itertools import chain
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

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
from tesk.store.documents import basic_logs, full_logs
from tesk.store.gather import Gatherer, Question, fail, give
from tesk.store.identifiers import Identifiers, now_ms, read, show
from tesk.store.pages import read_page
from tesk.store.postgresql_blocks import COUNT_PRUNED, LOCK_FRONTIER, MOVE_FRONTIER, summarise_step
from tesk.store.postgresql_ends import ENDS, TaskEnd, columns, parts
from tesk.store.principals import Principal, Principals
from tesk.store.queries import POSTGRESQL, WHOSE, Sql, numbered, one
from tesk.store.rows import TASK_COLUMNS, NewRows, brief, new_rows, queued, unfinished, whole
from tesk.store.summariser import keep_up
from tesk.store.tokens import TokenTable
from tesk.store.usage import Lanes, UsageTable, add_changed
from tesk.store.withdrawals import Withdrawals
from tesk.tes import State, TaskLog
from tesk.usage import MonthlyUsage, Used

INSERT: Final = f"""
WITH f AS MATERIALIZED (SELECT closed FROM frontier FOR KEY SHARE),
t AS (INSERT INTO task ({TASK_COLUMNS})
  SELECT CASE WHEN u.id > (SELECT closed FROM f) THEN u.id END, u.owner, u.state, u.submitted, u.created, u.name,
  u.tags, u.warnings, u.basic, u.owner_group, u.grants FROM unnest($1::bigint[], $2::int[], $3::smallint[],
  $4::smallint[], $5::bigint[], $6::text[], $7::bytea[], $8::bytea[], $9::bytea[], $10::int[], $11::bytea[])
  AS u({TASK_COLUMNS})),
c AS (INSERT INTO content (task, document) SELECT * FROM unnest($12::bigint[], $13::bytea[]))
INSERT INTO tag (key, task, value) SELECT * FROM unnest($14::text[], $15::bigint[], $16::text[])
"""
"""An id that is not above the frontier becomes null, which PostgreSQL refuses: so a late server takes another id.

The lock waits while the frontier is moved, and then reads its new value. Until the commit it prevents another move. So
after a move every session sees all tasks below the frontier.
"""
KEEP_LOG: Final = (
    "INSERT INTO log (task, logs) SELECT id, ? FROM changed "
    "ON CONFLICT (task) DO UPDATE SET logs = excluded.logs RETURNING 1"
)
DESCRIBE: Final = (
    "UPDATE content SET document = ?::bytea WHERE ?::bytea IS NOT NULL AND task IN (SELECT id FROM changed)"
)
DELETE_TAGS: Final = (
    "DELETE FROM tag AS g USING unnest($1::text[], $2::bigint[]) AS d(key, task) "
    "WHERE g.key = d.key AND g.task = d.task"
)
MAKE_PRINCIPALS: Final = (
    "INSERT INTO principal (kind, name) SELECT * FROM unnest($1::smallint[], $2::text[]) ON CONFLICT DO NOTHING"
)
FIND_PRINCIPALS: Final = (
    "SELECT p.id FROM unnest($1::smallint[], $2::text[]) WITH ORDINALITY AS g(kind, name, n) LEFT JOIN LATERAL "
    "(SELECT id FROM principal WHERE principal.kind = g.kind AND principal.name = g.name OFFSET 0) AS p ON true "
    "ORDER BY g.n"
)
SESSION: Final = {  # enable_sort off still allows incremental sorts, which stop at the end of the page
    "application_name": "tesk",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "plan_cache_mode": "force_generic_plan",
}
NO_MEMOIZE: Final = "SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'enable_memoize'"
"""A page has each id once, so a cache of looked up rows is useless, and takes a third of the time of a page by tag. The
setting has a statement of its own, since PostgreSQL 13 does not know it."""
CONNECTIONS: Final = 16
WRITERS: Final = 6
"""Inserts at once. Commits that wait for the disk share its next flush; creates that wait for a writer do not. So on a
slow disk few writers make a task wait for more flushes: two writers reach 0.7 of the rate of six."""
LONG_READERS: Final = 2
"""Long tasks that are read at once."""
READERS: Final = 2
"""Statements at once that read by id in one view."""
CONNECT_S: Final = 10.0
STATEMENT_S: Final = 30.0
PING_S: Final = 3.0
SAME_ID_TRIES: Final = 8

Location = str
Pool = asyncpg.Pool
DatabaseFailure = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Create:
    """A task to be stored. Where its id is taken, its rows are made anew with another."""

    def __init__(self, new: NewTask, owner: tuple[int, int], number: int) -> None:
        self.new = new
        self.owner = owner
        self.renumber(number)

    def renumber(self, number: int) -> None:
        self.number = number
        self.rows = new_rows(number, self.new, *self.owner, now_ms())


class PostgresqlStore:
    """tesk.store.base.Store on an existing database. Missing tables are made."""

    def __init__(self, url: str, *, log_tail_bytes: int) -> None:
        self.tokens = TokenTable(self._run_token, self._run_token)
        self._url = url
        self._location = location(url)
        self._log_tail_bytes = log_tail_bytes
        self._identifiers = Identifiers()
        self._withdrawals = Withdrawals(self._withdraw)
        self._creates: Gatherer | None = None
        self._ends: Gatherer | None = None
        self._gets: dict[str, Gatherer] = {}
        self._summarising: asyncio.Task[None] | None = None
        self._one_step = asyncio.Lock()
        self._principals = Principals(self._find_principals, self._run, self._run)
        self._usage = UsageTable(self._principals, self._run, self._run)
        self._lanes = Lanes()
        self._connections: Pool | None = None
        self._long = asyncio.Semaphore(LONG_READERS)

    async def open(self) -> None:
        try:
            await migrate.postgresql(self._url, self._location)
            self._connections = await asyncpg.create_pool(
                self._url,
                min_size=WRITERS,
                max_size=CONNECTIONS,
                timeout=CONNECT_S,
                command_timeout=STATEMENT_S,
                server_settings=SESSION,
                init=_prepared,
                reset=_as_it_is,
            )
        except (*DatabaseFailure, ValueError) as error:
            raise cannot_use(self._location, error) from None
        self._creates = Gatherer(self._store, WRITERS)
        self._ends = Gatherer(self._store_ends, WRITERS)
        self._gets = {view: Gatherer(partial(self._look_up, sql), READERS) for view, sql in _BY_ID.items()}
        self._summarising = asyncio.create_task(keep_up(self._summarise_step))

    async def close(self) -> None:
        """Finishes the creates and reads that wait, then closes the connections."""
        gatherers = [each for each in (self._creates, self._ends, *self._gets.values()) if each is not None]
        self._creates, self._ends, self._gets = None, None, {}
        if self._summarising is not None:
            self._summarising.cancel()
            await asyncio.gather(self._summarising, return_exceptions=True)
        try:
            await asyncio.gather(*(each.close(STATEMENT_S) for each in gatherers))
        finally:
            await self._withdrawals.close()
            await self._close_connections()

    async def _close_connections(self) -> None:
        pool, self._connections = self._connections, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(PING_S):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._pool.fetchval("SELECT 1")
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error

    async def create(self, new: NewTask) -> TaskId:
        if self._creates is None:
            raise self._not_open()
        owner = await self._principals.owner(new.owner)
        create = Create(new, owner, self._identifiers.give())
        undecided = self._withdrawals.undecided
        undecided.add(create.number)
        try:
            await self._creates.ask(create)
        except (asyncio.CancelledError, NotConfirmed):
            await self._withdrawals.withdraw(create.number)
            raise
        except BaseException:
            undecided.discard(create.number)
            raise
        undecided.discard(create.number)
        return show(create.number)

    async def _withdraw(self, numbers: Sequence[int]) -> None:
        """Deletes tasks whose inserts may be under way, perhaps in sessions whose client is gone.

        The frontier's lock waits for inserts that have begun; the moved frontier refuses those that begin later.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(LOCK_FRONTIER)
                await connection.execute(MOVE_FRONTIER, max(numbers))
                await _remove(connection, await connection.fetch(_WITHDRAWN, list(numbers)))
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error

    async def get(self, task_id: TaskId, view: str, identity: Identity) -> Row | Brief | None:
        number = read(task_id)
        if number is None:
            return None
        if not self._gets:
            raise self._not_open()
        visible = await self._principals.seen_by(identity)
        row = await self._gets[view].ask(number)
        if row is None or not (visible is None or visible.holds(*row[-2:])):
            return None
        if view == "MINIMAL":
            return brief(row)
        if row[3] is not None:
            return whole(row[:-2])
        async with self._long:
            rows = await self._run(Sql(_LONG[view], (number,)))
        return whole(rows[0][:-2]) if rows else None

    async def page(self, query: Query, identity: Identity) -> list[Row | Brief]:
        return await read_page(query, await self._principals.seen_by(identity), POSTGRESQL, self._run)

    async def submitted(self, task_id: TaskId) -> bool:
        number = read(task_id)
        return number is not None and bool(await self._run(Sql(f"{transitions.SUBMITTED} RETURNING 1", (number,))))

    async def advance(
        self, task_id: TaskId, state: State, log: TaskLog, earlier: Sequence[TaskLog] = (),
        new: Documents | None = None, used: Sequence[Used] = (),
    ) -> bool:  # fmt: skip
        number = read(task_id)
        if number is None:
            return False
        ended = now_ms() if state.is_terminal else None
        basic, full = new or (None, None)
        change = (basic_logs([*earlier, log]), ended, basic, number)
        log_document = full_logs([*earlier, log], self._log_tail_bytes)
        if state.is_terminal and len(used) == 1:
            if self._ends is None:
                raise self._not_open()
            end = TaskEnd(number, state, change[0], ended, basic, full, log_document, used[0])
            return bool(await self._ends.ask(end))
        if not used:
            return bool(await self._run(Sql(_ADVANCE[state], (*change, full, full, log_document))))
        try:
            async with self._pool.acquire() as connection:
                with self._lanes.take() as lane:
                    added = (lane, *chain.from_iterable(used))
                    statement = _end(state, len(used))
                    return bool(await connection.fetch(statement, *change, full, full, *added, log_document))
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error

    async def cancel(self, task_id: TaskId, identity: Identity) -> State | None:
        number = read(task_id)
        if number is None:
            return None
        if not identity.is_admin:
            whose = await self._run(Sql(WHOSE, (number,)))
            if not whose or not await self._principals.may_end(task_id, identity, *whose[0]):
                return None
        rows = await self._run(Sql(f"{transitions.CANCEL} RETURNING state", (now_ms(), number)))
        # A statement of its own, so that it sees the change that made the update match no row.
        rows = rows or await self._run(Sql(transitions.STATE, (number,)))
        return State(rows[0][0]) if rows else None

    async def _find_principals(self, principals: Sequence[Principal]) -> Sequence[int]:
        """Numbers are looked for first, since the insert of a name that is there takes a number too."""
        kinds, names = [int(kind) for kind, _ in principals], [name for _, name in principals]
        try:
            async with self._pool.acquire() as connection:
                numbers = [row[0] for row in await connection.fetch(FIND_PRINCIPALS, kinds, names)]
                if None in numbers:
                    await connection.execute(MAKE_PRINCIPALS, kinds, names)
                    numbers = [row[0] for row in await connection.fetch(FIND_PRINCIPALS, kinds, names)]
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error
        return numbers

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
        return [unfinished(row) for row in await self._run(Sql(transitions.UNFINISHED, (number, limit)))]

    async def queued(
        self, after: TaskId | None = None, limit: int = 1000, without: Collection[int] = ()
    ) -> list[Queued]:
        number = 0 if after is None else read(after)
        if number is None:
            return []
        undecided = self._withdrawals.undecided
        rows = await self._run(transitions.queued(number, limit + len(undecided), without, POSTGRESQL))
        return [queued(row) for row in rows if row[0] not in undecided][:limit]

    async def prune(self, ended_before_ms: int, limit: int = 1000) -> int:
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                return await _prune(connection, ended_before_ms, limit)
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error

    async def summarise(self) -> None:
        while await self._summarise_step():
            pass

    async def _summarise_step(self) -> bool:
        try:
            async with self._one_step, self._pool.acquire() as connection:
                return await summarise_step(connection)
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error

    @property
    def _pool(self) -> Pool:
        if self._connections is None:
            raise self._not_open()
        return self._connections

    def _not_open(self) -> StoreError:
        return StoreError(f"{self._location} is not open")

    async def _run(self, sql: Sql) -> Sequence[Any]:
        try:
            return await self._pool.fetch(numbered(sql.text), *sql.parameters)
        except DatabaseFailure as error:
            raise cannot_use(self._location, error) from error

    async def _run_token(self, text: str, parameters: Sequence[Any]) -> Sequence[Any]:
        return await self._run(Sql(text, tuple(parameters)))

    async def _look_up(self, sql: str, gets: Sequence[Question]) -> None:
        """Answers each number with its row or None."""
        wanted = [get.content for get in gets if not get.answer.done()]
        try:
            found = {row[0]: row for row in await self._pool.fetch(sql, wanted)}
        except Exception as error:  # noqa: BLE001 - the callers get it, and the worker goes on
            fail(gets, cannot_use(self._location, error))
            return
        for get in gets:
            give(get, found.get(get.content))

    async def _store_ends(self, ends: Sequence[Question]) -> None:
        waiting = [end for end in ends if not end.answer.done()]
        while waiting:
            now, waiting = parts(waiting)
            await self._store_together(now)

    async def _store_together(self, ends: Sequence[Question]) -> None:
        """Ends tasks in one statement; where PostgreSQL refuses the values of one, each in a statement of its own."""
        try:
            async with self._pool.acquire() as connection:
                with self._lanes.take() as lane:
                    changed = {row[0] for row in await connection.fetch(ENDS, *columns(ends), lane)}
        except Exception as error:  # noqa: BLE001 - the callers get it, and the worker goes on
            if len(ends) > 1 and isinstance(error, asyncpg.PostgresError) and _is_refusal(error):
                for end in ends:
                    await self._store_together([end])
            else:
                fail(ends, cannot_use(self._location, error))
            return
        for end in ends:
            give(end, end.content.number in changed)

    async def _store(self, creates: Sequence[Question]) -> None:
        is_begun = False
        try:
            async with self._pool.acquire() as connection:
                creates = [create for create in creates if not create.answer.done()]
                if creates:
                    is_begun = True
                    await insert(connection, [create.content.rows for create in creates])
        except asyncpg.PostgresError as error:
            if _is_refusal(error):
                for create in creates:
                    if not create.answer.done():
                        give(create, await self._store_alone(create))
                return
            fail(creates, self._failed(error, is_begun))
        except Exception as error:  # noqa: BLE001 - the callers get it, and the worker goes on
            fail(creates, self._failed(error, is_begun))
        else:
            for create in creates:
                give(create, None)

    async def _store_alone(self, question: Question) -> StoreError | None:
        """Stores one task alone, so that its error harms no other, with a new id where its own is taken."""
        create: Create = question.content
        undecided = self._withdrawals.undecided
        for _ in range(SAME_ID_TRIES):
            try:
                if await self._is_inserted(create.rows):
                    return None
                self._identifiers.follow(await self._pool.fetchval("SELECT closed FROM frontier"))
            except DatabaseFailure as error:
                return self._failed(error, is_begun=True)
            if question.answer.done():
                return None
            undecided.discard(create.number)
            create.renumber(self._identifiers.give())
            undecided.add(create.number)
        return StoreError(f"{self._location} had each of {SAME_ID_TRIES} new ids already")

    def _failed(self, error: Exception, is_begun: bool) -> StoreError:
        """The error of an insert: NotConfirmed if the insert had begun and PostgreSQL did not say that it failed."""
        failure = cannot_use(self._location, error)
        return NotConfirmed(str(failure)) if is_begun and not _is_rolled_back(error) else failure

    async def _is_inserted(self, new: NewRows) -> bool:
        """False where the id is taken, or not above the frontier."""
        try:
            await insert(self._pool, [new])
        except (asyncpg.UniqueViolationError, asyncpg.NotNullViolationError):
            return False
        return True


@asynccontextmanager
async def beside_server(url: str) -> AsyncIterator[TokenTable]:
    """The API tokens of a database that a server may use, over a connection of their own."""
    try:
        await migrate.postgresql(url, location(url))
        connection = await asyncpg.connect(url, timeout=CONNECT_S, command_timeout=STATEMENT_S)
        try:

            async def run(text: str, parameters: Sequence[Any]) -> Sequence[Any]:
                return list(await connection.fetch(numbered(text), *parameters))

            yield TokenTable(run, run)
        finally:
            await connection.close(timeout=CONNECT_S)
    except (*DatabaseFailure, ValueError) as error:
        raise cannot_use(location(url), error) from None


_VIEWS: Final = ("MINIMAL", "BASIC", "FULL")
_BY_ID: Final = {view: one(view, of_long=False).replace("= ?", "= ANY($1::bigint[])") for view in _VIEWS}
_LONG: Final = {view: one(view) for view in _VIEWS}
_WITHDRAWN: Final = transitions.WITHDRAWN.replace("= ?", "= ANY($1::bigint[])", 1) + " FOR UPDATE"
_CHANGED: Final = {
    state: f"WITH changed AS ({update} RETURNING id, owner, owner_group), described AS ({DESCRIBE})"
    for state, update in transitions.ADVANCE.items()
}
_ADVANCE: Final = {state: f"{changed} {KEEP_LOG}" for state, changed in _CHANGED.items()}


@cache
def _end(state: State, months: int) -> str:
    """Advances a task to its end, and adds what it used in so many months."""
    return numbered(f"{_CHANGED[state]}, added AS ({add_changed(months)}) {KEEP_LOG}")


async def insert(connection: Any, new: Sequence[NewRows]) -> None:
    """Adds tasks, all or none."""
    tasks = zip(*(each.task for each in new), strict=True)
    contents = [each.content for each in new if each.content is not None]
    tags = [tag for each in new for tag in each.tags]
    await connection.execute(INSERT, *map(list, tasks), *_columns(contents, 2), *_columns(tags, 3))


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]


def _is_refusal(error: asyncpg.PostgresError) -> bool:
    """Whether PostgreSQL refused these rows and works otherwise (SQLSTATE 22: data, 23: constraints, 54: limits)."""
    return (error.sqlstate or "")[:2] in ("22", "23", "54")


def _is_rolled_back(error: Exception) -> bool:
    """Whether PostgreSQL said that the statement failed, and not that the session or the database ended in between
    (SQLSTATE 08, XX, and 57 except for a cancelled statement)."""
    state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
    return state == "57014" or (state != "" and state[:2] not in ("08", "57", "XX"))


async def _prepared(connection: Any) -> None:
    """Sets up a new session: commits wait for the disk, whatever the database's default, and no join caches rows."""
    await connection.execute(NO_MEMOIZE)
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        await connection.execute("SET synchronous_commit = on")


async def _as_it_is(_: Any) -> None:
    """Leaves a session as it is: asyncpg's reset after each use would cost a round trip, and undo _prepared."""


async def _prune(connection: Any, ended_before_ms: int, limit: int) -> int:
    rows = await connection.fetch(f"{numbered(transitions.PRUNABLE)} FOR UPDATE SKIP LOCKED", ended_before_ms, limit)
    return await _remove(connection, rows)


async def _remove(connection: Any, rows: Sequence[Any]) -> int:
    """Rows: id and tags."""
    ids = [row["id"] for row in rows]
    tags = [(key, row["id"]) for row in rows for key in transitions.tag_keys(row["tags"])]
    await connection.execute(DELETE_TAGS, *_columns(tags, 2))
    await connection.execute(COUNT_PRUNED, ids)
    for table, key in (("content", "task"), ("log", "task"), ("task", "id")):
        await connection.execute(f"DELETE FROM {table} WHERE {key} = ANY($1::bigint[])", ids)
    return len(ids)


def location(url: str) -> Location:
    """The name of the database in messages, without a password."""
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        host = parts.hostname or options.get("host", ["localhost"])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the PostgreSQL database"
    user = f"{unquote(parts.username)}@" if parts.username else ""
    return f"PostgreSQL database {user}{host}{port}{parts.path}"


def cannot_use(where: Location, error: BaseException) -> StoreError:
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return StoreError(f"{where} refused the user or the password: check both in the database URL")
        case asyncpg.InvalidCatalogNameError():
            return StoreError(f"{where} does not exist: create it first (createdb)")
        case asyncpg.InsufficientPrivilegeError() | asyncpg.ReadOnlySQLTransactionError():
            return StoreError(f"{where} does not let this user write: {error}; grant it, or take another user")
        case ValueError() if not isinstance(error, asyncpg.PostgresError):
            return StoreError(f"the URL of {where} cannot be read: write special characters in it as %XX")
        case TimeoutError():
            return StoreError(f"{where} did not answer in time: check that it runs and is not overloaded")
        case OSError():
            return StoreError(f"{where} cannot be reached: {error.strerror or error}; check that it runs, and the URL")
        case _:
            return StoreError(f"{where} cannot be used: {error or type(error).__name__}")
