"""Bitmaps over blocks of consecutive tasks: they answer list requests whose filters each match many tasks.

An index gives the ids that pass one filter. Of two filters that each match many tasks and exclude each other, an index
would give half a million ids to look at. So tasks are summarised in blocks of SIZE, in the order of their ids: for each
*key* (a tag, a tag's name, an ended state, the start of a name, an owner, a group) a block has a bitmap of the
positions whose tasks have that key. A page combines a hundred bitmaps by AND, newest first, and looks up only the tasks
that remain. An index for each pair of filters would cost every create, and three filters would defeat it.

Tags, names and owners never change, and an ended state is final. So bitmaps are made in the background (see
summariser), and neither a create nor a transition waits for them. A task that has not ended is a candidate for every
state until its block is summarised again: the task's own row always has the last word.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from tesk.store.queries import Visible, after_prefix, tag_text
from tesk.tes import State

SIZE: Final = 8192
"""Positions in a block. Databases depend on it, by their ordinals: block number * SIZE + position."""
PREFIXES: Final = (8, 4, 2, 1)
"""Lengths of the prefixes of a name that are keys, longest first."""
NAME_CHARACTERS: Final = 16
"""A key holds this many characters of a whole name. A prefix of another length is a range of these keys."""
UNENDED: Final = "u"
"""The key of tasks that have not ended."""
FEW: Final = 16
"""A list of positions is stored instead of a bitmap of so many bytes for each position: long lists are slow to read."""

_read_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


PositionsByKey = defaultdict[str, list[int]]
"""Rising positions by key."""


def positions_by_state(tasks: Iterable[Sequence[Any]]) -> PositionsByKey:
    """The keys of states, of tasks that begin with (position, state, ended), with rising positions."""
    found: PositionsByKey = defaultdict(list)
    for position, state, ended, *_ in tasks:
        found[UNENDED if ended is None else state_key(state)].append(position)
    return found


def positions_by_content(tasks: Iterable[Sequence[Any]]) -> PositionsByKey:
    """The keys that never change, of tasks (position, state, ended, name, tags, owner, group) with rising positions."""
    found: PositionsByKey = defaultdict(list)
    for position, _, _, name, tags, owner, group in tasks:
        if owner:
            found[owner_key(owner)].append(position)
        if group:
            found[group_key(group)].append(position)
        for tag, value in ({} if tags is None else _read_tags(tags)).items():
            found[tag_key(tag, "")].append(position)
            if value:
                found[tag_key(tag, value)].append(position)
        if name:
            found["m" + name[:NAME_CHARACTERS]].append(position)
            for length in PREFIXES:
                if length <= len(name):
                    found[prefix_key(name[:length])].append(position)
    return found


def state_key(state: int) -> str:
    return f"s{state}"


def owner_key(owner: int) -> str:
    return f"o{owner}"


def group_key(group: int) -> str:
    return f"g{group}"


def tag_key(tag: str, value: str) -> str:
    """An empty value means the tag with any value, as in a list request."""
    shown = tag_text(tag)
    return f"t{len(shown)}:{shown}={tag_text(value)}" if value else f"k{shown}"


def prefix_key(prefix: str) -> str:
    return f"n{prefix}"


def name_range(prefix: str) -> tuple[str, str] | None:
    """The keys from the first to below the second belong to the names that begin with the prefix.

    None where the keys of `required_keys` are as precise.
    """
    if not prefix or len(prefix) in PREFIXES:
        return None
    start = prefix[:NAME_CHARACTERS]
    return f"m{start}", "n" if (end := after_prefix(start)) is None else f"m{end}"


def required_keys(
    state: State | None, prefix: str | None, tags: Iterable[tuple[str, str]], visible: Visible | None = None
) -> list[tuple[str, ...]]:
    """A task that passes the filters has one key of each tuple.

    The state comes last: every block has tasks in most states, so a block without the tag or the name is skipped first.
    """
    wanted: list[tuple[str, ...]] = [(tag_key(tag, value),) for tag, value in sorted(set(tags))]
    if prefix:
        wanted.append((prefix_key(prefix[: next(length for length in PREFIXES if length <= len(prefix))]),))
    if visible is not None:
        seen = (*map(owner_key, visible.owners), *map(group_key, visible.groups))
        wanted.insert(0 if len(seen) == 1 else len(wanted), seen)
    if state is not None:
        wanted.append((UNENDED, state_key(state)) if state.is_terminal else (UNENDED,))
    return wanted


def pack(positions: Sequence[int]) -> bytes:
    """Rising positions as stored: byte 0 and a bitmap, lowest bit first; or, if FEW, byte 1 and 16 bits for each."""
    width = positions[-1] // 8 + 1
    if FEW * len(positions) < width:
        return b"\1" + struct.pack(f"<{len(positions)}H", *positions)
    bits = bytearray(width)
    for position in positions:
        bits[position >> 3] |= 1 << (position & 7)
    return b"\0" + bits


def unpack(packed: bytes | None) -> int:
    """The bitmap as a number; 0 for None."""
    if packed is None:
        return 0
    if packed[0] == 0:
        return int.from_bytes(packed[1:], "little")
    bits = 0
    for position in struct.unpack_from(f"<{len(packed) // 2}H", packed, 1):
        bits |= 1 << position
    return bits


def extended(packed: bytes, more: Sequence[int]) -> bytes:
    """The packed positions and `more`, which are greater than all of them."""
    return pack([*sorted(positions(unpack(packed))), *more])


def positions(bitmap: int) -> Iterator[int]:
    """The positions of a bitmap, greatest first."""
    while bitmap:
        greatest = bitmap.bit_length() - 1
        yield greatest
        bitmap ^= 1 << greatest


def intersection(packed: Sequence[bytes | None], keys: Sequence[tuple[str, ...]]) -> int:
    """The bitmap of positions that have one key of each tuple; `packed` has a value for each key, in order."""
    values, bitmap = iter(packed), -1
    for alternatives in keys:
        any_of_them = 0
        for _ in alternatives:
            any_of_them |= unpack(next(values))
        bitmap &= any_of_them
    return bitmap
