"""What a filer tells in several messages is only all that it said if none of them is missing."""

import pytest

from tesk.engines.kubernetes.told import Moved
from tesk.filer.plan import Done, Event, Warned
from tesk.taskmaster.endings import heard

A, B, C = Warned("a"), Warned("b"), Done()


@pytest.mark.parametrize(
    ("told", "events", "is_whole"),
    [
        ([], [], True),
        ([Moved([A]), Moved([B, C], 1)], [A, B, C], True),
        ([Moved([A]), Moved([A], 0), Moved([B, C], 1)], [A, B, C], True),  # told twice: the answer was lost
        ([Moved([C], 2)], [C], False),  # the taskmaster has been started again
        ([Moved([A]), Moved([C], 2)], [A, C], False),
    ],
)
def test_a_filer_is_heard_out(told: list[Moved], events: list[Event], is_whole: bool) -> None:
    assert heard(told) == (events, is_whole)
