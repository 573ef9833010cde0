"""The port at which pods of whole tasks report: who is heard, and that strangers cost little."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import random
from collections.abc import AsyncIterator

import pytest

from tesk.kubernetes import names
from tesk.kubernetes import record as records
from tesk.kubernetes.message_head import HEAD_BYTES
from tesk.kubernetes.objects import Metadata, Pod
from tesk.kubernetes.record import Attempt, Record
from tesk.places.kubernetes import report_listener
from tesk.places.kubernetes.observed import ObservedTask
from tesk.places.kubernetes.report_listener import BODY_BYTES, STRANGERS, ReportListener
from tesk.tes import ExecutorLog, State, TaskLog

SAFE_S = 300


class Tasks:
    """Two tasks: one whose pod runs, and one whose pod has been followed by another."""

    def __init__(self) -> None:
        self.observed = {"1": ObservedTask(), "2": ObservedTask()}
        self.evaluated: list[str] = []
        for task_id, attempt in (("1", 1), ("2", 1), ("2", 2)):
            name = names.task_pod(task_id, attempt)
            notes = {names.WORD_SHA256: hashlib.sha256(b"word").hexdigest()}
            metadata = Metadata(name, labels=names.labels("i", task_id, names.TASK_POD), annotations=notes)
            self.observed[task_id].set_pod(name, Pod(metadata), 0.0)
        self.observed["3"] = ObservedTask(pods={"tesk-3-executor-0": Pod(Metadata("tesk-3-executor-0"))})

    def states(self) -> list[State]:
        return [task.record.state for task in self.observed.values() if task.record is not None]


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
async def listener(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReportListener]:
    """One that knows no haste, so that a busy machine ends no connection for its time."""
    monkeypatch.setattr(report_listener, "HEAD_S", SAFE_S)
    monkeypatch.setattr(report_listener, "BODY_S", SAFE_S)
    made = ReportListener(tasks.observed, tasks.evaluated.append)
    await made.open(0)
    yield made
    await made.close()


def post(port: int, pod: str, word: str, body: bytes, method: str = "POST") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SAFE_S)
    with contextlib.closing(connection):
        connection.request(method, f"/{pod}", body, {"Authorization": f"Bearer {word}"})
        return connection.getresponse().status


RECORD = records.pack(Record(State.RUNNING, [Attempt(TaskLog())]))


@pytest.mark.parametrize(
    ("pod", "word", "body", "method", "status"),
    [
        ("tesk-1", "word", RECORD, "POST", 204),
        ("tesk-1", "other", RECORD, "POST", 401),
        ("tesk-1", "", RECORD, "POST", 401),
        ("tesk-2", "word", RECORD, "POST", 204),
        ("tesk-2-2", "word", RECORD, "POST", 204),
        ("tesk-2-3", "word", RECORD, "POST", 404),
        ("tesk-3-executor-0", "word", RECORD, "POST", 404),
        ("tesk-4", "word", RECORD, "POST", 404),
        ("tesk-1", "word", b"", "POST", 400),
        ("tesk-1", "word", b"broken", "POST", 400),
        ("tesk-1", "word", RECORD, "GET", 400),
        ("tesk-1", "word", bytes(BODY_BYTES + 1), "POST", 413),
    ],
)
async def test_a_pod_is_heard_that_knows_its_word(
    listener: ReportListener, tasks: Tasks, pod: str, word: str, body: bytes, method: str, status: int
) -> None:
    try:
        found = await asyncio.to_thread(post, listener.port, pod, word, body, method)
    except (BrokenPipeError, ConnectionResetError):
        found = 413  # refused before all was sent
    assert found == status
    is_news = status == 204 and pod != "tesk-2"
    assert (tasks.states(), tasks.evaluated) == (([State.RUNNING], [names.task_of(pod)]) if is_news else ([], [])), (
        "a pod whose task has begun again has nothing to say"
    )


async def test_a_whole_record_is_taken(listener: ReportListener, tasks: Tasks) -> None:
    noise = base64.b64encode(random.Random(0).randbytes(600_000)).decode()
    log = TaskLog(logs=[ExecutorLog(0, stdout=noise, stderr="")])
    packed = records.pack(Record(State.COMPLETE, [Attempt(log)]))
    assert len(packed) > 500_000
    assert await asyncio.to_thread(post, listener.port, "tesk-1", "word", packed) == 204
    record = tasks.observed["1"].record
    assert record is not None
    assert record.now.log == log


async def test_strangers_keep_no_pod_from_being_heard(listener: ReportListener) -> None:
    strangers = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2 * STRANGERS)]
    assert await asyncio.to_thread(post, listener.port, "tesk-1", "word", RECORD) == 204
    for _, writer in strangers:
        writer.close()


async def test_a_head_without_end_is_refused(listener: ReportListener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"x" * (2 * HEAD_BYTES + 1))
    async with asyncio.timeout(SAFE_S):
        with contextlib.suppress(ConnectionResetError):
            assert b"431" in await reader.read()
    writer.close()


async def test_whoever_says_nothing_is_sent_away(listener: ReportListener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_listener, "HEAD_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    async with asyncio.timeout(SAFE_S):
        assert b"408" in await reader.read()
    writer.close()
