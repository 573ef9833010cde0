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
    is_storable,
    page,
    probe,
    walk,
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
        filters = Filters(owner, before, query.state, query.name_prefix, query.tags)
        pages.append(await _owners_page(filters, query, dialect, run))
    rows = pages[0] if len(pages) == 1 else list(heapq.merge(*pages, key=lambda row: -row[0]))[: query.limit]
    return [brief(row) for row in rows] if query.view == "MINIMAL" else [whole(row) for row in rows]


async def _owners_page(filters: Filters, query: Query, dialect: Dialect, run: Reader) -> Sequence[Any]:
    driver = await _choose(filters, query.limit, dialect, run)
    if driver is None:
        return []
    return await run(page(filters, driver, query.view, query.limit, dialect))


async def _choose(filters: Filters, limit: int, dialect: Dialect, run: Reader) -> Driver | None:
    """What drives the page; None when some filter has no tasks at all."""
    drivers = filters.drivers()
    if not drivers:
        return OwnerDriver()
    if len(drivers) == 1 and not filters.name_prefix:
        return drivers[0]
    counts = (await run(probe(filters, dialect)))[0]
    fewest = min(counts)
    if fewest == 0:
        return None
    if fewest < RARE:
        return drivers[list(counts).index(fewest)]
    return await _most_fruitful([_in_order(driver) for driver in drivers], filters, limit, dialect, run)


async def _most_fruitful(
    drivers: Sequence[Driver], filters: Filters, limit: int, dialect: Dialect, run: Reader
) -> Driver:
    """The driver that is at its end soon, or else whose newest ids pass the other filters most often."""
    best, most = drivers[0], -1
    for driver in drivers if len(drivers) > 1 else ():
        held, passing = (await run(walk(filters, driver, dialect)))[0]
        if held < WALK or passing >= limit:
            return driver
        if passing > most:
            best, most = driver, passing
    return best


def _in_order(driver: Driver) -> Driver:
    """The driver as one that gives ids newest first however many it has."""
    return NameDriver(driver.prefix, rare=False) if isinstance(driver, NameDriver) else driver
