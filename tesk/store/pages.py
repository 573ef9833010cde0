"""How a page is read, whatever the database: choose what answers it, read it, merge owners.

A group of spans is read at first, since mostly it fills the page; then all that are left.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from msgspec.structs import replace

from tesk.store import spans
from tesk.store.base import Brief, Query, Row
from tesk.store.identifiers import GREATEST, read
from tesk.store.queries import (
    HELD_BELOW,
    OWNERS,
    RARE,
    WITHIN,
    Dialect,
    Filters,
    NameDriver,
    OwnerDriver,
    Sql,
    found,
    is_storable,
    names,
    page,
    probe,
    summaries,
)
from tesk.store.reader import Reader
from tesk.store.rows import brief, whole
from tesk.store.spans import common, name_range, positions, terms_of, unpack

FIRST_SPANS: Final = 16
ALL_SPANS: Final = 1 << 30
LEAST_LOOKED_UP: Final = 64
"""Candidates that are looked up at once, even for a shorter page: some may have another state by now."""
SPARE: Final = 2
"""Times as many candidates are given to be looked up, where all that is known of some is that they had not ended: it
is left at the page's end, and a further statement costs more than the list of those that it does not come to."""
DOUBTED: Final = 32
"""Candidates that are looked up at first where all that is known of their names is how they start."""
TERMS_AT_ONCE: Final = 30
"""Terms in one statement, two of them with alternatives: SQLite joins at most 64 tables."""
MISSES: Final = 24
"""Candidates that turn out to have another name before names are searched for themselves."""


def batched(ordinals: Iterator[int], first: int, size: int) -> Iterator[list[int]]:
    """Groups of `size`, the first one of its own size."""
    wanted = first
    while batch := list(islice(ordinals, wanted)):
        yield batch
        wanted = size


async def read_page(query: Query, dialect: Dialect, run: Reader) -> list[Row | Brief]:
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
    """Rows of one owner, driven by the only filter or a rare one, else by summaries."""
    drivers = filters.drivers() or [OwnerDriver()]
    if len(drivers) > 1 or filters.name_prefix:
        *counts, number, last, held = (await run(probe(filters, dialect)))[0]
        fewest = min(counts)
        if fewest == 0:
            return []
        rarest = drivers[counts.index(fewest)]
        if fewest >= RARE:
            edge = (-1, 0, 0) if number is None else (number, last, held)
            return await _page_by_spans(filters, query, edge, dialect, run)
        drivers = [rarest]
    return await run(page(filters, drivers[0], query.view, query.limit, dialect))


async def _page_by_spans(
    filters: Filters, query: Query, edge: tuple[int, int, int], dialect: Dialect, run: Reader
) -> Sequence[Any]:
    """Rows of the tasks that are not in a span yet, then of those that are."""
    number, last, held = edge
    rows: list[Any] = []
    if last + 1 < filters.before:
        driver = next((each for each in filters.drivers() if not isinstance(each, NameDriver)), OwnerDriver())
        rows += await run(page(replace(filters, after=last), driver, query.view, query.limit, WITHIN[dialect]))
    else:
        begin = number * spans.SIZE
        below = await run(Sql(HELD_BELOW, (begin, begin + spans.SIZE, filters.before)))
        held = below[0][0] + 1 - begin if below else 0
    rest = replace(query, limit=query.limit - len(rows))
    return rows + await _among_spans(filters, rest, (number, held), dialect, run)


async def _among_spans(
    filters: Filters, query: Query, begin: tuple[int, int], dialect: Dialect, run: Reader
) -> list[Any]:
    """Rows of tasks in spans; `begin` is the number of the newest and how many of its places count."""
    (number, held), rows = begin, list[Any]()
    narrower, some, missed = None, FIRST_SPANS, 0
    doubted = name_range(filters.name_prefix or "")
    while len(rows) < query.limit and number >= 0:
        ordinals, following = await _candidates(filters, number, held, some, narrower, dialect, run)
        held, some = spans.SIZE, ALL_SPANS
        size = max((query.limit - len(rows)) * (1 if filters.state is None else SPARE), LEAST_LOOKED_UP)
        for group in batched(ordinals, DOUBTED if doubted and narrower is None and not rows else size, size):
            tasks = await run(found(filters, group, query.view, query.limit - len(rows), dialect))
            rows += sorted(tasks, key=lambda row: -row[0])
            missed += len(group) - len(tasks)
            if len(rows) >= query.limit:
                break
            if missed > MISSES and doubted and narrower is None:
                narrower = doubted
                following, held = divmod(group[-1], spans.SIZE)
                break
        number = following
    return rows


async def _candidates(
    filters: Filters,
    number: int,
    held: int,
    limit: int,
    narrower: tuple[str, str] | None,
    dialect: Dialect,
    run: Reader,
) -> tuple[Iterator[int], int]:
    """Ordinals, greatest first, in `limit` spans up to `number`, of which the first `held` places count; the number of
    the span from which to go on, or -1."""
    terms = terms_of(filters.state, filters.name_prefix if narrower is None else None, filters.tags)
    bitmaps, following = await _summarised(filters.owner, terms, number, limit, dialect, run)
    if narrower is not None:
        named = await run(names(filters.owner, narrower, number, spans.SIZE + 1, dialect))
        if len(named) > spans.SIZE:  # the last span may have more
            following = max(following, named[-1][0])
        some: dict[int, int] = {}
        for span, has in named:
            some[span] = some.get(span, 0) | unpack(has)
        wanted = {span: bits & some.get(span, 0) for span, bits in bitmaps.items()} if terms else some
        bitmaps = {span: bits for span, bits in wanted.items() if span > following}
    if number in bitmaps:
        bitmaps[number] &= (1 << held) - 1
    ordinals = (span * spans.SIZE + position for span, bits in bitmaps.items() for position in positions(bits))
    return ordinals, following


async def _summarised(
    owner: int, terms: Sequence[tuple[str, ...]], number: int, limit: int, dialect: Dialect, run: Reader
) -> tuple[dict[int, int], int]:
    """What has one of each tuple of terms, by span, newest first; the number of the span from which to go on, or -1."""
    bitmaps, following = dict[int, int](), -1
    for begin in range(0, len(terms), TERMS_AT_ONCE):
        some = terms[begin : begin + TERMS_AT_ONCE]
        rows = await run(summaries(owner, some, number, limit, dialect))
        if len(rows) == limit:
            following = max(following, rows[-1][0] - 1)
        found = {row[0]: common(row[1:], some) for row in rows}
        bitmaps = {span: bits & bitmaps.get(span, 0) for span, bits in found.items()} if begin else found
    return {span: bits for span, bits in bitmaps.items() if span > following}, following
