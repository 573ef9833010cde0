"""Logs as they are kept: nothing in BASIC that only FULL has, tails that end at a character."""

from hypothesis import given
from hypothesis import strategies as st

from tesk.store.documents import tail


@given(st.text(), st.integers(0, 40))
def test_a_tail_is_the_longest_end_that_fits(text: str, size_bytes: int) -> None:
    kept = tail(text, size_bytes)
    assert text.endswith(kept)
    assert len(kept.encode()) <= size_bytes
    longer = text[len(text) - len(kept) - 1 :]
    assert kept == text or len(longer.encode()) > size_bytes
