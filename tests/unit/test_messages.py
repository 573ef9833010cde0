"""What a filer tells in several messages, and what is left of an executor's output: whole, or known not to be."""

import pytest

from tesk.filer.plan import Done, Event, Warned
from tesk.kubernetes.messages import Moved
from tesk.taskmaster.endings import fuller, joined_events

A, B, C = Warned("a"), Warned("b"), Done()
BEFORE = b'{"stdout": "a\\n"}\n'


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
    assert joined_events(told) == (events, is_whole)


@pytest.mark.parametrize(
    ("log", "kept"),
    [
        (b'{"stdout": "a\\nb\\n"}\n', b'{"stdout": "a\\nb\\n"}\n'),
        (b"unable to retrieve container logs for containerd://1234", BEFORE),
        (b"", BEFORE),
        (None, BEFORE),
    ],
)
def test_what_an_executor_wrote_is_not_lost_with_its_container(log: bytes | None, kept: bytes) -> None:
    assert fuller(log, BEFORE) == kept
