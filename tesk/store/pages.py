"""How a page is read, whatever the database: choose what drives it, read it, merge owners.

`Reader` is the little that both databases have in common here: run a statement, get its rows.
"""

import heapq
from collections.abc import Sequence
from typing import Any, Protocol

from tesk.store.base import Brief, Query, Row
from tesk.store.identifiers import GREATEST, read
from tesk.store.queries import (
    OWNERS,
    RARE,
    WALK,
    Dialect,
    Driver,
    Filters,
    NameDriver,
    OwnerDriver,
    Sql,
    among_newest,
    held,
    is_storable,
    page,
    probe,
)
from tesk.store.rows import brief, whole


class Reader(Protocol):
    async def __call__(self, sql: Sql) -> Sequence[Any]: ...


async def read_page(query: Query, dialect: Dialect, run: Reader) -> list[Row] | list[Brief]:
    """The page; empty for a `before` that is no id and for text that no task can have."""
    before = GREATEST if query.before is None else read(query.before)
    texts = (query.name_prefix or "", *(text for tag in query.tags for text in tag))
    if before is None or query.limit <= 0 or not all(map(is_storable, texts)):
        return []
    owners = [query.owner] if query.owner is not None else [row[0] for row in await run(Sql(OWNERS))]
    pages = []
    for owner in owners:
        filters = Filters(owner, before, state=query.state, name_prefix=query.name_prefix, tags=query.tags)
        pages.append(await _owners_page(filters, query, dialect, run))
    rows = pages[0] if len(pages) == 1 else list(heapq.merge(*pages, key=lambda row: -row[0]))[: query.limit]
    return [brief(row) for row in rows] if query.view == "MINIMAL" else [whole(row) for row in rows]


async def _owners_page(filters: Filters, query: Query, dialect: Dialect, run: Reader) -> Sequence[Any]:
    """Rows of one owner, driven by the rarest filter if there is a rare one."""
    drivers = filters.drivers() or [OwnerDriver()]
    if len(drivers) > 1 or filters.name_prefix:
        counts = (await run(probe(filters, dialect)))[0]
        fewest = min(counts)
        if fewest == 0:
            return []
        rarest = drivers[list(counts).index(fewest)]
        drivers = [rarest] if fewest < RARE else [_in_order(driver) for driver in drivers]
    if len(drivers) == 1:
        return await run(page(filters, drivers[0], query.view, query.limit, dialect))
    return await _page_by_trial(drivers, filters, query, dialect, run)


async def _page_by_trial(
    drivers: Sequence[Driver], filters: Filters, query: Query, dialect: Dialect, run: Reader
) -> Sequence[Any]:
    """Rows by the first driver whose newest ids give them all, else by the one whose newest ids gave most."""
    best, most = drivers[0], -1
    for driver in drivers:
        count = (await run(held(filters, driver, dialect)))[0][0]
        if count == 0:
            return []
        rows = await run(among_newest(filters, driver, query.view, query.limit, dialect))
        if count < WALK or len(rows) >= query.limit:
            return rows
        if len(rows) > most:
            best, most = driver, len(rows)
    return await run(page(filters, best, query.view, query.limit, dialect))


def _in_order(driver: Driver) -> Driver:
    """The driver as one that gives ids newest first however many it has."""
    return NameDriver(driver.prefix, rare=False) if isinstance(driver, NameDriver) else driver
