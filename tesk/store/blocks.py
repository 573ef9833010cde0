"""Tasks in blocks of about SIZE, in the order of their ids: how a name prefix is searched newest first.

An index on names is not in the order of lists. One on (block, name) is, block by block: a page walks the blocks from
the newest on, looks for the prefix in each, and stops when it is full. So it reads one block where all names match
and a few hundred index entries where none does. A block is known by a lower bound of its ids, kept in table `block`.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

SIZE: Final = 2048


class Block(NamedTuple):
    """The newest block: ids from `first` on, `held` of them so far."""

    first: int = 0
    held: int = 0


class Placed(NamedTuple):
    """The block of each id, the blocks that began, and the newest one afterwards."""

    blocks: list[int]
    began: list[int]
    newest: Block


def place(numbers: Sequence[int], newest: Block) -> Placed:
    """Where rising ids belong that one writer alone adds."""
    blocks, began = [], []
    first, held = newest
    for number in numbers:
        if held >= SIZE:
            first, held = number, 0
            began.append(first)
        blocks.append(first)
        held += 1
    return Placed(blocks, began, Block(first, held))


AHEAD: Final = 1 << 30
"""With many writers a block begins this far beyond all ids (1.02 s), before any of them gives such an id."""

BEGIN: Final = """
INSERT INTO block (first) SELECT (SELECT max(id) FROM task) + $2::bigint WHERE $1::bigint <= (
  SELECT count(*) FROM (SELECT 1 FROM task WHERE id >= (SELECT max(first) FROM block) LIMIT $1::bigint) AS newest)
ON CONFLICT DO NOTHING
"""
"""Begins a block if the newest is full; for PostgreSQL, by whichever server comes to it. Parameters: SIZE, AHEAD."""

BEGIN_EVERY: Final = SIZE // 8
"""Tasks that a server stores between two looks at whether the newest block is full."""
