"""A taskmaster's record always fits its ConfigMap and the server, and says so where that costs something."""

import random
import zlib

import msgspec
import pytest

from tesk.kubernetes import record as records
from tesk.kubernetes.record import FULL, UNPACKED, Attempt, Record
from tesk.layout import Found
from tesk.life.log_bound import TASK_BYTES
from tesk.tes import ExecutorLog, FileTypes, OutputFileLog, State, TaskLog

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


def test_output_that_compresses_well_is_bounded_where_it_is_unpacked_too() -> None:
    log = TaskLog([ExecutorLog(n, stdout="\0" * 65536, stderr="x" * 65536) for n in range(250)], pushed(10))
    found = kept(log)
    assert [each.exit_code for each in found.logs] == [*range(250)]
    assert found.outputs == log.outputs
    assert len(zlib.decompress(records.pack(Record(State.RUNNING, [Attempt(log)])))) <= UNPACKED


def test_outputs_that_compress_well_are_bounded_where_they_are_unpacked_too() -> None:
    log = TaskLog([], [OutputFileLog("s3://bucket/" + "x" * 200, "/out/" + "x" * 200, "1")] * 100_000)
    assert 8000 < len(kept(log).outputs) < 10_000


@pytest.mark.parametrize("most_bytes", [3000, 20_000])
def test_a_record_is_made_as_small_as_asked(most_bytes: int) -> None:
    log = TaskLog([ExecutorLog(n, stdout=noise(9000), stderr="") for n in range(5)], pushed(100), system_logs=["noted"])
    data = records.pack(Record(State.COMPLETE, [Attempt(log)]), most_bytes)
    found = records.unpack(data)
    assert len(data) <= most_bytes
    assert (found.state, [each.exit_code for each in found.now.log.logs]) == (State.COMPLETE, [*range(5)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zlib.compress(b"[" * (UNPACKED + 1)), f"unpacks to more than {UNPACKED} bytes"),
        (zlib.compress(b" " * 200_000_000, 1), f"unpacks to more than {UNPACKED} bytes"),
        (records.pack(Record(State.RUNNING, []))[:-1], "its end is missing"),
        (zlib.compress(b"{}"), "not a taskmaster's record"),
        (b"", "its end is missing"),
        (b"nonsense", "not a taskmaster's record"),
    ],
)  # fmt: skip
def test_what_is_no_record_or_too_large_for_one_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        records.unpack(data)


def test_of_a_thousand_executors_no_more_is_kept_than_of_a_task() -> None:
    record = Record(State.RUNNING, [Attempt(TaskLog([ExecutorLog(7, stdout="a" * 65536)])), Attempt(TaskLog())])
    told = []
    for _ in range(1000):
        record.now.log.logs.append(ExecutorLog(0, stdout="x" * 65536, stderr=""))
        told.append(records.bound(record, TASK_BYTES))
    first, logs = record.attempts[0].log.logs, record.now.log.logs
    assert [first[0].exit_code, first[0].stdout, len(logs)] == [7, "", 1000]
    assert sum(len(str(each.stdout)) for each in logs) == TASK_BYTES
    assert len(str(logs[-1].stdout)) == 65536
    assert len(str(logs[0].stdout)) == 0


EARLIER = b"""{"state": 3, "waiting": "room", "types": {"inputs": "F"}, "attempts": [{
  "log": {"logs": [{"exit_code": 0}], "outputs": [], "start_time": "x"},
  "pods": {"p": "u"}, "node": "n", "staged": true, "pushed": false,
  "found": {"occupied": {"/a": true}, "alone": ["/b"]}, "unborn": {"inputs": 1}, "homeless": [0],
  "overdue": [1], "stuck": ["q"], "started": "y"}]}"""


def test_a_record_of_an_earlier_version_is_read_and_one_of_this_version_by_that() -> None:
    log = TaskLog([ExecutorLog(0)], start_time="x")
    attempt = Attempt(
        log, pods={"p": "u"}, node="n", staged=True, found=Found({"/a": True}, ["/b"]), replacements={"inputs": 1},
        own_workdir=[0], timed_out=[1], to_delete=["q"], started="y",
    )  # fmt: skip
    record = Record(State.RUNNING, [attempt], "room", FileTypes("F"))
    assert records.unpack(zlib.compress(EARLIER)) == record
    assert msgspec.json.decode(zlib.decompress(records.pack(record))) == msgspec.json.decode(EARLIER)
