"""Types of inputs and outputs, from the filer's letters to the task's document."""

import pytest

from tesk import tes
from tesk.kubernetes import record as records
from tesk.kubernetes.record import Attempt, Record
from tesk.tes import Executor, FileType, FileTypes, Input, Output, State, Task, TaskLog

FILE, DIRECTORY = FileType.FILE, FileType.DIRECTORY


@pytest.mark.parametrize(
    ("given", "letters", "filled"),
    [
        ([None, None, None], "FD?", [FILE, DIRECTORY, None]),
        ([DIRECTORY, FILE, None], "FDF", [DIRECTORY, FILE, FILE]),
        ([None, None, None], "D", [DIRECTORY, None, None]),
        ([FILE, FILE, None], "DD?", [FILE, FILE, None]),
        ([None, None, None], "", [None, None, None]),
    ],
)
def test_what_was_left_out_is_filled_in_and_what_was_given_stays(
    given: list[FileType | None], letters: str, filled: list[FileType | None]
) -> None:
    inputs = [Input("/in", url="file:///in", type=each) for each in given]
    outputs = [Output("/out", "file:///out", type=each) for each in given]
    task = Task([Executor("image", ["true"])], inputs=inputs, outputs=outputs)
    assert tes.fill_in_types(task, FileTypes(letters, letters)) == (given != filled)
    assert [each.type for each in inputs] == [each.type for each in outputs] == filled


def test_a_taskmaster_tells_them_by_its_record() -> None:
    types = FileTypes("FD", "?")
    record = Record(State.COMPLETE, [Attempt(TaskLog())], types=types)
    assert records.status(records.unpack(records.pack(record))).types == types
