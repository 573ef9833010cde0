"""List requests as SQL: which index drives a page, and the statement that reads it.

A page is the newest ids that pass every filter. One filter *drives* the page: its index gives ids, newest first, and
each id is checked against the other filters. A rare filter drives; a bounded count (`probe`) finds it. Where all
filters are frequent, bitmaps of blocks answer the page (see blocks), and a filter drives only among the newest tasks,
which are in no block yet. So a page costs the same among a thousand tasks and a million.

Whose tasks the caller sees is one more filter. So a user with few tasks is answered from these, a user with many by
bitmaps, and whoever sees all tasks pays nothing for the others.

Parameters are written as `?`. The two databases differ only in how they are made to follow a plan (`Dialect`).
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from tesk.store.identifiers import GREATEST
from tesk.tes import State

NAME_INDEXED: Final = 500
"""Characters of a name that are indexed: at most 2,000 bytes."""
TAG_INDEXED_BYTES: Final = 500
LONG_BYTES: Final = 65536
"""Where many tasks are read at once, those whose document and logs together are longer are left out: so the number of
tasks bounds the bytes that are read."""
RARE: Final = 256
"""A filter with fewer tasks than this is rare: all of them are checked quickly."""
Parameter = int | str | bytes | list[int] | list[str] | None


class Sql(NamedTuple):
    text: str
    parameters: tuple[Parameter, ...] = ()


class Dialect(Struct, frozen=True):
    """How a database is made to follow a plan."""

    pins: bool
    """The FROM clause names the index (SQLite). Without it, an optimisation fence leaves no other plan."""
    compares_rows: bool
    """Whole rows of an index are compared (PostgreSQL, which then ignores a lower bound: `Filters.after`)."""


SQLITE: Final = Dialect(pins=True, compares_rows=False)
POSTGRESQL: Final = Dialect(pins=False, compares_rows=True)
WITHIN: Final = {SQLITE: SQLITE, POSTGRESQL: Dialect(pins=False, compares_rows=False)}
"""The dialects for pages that `after` limits to a few thousand ids, where any plan is quick."""


class Visible(Struct, frozen=True):
    """Whose tasks: those of any of these users or groups, by their numbers (see principals)."""

    owners: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()

    def holds(self, owner: int, group: int) -> bool:
        return owner in self.owners or group in self.groups

    def parts(self, most: int) -> "list[Visible]":
        """The same in parts of at most `most` users and groups together."""
        each = [*(("owners", number) for number in self.owners), *(("groups", number) for number in self.groups)]
        parts = [each[begin : begin + most] for begin in range(0, len(each), most)]
        return [
            Visible(*(tuple(number for kind, number in part if kind == wanted) for wanted in ("owners", "groups")))
            for part in parts
        ]


class Filters(Struct, frozen=True):
    """A list request: ids below `before` and above `after`. `visible`: whose tasks; None for all."""

    visible: Visible | None = None
    before: int = GREATEST
    after: int = 0
    state: State | None = None
    name_prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def drivers(self) -> list["Driver"]:
        """The filters that could drive the page, best guess first: tags with a value are rarest."""
        tags = sorted(set(self.tags), key=lambda tag: not tag[1])
        drivers: list[Driver] = [TagDriver(tag, value) for tag, value in tags]
        if self.state is not None:
            drivers.append(StateDriver(self.state))
        if self.visible is not None:
            drivers.append(VisibleDriver(self.visible))
        if self.name_prefix:
            drivers.append(NameDriver(self.name_prefix))
        return drivers


class TagDriver(Struct, frozen=True):
    tag: str
    value: str


class StateDriver(Struct, frozen=True):
    state: State


class NameDriver(Struct, frozen=True):
    prefix: str


class VisibleDriver(Struct, frozen=True):
    """The tasks of some owners and groups: a scan for each, newest first, of as many as a page may need."""

    visible: Visible


class AllDriver(Struct, frozen=True):
    """All tasks, newest first."""


Driver = TagDriver | StateDriver | NameDriver | VisibleDriver | AllDriver


def tag_text(text: str) -> str:
    """A tag or its value as the index holds it: the text itself, or the digest of a long text, which no text equals."""
    if len(text) * 4 <= TAG_INDEXED_BYTES or len(data := text.encode()) <= TAG_INDEXED_BYTES:
        return text
    return "sha256:" + hashlib.sha256(data).hexdigest() * 8


@lru_cache(1024)
def numbered(sql: str) -> str:
    """The statement with `?` written as `$1`, `$2`, …"""
    first, *others = sql.split("?")
    return first + "".join(f"${n}{part}" for n, part in enumerate(others, 1))


def is_storable(text: str) -> bool:
    """Whether both databases can hold the text: no NUL, no lone surrogate."""
    return (text.isascii() and "\0" not in text) or not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def after_prefix(prefix: str) -> str | None:
    """The least text, by code points, that is greater than every text with this prefix; None where there is none."""
    while prefix:
        code = ord(prefix[-1])
        if code < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if code == 0xD7FF else code + 1)
        prefix = prefix[:-1]
    return None


NEWEST_BLOCK: Final = "SELECT number, last, held FROM span WHERE first < ? ORDER BY first DESC LIMIT 1"
"""The newest block with ids below the parameter."""


def probe(filters: Filters, dialect: Dialect) -> Sql:
    """One row: how many ids each driver has, counted up to RARE; then the columns of NEWEST_BLOCK, null without one."""
    counts, parameters = list[str](), list[Parameter]()
    for driver in filters.drivers():
        # The index on names is not in the order of ids, so all ids of the prefix are counted.
        counted = replace(filters, before=GREATEST, after=0) if isinstance(driver, NameDriver) else filters
        if isinstance(driver, VisibleDriver):
            scans = _scans(driver.visible, filters, RARE, dialect)
            source = Sql(f"FROM ({' UNION ALL '.join(scan.text for scan in scans)}) AS v", _parameters(scans))
        else:
            source = _source(driver, counted, dialect)
        counts.append(f"(SELECT count(*) FROM (SELECT 1 {source.text} LIMIT {RARE}) AS c)")
        parameters += source.parameters
    newest = f"(SELECT 1) AS o LEFT JOIN ({NEWEST_BLOCK}) AS e ON true"
    text = f"SELECT {', '.join(counts)}, e.number, e.last, e.held FROM {newest}"
    return Sql(text, (*parameters, filters.before))


def page(filters: Filters, driver: Driver, view: str, limit: int, dialect: Dialect) -> Sql:
    """The page itself; the columns are those of the view."""
    if isinstance(driver, NameDriver):
        ids = _ids(filters, driver, dialect)
        # The ids come first: a sort would carry the documents along.
        text = f"WITH d AS MATERIALIZED ({ids.text} LIMIT ?) SELECT {_columns(view)} FROM d{_task('d.id', dialect)}"
        return Sql(f"{text}{_more(view)} ORDER BY d.id DESC", (*ids.parameters, limit))
    if isinstance(driver, VisibleDriver):
        return _visible_page(filters, driver, view, limit, dialect)
    source = _source(driver, filters, dialect)
    checks = _checks(filters, driver, _id_column(driver))
    join = _task("g.task", dialect) if isinstance(driver, TagDriver) else ""
    from_, where = source.text.rsplit(" WHERE ", 1)
    text = f"SELECT {_columns(view)} {from_}{join}{_more(view)} WHERE {where}{checks.text} {_order(driver, dialect)}"
    return Sql(f"{text} LIMIT ?", (*source.parameters, *checks.parameters, limit))


def tasks_at(filters: Filters, ordinals: Sequence[int], view: str, limit: int, dialect: Dialect) -> Sql:
    """The tasks at these positions that have the state and the name, in any order, with the columns of the view."""
    checks = _checks(replace(filters, tags=(), visible=None), AllDriver(), "t.id")
    given: Parameter
    if dialect.pins:
        positions, given = "json_each(?) AS o CROSS JOIN place AS p ON p.ordinal = o.value", str(list(ordinals))
    else:
        position = "SELECT task FROM place WHERE place.ordinal = o.value OFFSET 0"
        positions, given = f"unnest(?::bigint[]) AS o(value) CROSS JOIN LATERAL ({position}) AS p", list(ordinals)
    text = f"SELECT {_columns(view)} FROM {positions}{_task('p.task', dialect)}{_more(view)} WHERE true{checks.text}"
    return Sql(f"{text} LIMIT ?", (given, *checks.parameters, limit))


def _ids(filters: Filters, driver: NameDriver, dialect: Dialect) -> Sql:
    """All ids that have the name and pass, newest first."""
    source = _source(driver, filters, dialect)
    checks = _checks(filters, driver, "t.id")
    ids = f"SELECT t.id AS id {source.text}{checks.text}"
    if not dialect.pins:
        ids = f"SELECT id FROM (SELECT t.id {source.text}{checks.text} OFFSET 0) AS t"
    return Sql(f"{ids} {_order(driver, dialect)}", (*source.parameters, *checks.parameters))


def _id_column(driver: Driver) -> str:
    return "g.task" if isinstance(driver, TagDriver) else "t.id"


def _source(driver: Driver, filters: Filters, dialect: Dialect) -> Sql:
    """FROM and WHERE of a driver's own ids."""
    if isinstance(driver, NameDriver):
        return _names(driver, filters, dialect)
    before, after = filters.before, filters.after
    ids = (before, after)
    match driver:
        case AllDriver():
            pin = " NOT INDEXED" if dialect.pins else ""
            return Sql(f"FROM task AS t{pin} WHERE t.id < ? AND t.id > ?", ids)
        case StateDriver(state=state) if dialect.compares_rows:
            where = "(t.state, t.id) < (?, ?) AND t.state >= ?"
            return Sql(_fenced(where, _order(driver, dialect)), (int(state), before, int(state)))
        case StateDriver(state=state):
            pin = " INDEXED BY task_state" if dialect.pins else ""
            where = "t.state = ? AND t.id < ? AND t.id > ?"
            return Sql(f"FROM task AS t{pin} WHERE {where}", (int(state), *ids))
        case TagDriver(tag=tag, value=""):
            pin = " INDEXED BY sqlite_autoindex_tag_1" if dialect.pins else ""
            where = "g.key = ? AND g.task < ? AND g.task > ?"
            return Sql(f"FROM tag AS g{pin} WHERE {where}", (tag_text(tag), *ids))
        case TagDriver(tag=tag, value=value) if dialect.compares_rows:
            where = "g.key = ? AND (g.value, g.task) < (?, ?) AND g.value >= ?"
            shown = tag_text(value)
            return Sql(f"FROM tag AS g WHERE {where}", (tag_text(tag), shown, before, shown))
        case TagDriver(tag=tag, value=value):
            pin = " INDEXED BY tag_value" if dialect.pins else ""
            where = "g.key = ? AND g.value = ? AND g.task < ? AND g.task > ?"
            return Sql(f"FROM tag AS g{pin} WHERE {where}", (tag_text(tag), tag_text(value), *ids))
        case VisibleDriver():
            raise AssertionError("several scans are one source in no order: see _scans")


def _names(driver: NameDriver, filters: Filters, dialect: Dialect) -> Sql:
    """FROM and WHERE of a prefix's ids, from the index on names."""
    name = _name_check(driver.prefix)
    pin = " INDEXED BY task_name" if dialect.pins else ""
    where = f"t.id < ? AND t.id > ?{name.text}"
    return Sql(f"FROM task AS t{pin} WHERE {where}", (filters.before, filters.after, *name.parameters))


def _visible_page(filters: Filters, driver: VisibleDriver, view: str, limit: int, dialect: Dialect) -> Sql:
    """A page of the tasks of some owners and groups; where other filters are checked, all of these tasks are RARE."""
    scans = _scans(driver.visible, filters, max(limit, RARE), dialect)
    given, ids = _parameters(scans), f"({' UNION '.join(scan.text for scan in scans)})"
    checks = _checks(filters, driver, "v.id")
    if not checks.text:
        given, ids = (*given, limit), f"(SELECT t.id, t.state FROM {ids} AS t ORDER BY t.id DESC LIMIT ?)"
        if view == "MINIMAL":
            return Sql(ids[1:-1], given)
    text = f"SELECT {_columns(view)} FROM {ids} AS v{_task('v.id', dialect)}{_more(view)} WHERE true{checks.text}"
    return Sql(f"{text} ORDER BY v.id DESC LIMIT ?", (*given, *checks.parameters, limit))


def _scans(visible: Visible, filters: Filters, most: int, dialect: Dialect) -> list[Sql]:
    """The newest tasks of each owner and each group, `most` of each: id and state, from an index that has both."""
    scans = list[Sql]()
    columns = [("owner", number) for number in visible.owners] + [("owner_group", number) for number in visible.groups]
    for column, number in columns:
        parameters: tuple[Parameter, ...] = (number, filters.before, filters.after, most)
        pin = f" INDEXED BY task_{column}" if dialect.pins else ""
        where, order = f"{column} = ? AND id < ? AND id > ?", "id DESC"
        if dialect.compares_rows:
            where, order = f"({column}, id) < (?, ?) AND {column} >= ?", f"{column} DESC, id DESC"
            parameters = (number, filters.before, number, most)
        text = f"SELECT id, state FROM task{pin} WHERE {where} AND {column} <> 0 ORDER BY {order} LIMIT ?"
        scans.append(Sql(f"SELECT id, state FROM ({text}) AS s", parameters))
    return scans


def _parameters(statements: Sequence[Sql]) -> tuple[Parameter, ...]:
    return tuple(parameter for sql in statements for parameter in sql.parameters)


def _fenced(where: str, order: str) -> str:
    """FROM and WHERE of tasks that an index gives in this order, before any other condition is checked."""
    return f"FROM (SELECT * FROM task AS t WHERE {where} {order} OFFSET 0) AS t WHERE true"


def _checks(filters: Filters, driver: Driver, id_column: str) -> Sql:
    """AND clauses for every filter that does not drive. The statement has the task's row as `t`."""
    text, parameters = "", list[Parameter]()
    if filters.state is not None and not isinstance(driver, StateDriver):
        text += " AND t.state = ?"
        parameters.append(int(filters.state))
    if filters.name_prefix and not isinstance(driver, NameDriver):
        name = _name_check(filters.name_prefix)
        text += name.text
        parameters += name.parameters
    for tag, value in set(filters.tags):
        if isinstance(driver, TagDriver) and (driver.tag, driver.value) == (tag, value):
            continue
        tag_row = f"FROM tag AS h WHERE h.key = ? AND h.task = {id_column}"
        parameters.append(tag_text(tag))
        if value:
            text += f" AND (SELECT h.value {tag_row}) = ?"
            parameters.append(tag_text(value))
        else:
            text += f" AND (SELECT 1 {tag_row}) = 1"
    if filters.visible is not None and not isinstance(driver, VisibleDriver):
        visible = filters.visible
        kinds = (("t.owner", visible.owners), ("t.owner_group", visible.groups))
        some = [f"{column} IN ({', '.join('?' * len(numbers))})" for column, numbers in kinds if numbers]
        text += f" AND ({' OR '.join(some)})"
        parameters += [*visible.owners, *visible.groups]
    return Sql(text, tuple(parameters))


def _name_check(prefix: str) -> Sql:
    """AND clauses that are true for names with the prefix; the index alone can answer them."""
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
        case TagDriver(value=value) if value and dialect.compares_rows:
            return "ORDER BY g.value DESC, g.task DESC"
        case TagDriver():
            return "ORDER BY g.task DESC"
        case StateDriver() if dialect.compares_rows:
            return "ORDER BY t.state DESC, t.id DESC"
        case _:
            return "ORDER BY t.id DESC"


def _task(id_column: str, dialect: Dialect) -> str:
    """Joins the task's row; what gives its id stands before."""
    if dialect.pins:
        return f" CROSS JOIN task AS t ON t.id = {id_column}"
    return f" CROSS JOIN LATERAL (SELECT * FROM task WHERE task.id = {id_column} OFFSET 0) AS t"


def _columns(view: str, *, of_long: bool = False) -> str:
    """The columns of a view. Without `of_long`, document and logs of a long task are null.

    Both databases know the lengths without reading the values.
    """
    if view == "MINIMAL":
        return "t.id, t.state"
    document, logs, more = "t.basic", "t.logs", ""
    size = "length(t.basic)"
    if view == "FULL":
        document, logs, more = "coalesce(c.document, t.basic)", "l.logs", ", t.warnings, t.grants"
        size = "coalesce(length(c.document), length(t.basic))"
    if not of_long:
        fits = f"{size} + coalesce(length({logs}), 0) <= {LONG_BYTES}"
        document, logs = (f"CASE WHEN {fits} THEN {column} END" for column in (document, logs))
    return f"t.id, t.state, t.created, {document}, {logs}{more}"


def _more(view: str) -> str:
    if view != "FULL":
        return ""
    return " LEFT JOIN content AS c ON c.task = t.id LEFT JOIN log AS l ON l.task = t.id"


LAST_BELOW: Final = (
    "SELECT ordinal FROM place WHERE ordinal >= ? AND ordinal < ? AND task < ? ORDER BY ordinal DESC LIMIT 1"
)
"""The last ordinal of a range whose task's id is below the last parameter."""


def bitmaps(keys: Sequence[tuple[str, ...]], number: int, limit: int, dialect: Dialect) -> Sql:
    """Of blocks up to `number`, newest first: the number, then one column with the bitmap of each key.

    A block without a bitmap for any of a tuple's keys is left out.
    """
    columns, joins, some, parameters = "", "", "", list[Parameter]()
    for n, alternatives in enumerate(keys):
        names = [f"a{n}_{m}" for m in range(len(alternatives))]
        for name, key in zip(names, alternatives, strict=True):
            columns += f", {name}.found"
            joins += _bitmap(name, len(names) > 1, dialect)
            parameters.append(key)
        if len(names) > 1:
            some += f" AND coalesce({', '.join(f'{name}.found' for name in names)}) IS NOT NULL"
    text = f"SELECT s.number{columns} FROM span AS s{joins} WHERE s.number <= ?{some} ORDER BY s.number DESC LIMIT ?"
    return Sql(text, (*parameters, number, limit))


def bitmaps_in_range(keys: tuple[str, str], number: int, limit: int, dialect: Dialect) -> Sql:
    """Of blocks up to `number`, newest first: the number and the bitmap of each key from the first to below the second.

    A block has a row for each of these keys.
    """
    if dialect.pins:
        joined = "CROSS JOIN term AS m ON m.span = s.number AND m.term >= ? AND m.term < ?"
    else:
        where = "term.span = s.number AND term.term >= ? AND term.term < ?"
        joined = f"CROSS JOIN LATERAL (SELECT found FROM term WHERE {where} OFFSET 0) AS m"
    text = f"SELECT s.number, m.found FROM span AS s {joined} WHERE s.number <= ? ORDER BY s.number DESC LIMIT ?"
    return Sql(text, (*keys, number, limit))


def _bitmap(name: str, may_lack: bool, dialect: Dialect) -> str:
    """Joins the bitmap of a key as `name`; the block stands before."""
    kind = "LEFT" if may_lack else "CROSS"
    if dialect.pins:
        return f" {kind} JOIN term AS {name} ON {name}.span = s.number AND {name}.term = ?"
    bitmap = "SELECT found FROM term WHERE term.span = s.number AND term.term = ? OFFSET 0"
    return f" {kind} JOIN LATERAL ({bitmap}) AS {name}{' ON true' if may_lack else ''}"


def one(view: str, *, of_long: bool = True) -> str:
    """A task by its id; the last two columns say whose it is."""
    columns = f"{_columns(view, of_long=of_long)}, t.owner, t.owner_group"
    return f"SELECT {columns} FROM task AS t{_more(view)} WHERE t.id = ?"


WHOSE: Final = "SELECT owner, owner_group FROM task WHERE id = ?"
