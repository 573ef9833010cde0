"""The port at which pods of whole tasks report: who is heard, and that strangers cost little."""

import asyncio
import contextlib
import http.client
from collections.abc import AsyncIterator

import pytest

from tesk.kubernetes.message_head import HEAD_BYTES, Refused
from tesk.places.kubernetes import report_listener
from tesk.places.kubernetes.report_listener import BODY_BYTES, STRANGERS, ReportListener

SAFE_S = 30


class Taken:
    def __init__(self) -> None:
        self.reports: list[tuple[str, bytes]] = []

    def check(self, pod: str, word: bytes) -> None:
        if pod != "tesk-1":
            raise Refused(404)
        if word != b"word":
            raise Refused(401)

    def take(self, pod: str, body: bytes) -> None:
        if body == b"broken":
            raise Refused(400)
        self.reports.append((pod, body))


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
async def listener(taken: Taken) -> AsyncIterator[ReportListener]:
    made = ReportListener(taken.check, taken.take)
    await made.open(0)
    yield made
    await made.close()


def post(port: int, pod: str, word: str, body: bytes, method: str = "POST") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SAFE_S)
    with contextlib.closing(connection):
        connection.request(method, f"/{pod}", body, {"Authorization": f"Bearer {word}"})
        return connection.getresponse().status


@pytest.mark.parametrize(
    ("pod", "word", "body", "method", "status"),
    [
        ("tesk-1", "word", b"record", "POST", 204),
        ("tesk-1", "word", b"", "POST", 204),
        ("tesk-1", "other", b"record", "POST", 401),
        ("tesk-2", "word", b"record", "POST", 404),
        ("tesk-1", "word", b"broken", "POST", 400),
        ("tesk-1", "word", b"record", "GET", 400),
        ("tesk-1", "word", bytes(BODY_BYTES + 1), "POST", 413),
    ],
)
async def test_a_pod_is_heard_that_knows_its_word(
    listener: ReportListener, taken: Taken, pod: str, word: str, body: bytes, method: str, status: int
) -> None:
    try:
        found = await asyncio.to_thread(post, listener.port, pod, word, body, method)
    except (BrokenPipeError, ConnectionResetError):
        found = 413  # refused before all was sent
    assert found == status
    assert taken.reports == ([(pod, body)] if status == 204 else [])


async def test_a_whole_record_is_taken(listener: ReportListener, taken: Taken) -> None:
    body = bytes(range(250)) * (BODY_BYTES // 250)
    assert await asyncio.to_thread(post, listener.port, "tesk-1", "word", body) == 204
    assert taken.reports == [("tesk-1", body)]


async def test_strangers_keep_no_pod_from_being_heard(listener: ReportListener, taken: Taken) -> None:
    strangers = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2 * STRANGERS)]
    assert await asyncio.to_thread(post, listener.port, "tesk-1", "word", b"record") == 204
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
