"""Converts between the store's documents and rows of the tables, for both databases."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tesk.rules import NO_GRANTS, Grants
from tesk.store.base import Brief, NewTask, Queued, Row, Unfinished
from tesk.store.documents import encode_warnings, with_warnings
from tesk.store.identifiers import show
from tesk.store.queries import is_storable, tag_text
from tesk.tes import State, encode

STATES = tuple(State)
_read_grants = msgspec.json.Decoder(Grants).decode


class NewRows(NamedTuple):
    """The rows of a new task: columns of `task` in the order of TASK_COLUMNS, rows of `tag`, a row of `content`."""

    task: tuple[Any, ...]
    tags: list[tuple[str, int, str]]
    content: tuple[int, bytes] | None


TASK_COLUMNS = "id, owner, state, submitted, created, name, tags, warnings, basic, owner_group, grants"


def new_rows(number: int, new: NewTask, owner: int, group: int, created_ms: int) -> NewRows:
    """The rows of a new task. Its id `number` gives an order, not a time: it may be ahead of the clock.

    `owner`, `group`: the numbers of its owner (see principals).

    Raises ValueError for text that no database can hold; tes.parse refuses such tasks before.
    """
    tags = new.tags or {}
    if not all(map(is_storable, (new.name or "", *tags, *tags.values()))):
        raise ValueError("a task's name and tags cannot hold NUL characters or lone surrogates")
    kept_tags = encode(tags) if tags else None
    warnings = encode_warnings(new.warnings)
    grants = encode(new.grants) if new.grants != NO_GRANTS else None
    return NewRows(
        (number, owner, int(State.QUEUED), 0, created_ms, new.name, kept_tags, warnings, new.basic, group, grants),
        [(tag_text(key), number, tag_text(value)) for key, value in tags.items()],
        None if new.full is None else (number, new.full),
    )


def brief(row: Sequence[Any]) -> Brief:
    return Brief(show(row[0]), STATES[row[1]])


def whole(row: Sequence[Any]) -> Row | Brief:
    """A row of the BASIC view, or of the FULL view with its warnings and grants. Brief where the document was left out
    as long."""
    if row[3] is None:
        return brief(row)
    if len(row) == 5:
        return Row(show(row[0]), STATES[row[1]], *row[2:])
    grants = NO_GRANTS if row[6] is None else _read_grants(row[6])
    return Row(show(row[0]), STATES[row[1]], row[2], row[3], with_warnings(row[4], row[5]), grants)


def unfinished(row: Sequence[Any]) -> Unfinished:
    return Unfinished(show(row[0]), row[1], row[2], STATES[row[3]], bool(row[4]))


def queued(row: Sequence[Any]) -> Queued:
    return Queued(show(row[0]), row[1], row[2], row[3])
