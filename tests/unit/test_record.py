"""A taskmaster's record always fits its ConfigMap, and says so where that costs something."""

import random

import pytest

from tesk.engines.kubernetes import record as records
from tesk.engines.kubernetes.record import FULL, Attempt, Record
from tesk.tes import ExecutorLog, OutputFileLog, State, TaskLog

CHANCE = random.Random(1)


def noise(characters: int) -> str:
    return CHANCE.randbytes(characters // 2).hex()


def pushed(count: int) -> list[OutputFileLog]:
    return [OutputFileLog(f"s3://bucket/{(name := noise(32))}", f"/out/{name}", "1234") for _ in range(count)]


def kept(log: TaskLog) -> TaskLog:
    data = records.pack(Record(State.RUNNING, [Attempt(log)]))
    assert len(data) <= FULL
    return records.unpack(data).now.log


def test_a_record_with_room_is_kept_whole() -> None:
    log = TaskLog([ExecutorLog(0, stdout=noise(65536), stderr="")], pushed(100), system_logs=["noted"])
    assert kept(log) == log


def test_of_too_many_outputs_the_first_are_kept_and_the_number_told() -> None:
    log = TaskLog([ExecutorLog(0, stdout="x", stderr="y")], pushed(60_000), system_logs=["noted"])
    found = kept(log)
    assert found.logs == log.logs
    assert 20_000 < len(found.outputs) < 60_000
    assert found.outputs == log.outputs[: len(found.outputs)]
    words = f"60000 outputs were pushed; the list of them is too long to be kept, {len(found.outputs)} are shown"
    assert found.system_logs == [f"warning: {words}", "noted"]


@pytest.mark.parametrize("characters", [4000, 40_000])
def test_of_too_much_output_the_ends_are_kept_and_that_is_told(characters: int) -> None:
    log = TaskLog([ExecutorLog(n, stdout=noise(characters), stderr="") for n in range(600)], pushed(10))
    found = kept(log)
    assert [each.exit_code for each in found.logs] == [*range(600)]
    assert found.outputs == log.outputs
    (length,) = {len(str(each.stdout)) for each in found.logs}
    assert [str(each.stdout) for each in log.logs][-1].endswith(str(found.logs[-1].stdout))
    assert found.system_logs == [f"warning: the log is too long to be kept: {length} characters of each output are"]


def test_of_too_many_lines_the_last_are_kept() -> None:
    log = TaskLog([], system_logs=[noise(1000) for _ in range(3000)] + ["error: the end"])
    lines = kept(log).system_logs or []
    assert lines[0].startswith("warning: 3001 lines were noted; they are too many to be kept")
    assert lines[-1] == "error: the end"
