"""How much of the output of all executors of a task is kept."""

import pytest
from msgspec import UNSET

from tesk.life.log_bound import TASK_BYTES, fit, task_bytes
from tesk.tes import ExecutorLog

Streams = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("before", "most_bytes", "after"),
    [
        ([], 4, []),
        ([("ab", "cd")], 4, [("ab", "cd")]),
        ([("ab", "cd")], 3, [("b", "cd")]),
        ([("ab", "cd"), ("ef", "")], 4, [("", "cd"), ("ef", "")]),
        ([("ab", "cd"), ("ef", "gh")], 5, [("", "d"), ("ef", "gh")]),
        ([("ab", ""), ("cd", ""), ("efgh", "")], 3, [("", ""), ("", ""), ("fgh", "")]),
        ([("aä", ""), ("b", "")], 2, [("", ""), ("b", "")]),  # ä is two bytes, and one of them is no character
        ([("a" * 100, "")], 0, [("", "")]),
    ],
)
def test_the_oldest_give_up_their_output_first_and_each_its_beginning(
    before: Streams, most_bytes: int, after: Streams
) -> None:
    found = fit([ExecutorLog(n, stdout=out, stderr=err) for n, (out, err) in enumerate(before)], most_bytes)
    assert [(each.stdout, each.stderr) for each in found] == after
    assert [each.exit_code for each in found] == [*range(len(before))]


def test_what_was_not_written_stays_so() -> None:
    log = ExecutorLog(0, stderr="x")
    assert fit([log], 10) == [log]
    assert fit([log], 0)[0].stdout is UNSET


@pytest.mark.parametrize(("tail_bytes", "most_bytes"), [(0, TASK_BYTES), (65536, TASK_BYTES), (2**20, 2**21)])
def test_one_executors_output_is_always_kept(tail_bytes: int, most_bytes: int) -> None:
    assert task_bytes(tail_bytes) == most_bytes
