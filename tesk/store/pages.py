"""How a page is read, whatever the database: choose how to find its tasks, then read them.

At first a few blocks are read, since mostly they fill the page; then as many as will fill it if they are alike, or all
that are left where the first had nothing.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from msgspec.structs import replace

from tesk.store import blocks
from tesk.store.base import Brief, Query, Row
from tesk.store.blocks import intersection, name_range, positions, required_keys, unpack
from tesk.store.identifiers import GREATEST, read
from tesk.store.queries import (
    LAST_BELOW,
    RARE,
    WITHIN,
    AllDriver,
    Dialect,
    Filters,
    NameDriver,
    Sql,
    Visible,
    VisibleDriver,
    bitmaps,
    bitmaps_in_range,
    is_storable,
    page,
    probe,
    tasks_at,
)
from tesk.store.reader import Reader
from tesk.store.rows import brief, whole

FIRST_BLOCKS: Final = 16
"""Blocks that are read at first."""
ALL_BLOCKS: Final = 1 << 30
MORE: Final = 3
"""Half of this many times the blocks that seem to be needed are read, since tasks are not spread evenly."""
FEWEST_CHECKED: Final = 64
"""Candidates that are checked at once, even for a shorter page: some may have another state by now."""
SPARE: Final = 2
"""This many times the page's candidates are checked at once where some are only known as not ended. The statement stops
when the page is full, and a second statement would cost more than the candidates that it does not reach."""
FIRST_DOUBTFUL: Final = 32
"""Candidates that are checked at first where only the start of their names is known."""
KEYS_AT_ONCE: Final = 30
"""Tuples of keys in one statement, two keys in some: SQLite joins at most 64 tables."""
VISIBLE_AT_ONCE: Final = 16
"""Users and groups whose tasks one page is read from. The page of somebody who sees more is merged from several."""
MISSES: Final = 24
"""When more candidates than this had another name, a range of whole names is read in place of the names' starts."""


def batched(ordinals: Iterator[int], first: int, size: int) -> Iterator[list[int]]:
    """Groups of `size`; the first group has `first`."""
    wanted = first
    while batch := list(islice(ordinals, wanted)):
        yield batch
        wanted = size


async def read_page(query: Query, visible: Visible | None, dialect: Dialect, run: Reader) -> list[Row | Brief]:
    """The page, of tasks that are `visible`. Empty for a `before` that is no id, and for text that no task can have."""
    before = GREATEST if query.before is None else read(query.before)
    texts = (query.name_prefix or "", *(text for tag in query.tags for text in tag))
    if before is None or query.limit <= 0 or not all(map(is_storable, texts)):
        return []
    found = dict[int, Any]()
    for part in [None] if visible is None else visible.parts(VISIBLE_AT_ONCE):
        filters = Filters(part, before, state=query.state, name_prefix=query.name_prefix, tags=query.tags)
        found |= {row[0]: row for row in await _rows(filters, query, dialect, run)}
    rows = [found[number] for number in sorted(found, reverse=True)[: query.limit]]
    return [brief(row) for row in rows] if query.view == "MINIMAL" else [whole(row) for row in rows]


async def _rows(filters: Filters, query: Query, dialect: Dialect, run: Reader) -> Sequence[Any]:
    """The rows of a page. The only filter or a rare one drives them; else bitmaps answer."""
    drivers = filters.drivers() or [AllDriver()]
    if len(drivers) > 1 or filters.name_prefix:
        *counts, number, last, taken = (await run(probe(filters, dialect)))[0]
        fewest = min(counts)
        if fewest == 0:
            return []
        rarest = drivers[counts.index(fewest)]
        if fewest >= RARE:
            newest = (-1, 0, 0) if number is None else (number, last, taken)
            return await _page_by_blocks(filters, query, newest, dialect, run)
        drivers = [rarest]
    return await run(page(filters, drivers[0], query.view, query.limit, dialect))


async def _page_by_blocks(
    filters: Filters, query: Query, newest: tuple[int, int, int], dialect: Dialect, run: Reader
) -> Sequence[Any]:
    """Rows of the tasks that are in no block yet, then of those in blocks.

    `newest`: the number of the newest block, its last id, and how many of its positions are taken.
    """
    number, last, count = newest
    rows: list[Any] = []
    if last + 1 < filters.before:
        driven = (each for each in filters.drivers() if not isinstance(each, NameDriver | VisibleDriver))
        driver = next(driven, AllDriver())
        rows += await run(page(replace(filters, after=last), driver, query.view, query.limit, WITHIN[dialect]))
    else:
        begin = number * blocks.SIZE
        below = await run(Sql(LAST_BELOW, (begin, begin + blocks.SIZE, filters.before)))
        count = below[0][0] + 1 - begin if below else 0
    rest = replace(query, limit=query.limit - len(rows))
    return rows + await _rows_in_blocks(filters, rest, (number, count), dialect, run)


async def _rows_in_blocks(
    filters: Filters, query: Query, begin: tuple[int, int], dialect: Dialect, run: Reader
) -> list[Any]:
    """Rows of tasks in blocks. `begin`: the number of the newest block, and how many of its positions count."""
    (number, count), rows = begin, list[Any]()
    names, block_limit, blocks_read, missed = None, FIRST_BLOCKS, 0, 0
    whole_names = name_range(filters.name_prefix or "")
    while len(rows) < query.limit and number >= 0:
        ordinals, following = await _candidates(filters, number, count, block_limit, names, dialect, run)
        count, blocks_read = blocks.SIZE, blocks_read + block_limit
        size = max((query.limit - len(rows)) * (1 if filters.state is None else SPARE), FEWEST_CHECKED)
        is_doubtful = whole_names is not None and names is None
        for group in batched(ordinals, FIRST_DOUBTFUL if is_doubtful and not rows else size, size):
            tasks = await run(tasks_at(filters, group, query.view, query.limit - len(rows), dialect))
            rows += sorted(tasks, key=lambda row: -row[0])
            missed += len(group) - len(tasks)
            if len(rows) >= query.limit:
                break
            if missed > MISSES and is_doubtful:
                names = whole_names
                following, count = divmod(group[-1], blocks.SIZE)
                break
        number = following
        block_limit = _likely_blocks(query.limit - len(rows), len(rows), blocks_read)
    return rows


def _likely_blocks(wanted: int, found: int, blocks_read: int) -> int:
    """How many further blocks have the rows that are wanted, where those that were read had so many."""
    return ALL_BLOCKS if not found else max(FIRST_BLOCKS, MORE * wanted * blocks_read // (2 * found))


async def _candidates(
    filters: Filters,
    number: int,
    count: int,
    limit: int,
    names: tuple[str, str] | None,
    dialect: Dialect,
    run: Reader,
) -> tuple[Iterator[int], int]:
    """Ordinals, greatest first, and the number of the block from which to continue, or -1.

    They lie in `limit` blocks up to `number`, of which the first `count` positions count. `names`: the range of keys of
    whole names, to be read in place of the names' starts.
    """
    prefix = filters.name_prefix if names is None else None
    keys = required_keys(filters.state, prefix, filters.tags, filters.visible)
    candidates, following = await _intersections(keys, number, limit, dialect, run)
    if names is not None:
        rows = await run(bitmaps_in_range(names, number, blocks.SIZE + 1, dialect))
        if len(rows) > blocks.SIZE:  # the last block may have more
            following = max(following, rows[-1][0])
        named: dict[int, int] = {}
        for block, packed in rows:
            named[block] = named.get(block, 0) | unpack(packed)
        both = {block: bitmap & named.get(block, 0) for block, bitmap in candidates.items()} if keys else named
        candidates = {block: bitmap for block, bitmap in both.items() if block > following}
    if number in candidates:
        candidates[number] &= (1 << count) - 1
    ordinals = (
        block * blocks.SIZE + position for block, bitmap in candidates.items() for position in positions(bitmap)
    )
    return ordinals, following


async def _intersections(
    keys: Sequence[tuple[str, ...]], number: int, limit: int, dialect: Dialect, run: Reader
) -> tuple[dict[int, int], int]:
    """By block, newest first, the bitmap of positions with one key of each tuple; and the block from which to continue,
    or -1."""
    found, following = dict[int, int](), -1
    for begin in range(0, len(keys), KEYS_AT_ONCE):
        some = keys[begin : begin + KEYS_AT_ONCE]
        rows = await run(bitmaps(some, number, limit, dialect))
        if len(rows) == limit:
            following = max(following, rows[-1][0] - 1)
        of_some = {row[0]: intersection(row[1:], some) for row in rows}
        found = {block: bitmap & found.get(block, 0) for block, bitmap in of_some.items()} if begin else of_some
    return {block: bitmap for block, bitmap in found.items() if block > following}, following
