"""Blocks follow the order of ids, whatever the batches in which tasks come."""

from hypothesis import given
from hypothesis import strategies as st

from tesk.store.blocks import SIZE, Block, place


@given(st.lists(st.integers(0, SIZE + 3), max_size=6))
def test_blocks_are_full_before_the_next_begins_and_none_holds_a_lesser_id(batches: list[int]) -> None:
    newest, placed, next_id = Block(), list[tuple[int, int]](), 1
    began = [0]
    for count in batches:
        numbers = list(range(next_id, next_id + count))
        next_id += count
        result = place(numbers, newest)
        newest = result.newest
        began += result.began
        placed += zip(numbers, result.blocks, strict=True)
    assert began == sorted(began)
    assert all(number >= block for number, block in placed)
    assert [block for _, block in placed] == sorted(block for _, block in placed)
    held = [sum(block == first for _, block in placed) for first in began]
    assert all(count == SIZE for count in held[:-1])
    assert newest == Block(began[-1], held[-1])
