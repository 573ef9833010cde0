"""Keeps the bitmaps of blocks: one change at a time, first read and then written in one transaction.

New tasks get positions in the newest block until it is full. The bitmaps of a block's states are made anew when half of
its tasks that had not ended have ended; all of its bitmaps when half of its tasks were pruned. A task keeps its
position for good, so that a page that is being read is not misled. Bitmaps that lag make pages slower, never wrong.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tesk.store import blocks
from tesk.store.base import StoreError
from tesk.store.queries import Sql
from tesk.store.reader import Reader

log = logging.getLogger(__name__)

FEWEST_NEW: Final = 128
"""Fewer new tasks are not worth a change."""
MOST_NEW: Final = 1024
"""New tasks that one transaction takes up at most."""
BLOCKS_AT_ONCE: Final = 32
"""Blocks that one statement checks for tasks that have ended."""
PAUSE_S: Final = 0.5
"""Between two changes: creates lose a few per cent to them at most, and 2,000 tasks per second are kept up with."""
IDLE_S: Final = 2.0
"""Between two looks while there is no change to make."""
NEWEST: Final = "SELECT number, first, last, held, unended, alive, pruned FROM span ORDER BY first DESC LIMIT 1"
NEW: Final = (
    "SELECT id, state, ended, name, tags, owner, owner_group FROM task WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
)
POSITIONS: Final = "SELECT ordinal, task FROM place WHERE ordinal >= ? AND ordinal < ?"
TASKS: Final = "SELECT id, state, ended, name, tags, owner, owner_group FROM task WHERE id >= ? AND id <= ? ORDER BY id"
STATES: Final = "SELECT id, state, ended FROM task WHERE id >= ? AND id <= ? ORDER BY id"
BITMAPS: Final = "SELECT term, found FROM term WHERE span = ?"
STATE_BITMAPS: Final = f"{BITMAPS} AND (term = '{blocks.UNENDED}' OR term LIKE 's%')"
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


class Block(NamedTuple):
    """A row of the table `span`."""

    number: int
    first: int
    """No id in the block is less."""
    last: int
    """No id in the block is greater."""
    taken: int
    """How many positions tasks have got."""
    unended: int
    """How many tasks had not ended when the bitmaps of their states were made."""
    alive: int
    """How many tasks there were when all bitmaps were made."""
    pruned: int
    """How many tasks were pruned since."""


class BlockChange(NamedTuple):
    """What one transaction writes of a block."""

    block: Block
    obsolete: list[tuple[int, str]]
    """Bitmaps to be deleted, by block and key."""
    bitmaps: list[tuple[int, str, bytes]]
    """New bitmaps, by block and key."""
    positions: list[tuple[int, int]]
    """New positions: ordinal and task."""

    def statements(self) -> list[tuple[str, list[tuple[Any, ...]]]]:
        """Statements, each to be run for every tuple of parameters. A block whose tasks are all gone is deleted."""
        number = self.block.number
        drop_block: tuple[str, list[tuple[Any, ...]]] = ("DELETE FROM span WHERE number = ?", [(number,)])
        if self.block.alive == 0:
            ordinals = (number * blocks.SIZE, (number + 1) * blocks.SIZE)
            return [
                drop_block,
                ("DELETE FROM term WHERE span = ?", [(number,)]),
                ("DELETE FROM place WHERE ordinal >= ? AND ordinal < ?", [ordinals]),
            ]
        columns = "number, first, last, held, unended, alive, pruned"
        return [
            drop_block,
            (f"INSERT INTO span ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", [self.block]),
            ("DELETE FROM term WHERE span = ? AND term = ?", list(self.obsolete)),
            ("INSERT INTO place (ordinal, task) VALUES (?, ?)", list(self.positions)),
            ("INSERT INTO term (span, term, found) VALUES (?, ?, ?)", list(self.bitmaps)),
        ]


async def keep_up(step: Callable[[], Awaitable[bool]]) -> None:
    """Makes one change after the other until it is cancelled; `step` returns whether it made one."""
    pause = PAUSE_S
    while True:
        await asyncio.sleep(pause)
        try:
            pause = PAUSE_S if await step() else IDLE_S
        except StoreError as error:
            pause = IDLE_S
            log.warning("tasks are not being summarised, and long lists may become slow: %s", error)


async def addition(run: Reader, closed: int) -> BlockChange | None:
    """Takes up new tasks with ids up to `closed`, if they are enough."""
    rows = await run(Sql(NEWEST))
    block = Block(*rows[0]) if rows else Block(-1, 0, 0, blocks.SIZE, 0, 0, 0)
    if block.taken >= blocks.SIZE:
        block = Block(block.number + 1, block.last + 1, block.last, 0, 0, 0, 0)
    room = min(blocks.SIZE - block.taken, MOST_NEW)
    new = await run(Sql(NEW, (block.last, closed, room)))
    if len(new) < min(room, FEWEST_NEW):
        return None
    begin = block.number * blocks.SIZE
    positions = [(begin + position, row[0]) for position, row in enumerate(new, block.taken)]
    unended = sum(row[2] is None for row in new)
    grown = block._replace(
        last=new[-1][0], taken=block.taken + len(new), unended=block.unended + unended, alive=block.alive + len(new)
    )
    old = await run(Sql(BITMAPS, (block.number,))) if block.taken else []
    return await asyncio.to_thread(_grown, grown, block.taken, new, old, positions)


def _grown(
    block: Block, first_position: int, new: Sequence[Any], old: Sequence[Any], positions: list[tuple[int, int]]
) -> BlockChange:
    """The change that adds the tasks `new` from `first_position` on; `old` are the block's bitmaps until now."""
    tasks = [(position, *row[1:]) for position, row in enumerate(new, first_position)]
    found = blocks.positions_by_state(tasks) | blocks.positions_by_content(tasks)
    touched = ((key, bitmap) for key, bitmap in old if key in found)
    merged = {key: blocks.extended(bitmap, found[key]) for key, bitmap in touched}
    return _change(block, list(merged), {key: blocks.pack(found[key]) for key in found} | merged, positions)


async def renewal(run: Reader) -> BlockChange | None:
    """Makes the bitmaps of one block anew, of the first for which it is worth it."""
    after = -1
    while rows := await run(Sql(CHANGED, (after, BLOCKS_AT_ONCE))):
        for *row, unended in rows:
            block = Block(*row)
            if 2 * block.pruned >= block.alive:
                return await _renewed(run, block, unended, whole=True)
            if block.unended and 2 * unended <= block.unended:
                return await _renewed(run, block, unended, whole=False)
        after = rows[-1][0]
    return None


async def _renewed(run: Reader, block: Block, unended: int, *, whole: bool) -> BlockChange:
    """The block with new bitmaps: all of them where `whole`, else those of the states."""
    begin = block.number * blocks.SIZE
    positions = await run(Sql(POSITIONS, (begin, begin + blocks.SIZE)))
    tasks = await run(Sql(TASKS if whole else STATES, (block.first, block.last)))
    old = await run(Sql(BITMAPS if whole else STATE_BITMAPS, (block.number,)))
    alive, pruned = (len(tasks), 0) if whole else (block.alive, block.pruned)
    renewed = block._replace(unended=unended, alive=alive, pruned=pruned)
    return await asyncio.to_thread(_made_anew, renewed, tasks, positions, old, whole=whole)


def _made_anew(
    block: Block, rows: Sequence[Any], positions: Sequence[Any], old: Sequence[Any], *, whole: bool
) -> BlockChange:
    position = {task: ordinal - block.number * blocks.SIZE for ordinal, task in positions}
    tasks = [(position[row[0]], *row[1:]) for row in rows]
    found = blocks.positions_by_state(tasks)
    if whole:
        found |= blocks.positions_by_content(tasks)
    return _change(block, [row[0] for row in old], {key: blocks.pack(found[key]) for key in found}, [])


def _change(
    block: Block,
    obsolete: Sequence[str],
    bitmaps: Mapping[str, bytes],
    positions: list[tuple[int, int]],
) -> BlockChange:
    new = [(block.number, key, bitmaps[key]) for key in sorted(bitmaps)]
    return BlockChange(block, [(block.number, key) for key in obsolete], new, positions)
