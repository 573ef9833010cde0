"""Ids are ordered by time, unique in a process, and read back from their text alone."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tesk.store.identifiers import ALPHABET, GREATEST, LENGTH, Identifiers, read, show

NUMBERS = st.integers(0, GREATEST)


@given(NUMBERS)
def test_an_id_is_read_as_it_was_shown(number: int) -> None:
    assert read(show(number)) == number
    assert len(show(number)) == LENGTH


@given(NUMBERS, NUMBERS)
def test_ids_sort_as_text_as_they_do_as_numbers(one: int, other: int) -> None:
    assert (show(one) < show(other)) is (one < other)


@given(st.text(max_size=15) | st.text(ALPHABET, min_size=13, max_size=13))
def test_only_what_is_shown_is_read(text: str) -> None:
    number = read(text)
    assert number is None or show(number) == text


@given(st.lists(st.integers(0, 2**42), min_size=1, max_size=50))
def test_ids_rise_also_when_the_clock_steps_back(clock: list[int]) -> None:
    times = iter(clock)
    identifiers = Identifiers(lambda: next(times))
    given_ids = [identifiers.give() for _ in clock]
    assert all(earlier < later for earlier, later in itertools.pairwise(given_ids))
    assert all(number >> 20 >= time for number, time in zip(given_ids, clock, strict=True))


def test_ids_follow_those_of_an_earlier_process() -> None:
    identifiers = Identifiers(lambda: 5)
    identifiers.follow(7 << 20)
    assert identifiers.give() == (7 << 20) + 1
    identifiers.follow(3)
    assert identifiers.give() == (7 << 20) + 2
