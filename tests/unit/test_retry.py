"""The pauses between tries."""

from itertools import islice

from tesk.retry import pauses


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    assert list(islice(pauses(1, 10), 6)) == [1, 2, 4, 8, 10, 10]
