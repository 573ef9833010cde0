"""List requests as SQL: which index drives a page, and the statement that reads it.

A page is the newest ids that pass every filter. One filter *drives*: its index gives ids newest first, and each id is
looked up in the others. The rarest filter drives, as found by a bounded count (`probe`), and among filters that are
not rare the one whose newest ids pass the others most often: so a page costs the same among a thousand
tasks and a million. The ids of a name prefix are sorted when they are few, else they come block by block (see blocks).

Parameters are written as `?`; the two databases differ only in how a plan is held to (`Dialect`).
"""

import hashlib
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from tesk.store.identifiers import GREATEST
from tesk.tes import State

NAME_INDEXED: Final = 500
"""Characters of a name that are indexed: at most 2,000 bytes."""
TAG_INDEXED_BYTES: Final = 500
RARE: Final = 256
"""A filter with fewer tasks than this is rare: to look at all of them is quick."""
WALK: Final = 512
"""How many of a filter's newest ids are looked at before another filter is tried."""

Parameter = int | str | bytes | None


class Sql(NamedTuple):
    text: str
    parameters: tuple[Parameter, ...] = ()


class Dialect(Struct, frozen=True):
    """How a database is held to a plan. `pins` names the index in the FROM clause (SQLite), else row comparisons and
    an optimisation fence leave no other plan (PostgreSQL)."""

    pins: bool


SQLITE: Final = Dialect(pins=True)
POSTGRESQL: Final = Dialect(pins=False)


class Filters(Struct, frozen=True):
    """A list request of one owner: ids below `before`."""

    owner: int
    before: int = GREATEST
    state: State | None = None
    name_prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def drivers(self) -> list["Driver"]:
        """What could drive the page, best guess first."""
        tags = sorted(set(self.tags), key=lambda tag: not tag[1])
        found: list[Driver] = [TagDriver(key, value) for key, value in tags]
        if self.state is not None:
            found.append(StateDriver(self.state))
        if self.name_prefix:
            found.append(NameDriver(self.name_prefix))
        return found


class TagDriver(Struct, frozen=True):
    key: str
    value: str


class StateDriver(Struct, frozen=True):
    state: State


class NameDriver(Struct, frozen=True):
    prefix: str
    rare: bool = True


class OwnerDriver(Struct, frozen=True):
    """All tasks of the owner, newest first."""


Driver = TagDriver | StateDriver | NameDriver | OwnerDriver


def tag_text(text: str) -> str:
    """A tag's key or value as it is indexed: itself, or a digest that no short text can be."""
    if len(text) * 4 <= TAG_INDEXED_BYTES or len(data := text.encode()) <= TAG_INDEXED_BYTES:
        return text
    return "sha256:" + hashlib.sha256(data).hexdigest() * 8


def is_storable(text: str) -> bool:
    """Whether both databases can hold the text: no NUL, no lone surrogate."""
    return (text.isascii() and "\0" not in text) or not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def after_prefix(prefix: str) -> str | None:
    """The least text above every text that begins with `prefix`, by code points; None where there is none."""
    while prefix:
        code = ord(prefix[-1])
        if code < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if code == 0xD7FF else code + 1)
        prefix = prefix[:-1]
    return None


def probe(filters: Filters, dialect: Dialect) -> Sql:
    """One row: for each driver how many ids it has, counted up to RARE."""
    counts, parameters = list[str](), list[Parameter]()
    for driver in filters.drivers():
        # names are not in order of ids: those of one prefix are counted whatever the page begins with
        counted = replace(filters, before=GREATEST) if isinstance(driver, NameDriver) else filters
        source = _source(driver, counted, dialect)
        counts.append(f"(SELECT count(*) FROM (SELECT 1 {source.text} LIMIT {RARE}) AS c)")
        parameters += source.parameters
    return Sql(f"SELECT {', '.join(counts)}", tuple(parameters))


def page(filters: Filters, driver: Driver, view: str, limit: int, dialect: Dialect) -> Sql:
    """The page itself; the columns are those of the view."""
    ids = _ids(filters, driver, dialect)
    if isinstance(driver, NameDriver):
        # ids first, since a sort would take the documents along
        text = f"WITH d AS MATERIALIZED ({ids.text} LIMIT ?) SELECT {_columns(view)} FROM d{_task('d.id', dialect)}"
        return Sql(f"{text}{_more(view)} ORDER BY d.id DESC", (*ids.parameters, limit))
    source = _source(driver, filters, dialect)
    checks = _checks(filters, driver, _key(driver))
    join = _task("g.task", dialect) if isinstance(driver, TagDriver) else ""
    from_, where = source.text.rsplit(" WHERE ", 1)
    text = f"SELECT {_columns(view)} {from_}{join}{_more(view)} WHERE {where}{checks.text} {_order(driver, dialect)}"
    return Sql(f"{text} LIMIT ?", (*source.parameters, *checks.parameters, limit))


def among_newest(filters: Filters, driver: Driver, view: str, limit: int, dialect: Dialect) -> Sql:
    """The page as far as the driver's newest WALK ids give it."""
    newest = _newest(filters, driver, dialect)
    checks = _checks(filters, driver, "n.id")
    text = f"WITH n AS MATERIALIZED ({newest.text}) SELECT {_columns(view)} FROM n{_task('n.id', dialect)}{_more(view)}"
    text = f"{text} WHERE true{checks.text} ORDER BY n.id DESC LIMIT ?"
    return Sql(text, (*newest.parameters, *checks.parameters, limit))


def held(filters: Filters, driver: Driver, dialect: Dialect) -> Sql:
    """One row: how many ids the driver has, counted up to WALK."""
    newest = _newest(filters, driver, dialect)
    return Sql(f"SELECT count(*) FROM ({newest.text}) AS n", newest.parameters)


def _newest(filters: Filters, driver: Driver, dialect: Dialect) -> Sql:
    source = _source(driver, filters, dialect)
    text = f"SELECT {_key(driver)} AS id {source.text} {_order(driver, dialect)} LIMIT {WALK}"
    return Sql(text, source.parameters)


def _ids(filters: Filters, driver: NameDriver | Driver, dialect: Dialect) -> Sql:
    """All ids that pass, newest first."""
    source = _source(driver, filters, dialect)
    checks = _checks(filters, driver, _key(driver))
    ids = f"SELECT {_key(driver)} AS id {source.text}{checks.text}"
    if isinstance(driver, NameDriver) and driver.rare and not dialect.pins:
        ids = f"SELECT id FROM (SELECT t.id {source.text}{checks.text} OFFSET 0) AS t"
    return Sql(f"{ids} {_order(driver, dialect)}", (*source.parameters, *checks.parameters))


def _key(driver: Driver) -> str:
    return "g.task" if isinstance(driver, TagDriver) else "t.id"


def _source(driver: Driver, filters: Filters, dialect: Dialect) -> Sql:
    """FROM and WHERE of a driver's own ids."""
    if isinstance(driver, NameDriver):
        return _names(driver, filters, dialect)
    owner, before = filters.owner, filters.before
    match driver:
        case OwnerDriver() if dialect.pins:
            where = "t.owner = ? AND t.id < ?"
            return Sql(f"FROM task AS t INDEXED BY task_owner WHERE {where}", (owner, before))
        case OwnerDriver():
            where = "(t.owner, t.id) < (?, ?) AND t.owner >= ?"
            return Sql(_fenced(where, _order(driver, dialect)), (owner, before, owner))
        case StateDriver(state=state) if dialect.pins:
            where = "t.owner = ? AND t.state = ? AND t.id < ?"
            return Sql(f"FROM task AS t INDEXED BY task_state WHERE {where}", (owner, int(state), before))
        case StateDriver(state=state):
            where = "t.owner = ? AND (t.state, t.id) < (?, ?) AND t.state >= ?"
            return Sql(_fenced(where, _order(driver, dialect)), (owner, int(state), before, int(state)))
        case TagDriver(key=key, value=""):
            pin = " INDEXED BY sqlite_autoindex_tag_1" if dialect.pins else ""
            where = "g.owner = ? AND g.key = ? AND g.task < ?"
            return Sql(f"FROM tag AS g{pin} WHERE {where}", (owner, tag_text(key), before))
        case TagDriver(key=key, value=value) if dialect.pins:
            where = "g.owner = ? AND g.key = ? AND g.value = ? AND g.task < ?"
            parameters = (owner, tag_text(key), tag_text(value), before)
            return Sql(f"FROM tag AS g INDEXED BY tag_value WHERE {where}", parameters)
        case TagDriver(key=key, value=value):
            where = "g.owner = ? AND g.key = ? AND (g.value, g.task) < (?, ?) AND g.value >= ?"
            shown = tag_text(value)
            return Sql(f"FROM tag AS g WHERE {where}", (owner, tag_text(key), shown, before, shown))


def _names(driver: NameDriver, filters: Filters, dialect: Dialect) -> Sql:
    """FROM and WHERE of a prefix's ids: from the index on names, or block by block."""
    owner, before = filters.owner, filters.before
    name = _name_check(driver.prefix)
    if driver.rare:
        pin = " INDEXED BY task_name" if dialect.pins else ""
        where = f"t.owner = ? AND t.id < ?{name.text}"
        return Sql(f"FROM task AS t{pin} WHERE {where}", (owner, before, *name.parameters))
    where = "b.first < ? AND t.id < ?"
    if dialect.pins:
        from_ = "FROM block AS b CROSS JOIN task AS t INDEXED BY task_block"
        # the + keeps SQLite from taking the bounds of b.first for those of t.block: it would read all blocks each time
        where += f" AND t.owner = ? AND t.block = +b.first{name.text}"
        return Sql(f"{from_} WHERE {where}", (before, before, owner, *name.parameters))
    from_ = "FROM (SELECT first FROM block ORDER BY first DESC OFFSET 0) AS b CROSS JOIN LATERAL ("
    from_ += f"SELECT * FROM task AS t WHERE t.owner = ? AND t.block = b.first{name.text} OFFSET 0) AS t"
    return Sql(f"{from_} WHERE {where}", (owner, *name.parameters, before, before))


def _fenced(where: str, order: str) -> str:
    """FROM and WHERE of tasks that are read in that order by an index, before any other condition is looked at."""
    return f"FROM (SELECT * FROM task AS t WHERE {where} {order} OFFSET 0) AS t WHERE true"


def _checks(filters: Filters, driver: Driver, key: str) -> Sql:
    """AND clauses for every filter that does not drive; the task's row is at hand as t."""
    text, parameters = "", list[Parameter]()
    if filters.state is not None and not isinstance(driver, StateDriver):
        text += " AND t.state = ?"
        parameters.append(int(filters.state))
    if filters.name_prefix and not isinstance(driver, NameDriver):
        name = _name_check(filters.name_prefix)
        text += name.text
        parameters += name.parameters
    for tag_key, value in set(filters.tags):
        if isinstance(driver, TagDriver) and (driver.key, driver.value) == (tag_key, value):
            continue
        found = f"FROM tag AS h WHERE h.owner = ? AND h.key = ? AND h.task = {key}"
        parameters += [filters.owner, tag_text(tag_key)]
        if value:
            text += f" AND (SELECT h.value {found}) = ?"
            parameters.append(tag_text(value))
        else:
            text += f" AND (SELECT 1 {found}) = 1"
    return Sql(text, tuple(parameters))


def _name_check(prefix: str) -> Sql:
    """AND clauses that hold for names that begin with the prefix, answerable from the index."""
    text, parameters = "", list[Parameter]()
    columns = [(f"substr(t.name, 1, {NAME_INDEXED})", prefix[:NAME_INDEXED])]
    if len(prefix) > NAME_INDEXED:
        columns.append(("t.name", prefix))
    for column, start in columns:
        text += f" AND {column} >= ?"
        parameters.append(start)
        end = after_prefix(start)
        if end is not None:
            text += f" AND {column} < ?"
            parameters.append(end)
    return Sql(text, tuple(parameters))


def _order(driver: Driver, dialect: Dialect) -> str:
    match driver:
        case TagDriver(value=""):
            return "ORDER BY g.task DESC"
        case TagDriver():
            return "ORDER BY g.task DESC" if dialect.pins else "ORDER BY g.value DESC, g.task DESC"
        case NameDriver(rare=False):
            return "ORDER BY b.first DESC, t.id DESC"
        case StateDriver() if not dialect.pins:
            return "ORDER BY t.state DESC, t.id DESC"
        case OwnerDriver() if not dialect.pins:
            return "ORDER BY t.owner DESC, t.id DESC"
        case _:
            return "ORDER BY t.id DESC"


def _task(key: str, dialect: Dialect) -> str:
    """Joins the task's row, after what gives its id."""
    if dialect.pins:
        return f" CROSS JOIN task AS t ON t.id = {key}"
    return f" CROSS JOIN LATERAL (SELECT * FROM task WHERE task.id = {key} OFFSET 0) AS t"


def _columns(view: str) -> str:
    match view:
        case "MINIMAL":
            return "t.id, t.state"
        case "BASIC":
            return "t.id, t.state, t.created, t.basic, t.logs"
        case _:
            return "t.id, t.state, t.created, coalesce(c.document, t.basic), l.logs, t.warnings"


def _more(view: str) -> str:
    if view != "FULL":
        return ""
    return " LEFT JOIN content AS c ON c.task = t.id LEFT JOIN log AS l ON l.task = t.id"


def one(view: str) -> str:
    """A task by its id."""
    return f"SELECT {_columns(view)} FROM task AS t{_more(view)} WHERE t.id = ?"


OWNERS: Final = """
WITH RECURSIVE o(owner) AS (
  SELECT min(owner) FROM task
  UNION ALL SELECT (SELECT min(t.owner) FROM task AS t WHERE t.owner > o.owner) FROM o WHERE o.owner IS NOT NULL
) SELECT owner FROM o WHERE owner IS NOT NULL
"""
"""All owners, by one step in the index for each."""
