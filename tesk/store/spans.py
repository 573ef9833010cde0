"""What a span of consecutive tasks holds, as bitmaps: how filters that each match much are answered together.

An index gives the ids of one filter; of two that are each frequent and exclude each other it gives half a million to
look at. So tasks are summarised in spans of SIZE, in the order of their ids: for each *term* (a tag, a key, an ended
state, the start of a name) the positions that have it. A page ANDs a hundred bitmaps, newest first, and looks up only
what remains. An index for each pair of filters would cost every create, and three filters would defeat it. Tags and
names never change and an ended state is final, so a summary is made by and by (see summariser), and adds nothing to a
create or a transition. Tasks that have not ended are candidates for every state until their span is summarised again:
each candidate's row has the last word.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from tesk.store.queries import after_prefix, tag_text
from tesk.tes import State

SIZE: Final = 8192
"""Positions in a span. Kept in databases by way of their ordinals: span number * SIZE + position."""
STARTS: Final = (8, 4, 2, 1)
"""Lengths of names' starts that are terms, longest first."""
NAME: Final = 16
"""Characters of a name that are a term as a whole; a prefix of other lengths is a range of these."""
UNENDED: Final = "u"
FEW: Final = 16
"""A list is chosen if it has less than a position in so many bytes of the bitmap: longer ones are slow to read."""

_read_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


Found = defaultdict[tuple[int, str], list[int]]
"""Rising positions by owner and term."""


def by_states(tasks: Iterable[Sequence[Any]]) -> Found:
    """Of tasks that begin with (position, owner, state, ended), with rising positions."""
    found: Found = defaultdict(list)
    for position, owner, state, ended, *_ in tasks:
        found[owner, UNENDED if ended is None else state_term(state)].append(position)
    return found


def by_content(tasks: Iterable[Sequence[Any]]) -> Found:
    """Of tasks (position, owner, state, ended, name, tags) with rising positions: what never changes."""
    found: Found = defaultdict(list)
    for position, owner, _, _, name, tags in tasks:
        for key, value in ({} if tags is None else _read_tags(tags)).items():
            found[owner, tag_term(key, "")].append(position)
            if value:
                found[owner, tag_term(key, value)].append(position)
        if name:
            found[owner, "m" + name[:NAME]].append(position)
            for length in STARTS:
                if length <= len(name):
                    found[owner, start_term(name[:length])].append(position)
    return found


def state_term(state: int) -> str:
    return f"s{state}"


def tag_term(key: str, value: str) -> str:
    """An empty value stands for the key alone, as in a list request."""
    shown = tag_text(key)
    return f"t{len(shown)}:{shown}={tag_text(value)}" if value else f"k{shown}"


def start_term(start: str) -> str:
    return f"n{start}"


def name_range(prefix: str) -> tuple[str, str] | None:
    """The terms from the first and below the second are those of the names that begin with the prefix; None where
    `terms_of` knows no less."""
    if not prefix or len(prefix) in STARTS:
        return None
    start = prefix[:NAME]
    return f"m{start}", "n" if (end := after_prefix(start)) is None else f"m{end}"


def terms_of(state: State | None, prefix: str | None, tags: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """What a task that passes has: one of each tuple. The state comes last, since every span has tasks in most: a span
    that lacks a tag or a name is passed over before."""
    wanted: list[tuple[str, ...]] = [(tag_term(key, value),) for key, value in sorted(set(tags))]
    if prefix:
        wanted.append((start_term(prefix[: next(length for length in STARTS if length <= len(prefix))]),))
    if state is not None:
        wanted.append((UNENDED, state_term(state)) if state.is_terminal else (UNENDED,))
    return wanted


def pack(positions: Sequence[int]) -> bytes:
    """Rising positions as a bitmap (0, then bits from the lowest on) or, if they are FEW, as 16 bits each (1, then
    these)."""
    width = positions[-1] // 8 + 1
    if FEW * len(positions) < width:
        return b"\1" + struct.pack(f"<{len(positions)}H", *positions)
    bits = bytearray(width)
    for position in positions:
        bits[position >> 3] |= 1 << (position & 7)
    return b"\0" + bits


def unpack(found: bytes | None) -> int:
    """The bitmap as a number; 0 for None."""
    if found is None:
        return 0
    if found[0] == 0:
        return int.from_bytes(found[1:], "little")
    bits = 0
    for position in struct.unpack_from(f"<{len(found) // 2}H", found, 1):
        bits |= 1 << position
    return bits


def joined(found: bytes, more: Sequence[int]) -> bytes:
    """With positions that are greater than all it has."""
    return pack([*sorted(positions(unpack(found))), *more])


def positions(bits: int) -> Iterator[int]:
    """The greatest first."""
    while bits:
        greatest = bits.bit_length() - 1
        yield greatest
        bits ^= 1 << greatest


def common(found: Sequence[bytes | None], terms: Sequence[tuple[str, ...]]) -> int:
    """The bitmap of what has one of each tuple of terms; `found` has a value for each term, in order."""
    values, bits = iter(found), -1
    for alternatives in terms:
        some = 0
        for _ in alternatives:
            some |= unpack(next(values))
        bits &= some
    return bits
