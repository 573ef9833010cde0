"""Keeps the spans' summaries: one change at a time, each read first and then written in one transaction.

New tasks come to the newest span until it is full. Its states are summarised anew when half of the tasks that had not
ended have, all of it when half of its tasks were pruned. A position is given once and for good, so that a page that
is being read is not misled. A summary that lags makes pages slower, never wrong.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tesk.store import spans
from tesk.store.base import StoreError
from tesk.store.queries import Sql
from tesk.store.reader import Reader

log = logging.getLogger(__name__)

LEAST: Final = 128
"""New tasks that are worth a summary."""
AT_ONCE: Final = 1024
"""New tasks that are taken up in one transaction."""
LOOK: Final = 32
"""Spans that are looked at in one round for tasks that have ended."""
PAUSE_S: Final = 0.5
"""Between two changes: creates lose a few per cent to them at most, and 2,000 tasks per second are kept up with."""
IDLE_S: Final = 2.0
NEWEST: Final = "SELECT number, first, last, held, unended, alive, pruned FROM span ORDER BY first DESC LIMIT 1"
NEW: Final = "SELECT id, owner, state, ended, name, tags FROM task WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
PLACES: Final = "SELECT ordinal, task FROM place WHERE ordinal >= ? AND ordinal < ?"
TASKS: Final = "SELECT id, owner, state, ended, name, tags FROM task WHERE id >= ? AND id <= ? ORDER BY id"
STATES: Final = "SELECT id, owner, state, ended FROM task WHERE id >= ? AND id <= ? ORDER BY id"
TERMS: Final = "SELECT owner, term, found FROM term WHERE span = ?"
STATE_TERMS: Final = f"{TERMS} AND (term = '{spans.UNENDED}' OR term LIKE 's%')"
CHANGED: Final = (
    "SELECT number, first, last, held, unended, alive, pruned, (SELECT count(*) FROM task AS t WHERE t.ended IS NULL "
    "AND t.id >= s.first AND t.id <= s.last) FROM span AS s WHERE (unended > 0 OR 2 * pruned >= alive) AND number > ? "
    "ORDER BY number LIMIT ?"
)
COUNT_PRUNED: Final = (
    "UPDATE span SET pruned = pruned + 1 WHERE number = (SELECT number FROM span WHERE first <= ? "
    "ORDER BY first DESC LIMIT 1)"
)
"""Parameter: the id of a task that is deleted."""


class Span(NamedTuple):
    """A row of `span`."""

    number: int
    first: int
    last: int
    held: int
    unended: int
    alive: int
    pruned: int


class Change(NamedTuple):
    """Rows of `term` to be replaced or added in a span, and new ones of `place`."""

    span: Span
    obsolete: list[tuple[int, int, str]]
    terms: list[tuple[int, int, str, bytes]]
    places: list[tuple[int, int]]

    def statements(self) -> list[tuple[str, list[tuple[Any, ...]]]]:
        """Statements, each to be run for every tuple of parameters. A span whose tasks are all gone goes."""
        number = self.span.number
        drop_span: tuple[str, list[tuple[Any, ...]]] = ("DELETE FROM span WHERE number = ?", [(number,)])
        if self.span.alive == 0:
            places = (number * spans.SIZE, (number + 1) * spans.SIZE)
            return [
                drop_span,
                ("DELETE FROM term WHERE span = ?", [(number,)]),
                ("DELETE FROM place WHERE ordinal >= ? AND ordinal < ?", [places]),
            ]
        return [
            drop_span,
            (f"INSERT INTO span ({', '.join(Span._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?)", [self.span]),
            ("DELETE FROM term WHERE span = ? AND owner = ? AND term = ?", list(self.obsolete)),
            ("INSERT INTO place (ordinal, task) VALUES (?, ?)", list(self.places)),
            ("INSERT INTO term (span, owner, term, found) VALUES (?, ?, ?, ?)", list(self.terms)),
        ]


async def keep_up(step: Callable[[], Awaitable[bool]]) -> None:
    """Makes one change after the other until it is cancelled; `step` tells whether there was one to make."""
    pause = PAUSE_S
    while True:
        await asyncio.sleep(pause)
        try:
            pause = PAUSE_S if await step() else IDLE_S
        except StoreError as error:
            pause = IDLE_S
            log.warning("tasks are not being summarised, and long lists may become slow: %s", error)


async def addition(run: Reader, closed: int) -> Change | None:
    """Takes up new tasks with ids up to `closed`, if they are enough."""
    rows = await run(Sql(NEWEST))
    span = Span(*rows[0]) if rows else Span(-1, 0, 0, spans.SIZE, 0, 0, 0)
    if span.held >= spans.SIZE:
        span = Span(span.number + 1, span.last + 1, span.last, 0, 0, 0, 0)
    room = min(spans.SIZE - span.held, AT_ONCE)
    new = await run(Sql(NEW, (span.last, closed, room)))
    if len(new) < min(room, LEAST):
        return None
    begin = span.number * spans.SIZE
    places = [(begin + position, row[0]) for position, row in enumerate(new, span.held)]
    unended = sum(row[3] is None for row in new)
    grown = span._replace(
        last=new[-1][0], held=span.held + len(new), unended=span.unended + unended, alive=span.alive + len(new)
    )
    old = await run(Sql(TERMS, (span.number,))) if span.held else []
    return await asyncio.to_thread(_grown, grown, span.held, new, old, places)


def _grown(span: Span, held: int, new: Sequence[Any], old: Sequence[Any], places: list[tuple[int, int]]) -> Change:
    tasks = [(position, *row[1:]) for position, row in enumerate(new, held)]
    found = spans.by_states(tasks) | spans.by_content(tasks)
    touched = (((owner, term), had) for owner, term, had in old if (owner, term) in found)
    merged = {key: spans.joined(had, found[key]) for key, had in touched}
    return _change(span, list(merged), {key: spans.pack(found[key]) for key in found} | merged, places)


async def renewal(run: Reader) -> Change | None:
    """Renews a span for which it is worth it."""
    after = -1
    while rows := await run(Sql(CHANGED, (after, LOOK))):
        for *row, unended in rows:
            span = Span(*row)
            if 2 * span.pruned >= span.alive:
                return await _renewed(run, span, unended, whole=True)
            if span.unended and 2 * unended <= span.unended:
                return await _renewed(run, span, unended, whole=False)
        after = rows[-1][0]
    return None


async def _renewed(run: Reader, span: Span, unended: int, *, whole: bool) -> Change:
    begin = span.number * spans.SIZE
    places = await run(Sql(PLACES, (begin, begin + spans.SIZE)))
    tasks = await run(Sql(TASKS if whole else STATES, (span.first, span.last)))
    terms = await run(Sql(TERMS if whole else STATE_TERMS, (span.number,)))
    alive, pruned = (len(tasks), 0) if whole else (span.alive, span.pruned)
    renewed = span._replace(unended=unended, alive=alive, pruned=pruned)
    return await asyncio.to_thread(_again, renewed, tasks, places, terms, whole=whole)


def _again(span: Span, rows: Sequence[Any], places: Sequence[Any], terms: Sequence[Any], *, whole: bool) -> Change:
    position = {task: ordinal - span.number * spans.SIZE for ordinal, task in places}
    tasks = [(position[row[0]], *row[1:]) for row in rows]
    found = spans.by_states(tasks)
    if whole:
        found |= spans.by_content(tasks)
    return _change(span, [(row[0], row[1]) for row in terms], {key: spans.pack(found[key]) for key in found}, [])


def _change(
    span: Span,
    obsolete: Sequence[tuple[int, str]],
    found: Mapping[tuple[int, str], bytes],
    places: list[tuple[int, int]],
) -> Change:
    terms = [(span.number, *key, found[key]) for key in sorted(found)]
    return Change(span, [(span.number, *key) for key in obsolete], terms, places)
