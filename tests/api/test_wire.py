"""Below HTTP's surface: what slow, endless, garbled, hasty and vanishing clients get."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tesk.server import body, connection, run
from tests.api.conftest import LIMIT_S, Running, running
from tests.servers.cluster import until
from tests.servers.process import program

TASK = b'{"executors":[{"image":"alpine","command":["true"]}]}'
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LIMITS_S = (2.0, 20.0, 60.0)
"""Time limits for clients, to be tried until one is met by what is in time on a machine that is not busy."""


@contextlib.contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), LIMIT_S) as opened:
        yield opened


def until_closed(opened: socket.socket) -> bytes:
    """All that comes. Behind the last answer comes a reset, where something was sent after the server had closed."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := opened.recv(65_536):
            received += chunk
    return received


def exchange(server: Running, sent: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    with connected(server) as opened:
        opened.sendall(sent)
        return until_closed(opened)


def post(size: int, sent: bytes, *more: bytes) -> bytes:
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"".join(more) + b"Content-Length: %d\r\n\r\n" % size + sent


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the begin of TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHo st: localhost\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
        b"CONNECT /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET,
    ],
)
def test_what_is_not_http_is_400_in_json(server: Running, sent: bytes) -> None:
    received = exchange(server, sent)
    assert status(received) == 400, received
    head, _, sent_back = received.partition(b"\r\n\r\n")
    assert b"application/json" in head
    assert json.loads(sent_back)["status_code"] == 400


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    missing = b"GET /missing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received = exchange(server, GET + missing + post(len(TASK), TASK) + LAST)
    codes = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert codes == [200, 404, 200, 200]


def test_hundreds_of_pipelined_requests_are_answered(server: Running) -> None:
    assert exchange(server, GET * 300 + LAST).count(b"HTTP/1.1 200 OK") == 301


def test_more_than_a_thousand_pipelined_requests_do_not_wait_in_memory(server: Running) -> None:
    with connected(server) as opened, contextlib.suppress(ConnectionError):
        opened.sendall(GET * 1500 + LAST)
        assert codes(until_closed(opened)).count(200) < 1500
    assert exchange(server, LAST).startswith(b"HTTP/1.1 200")


def test_a_request_byte_by_byte_is_a_request(server: Running) -> None:
    with connected(server) as opened:
        for n in range(len(LAST)):
            opened.sendall(LAST[n : n + 1])
        assert status(until_closed(opened)) == 200


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000,
    ],
)
def test_a_head_without_end_is_431(server: Running, endless: bytes) -> None:
    with connected(server) as opened, contextlib.suppress(ConnectionError):
        opened.sendall(endless)
        received = until_closed(opened)
        assert status(received) == 431


def test_a_url_of_tens_of_kilobytes_is_answered(server: Running) -> None:
    received = exchange(
        server, b"GET /v1/tasks?x=" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    assert status(received) in (200, 421)


def test_a_client_that_never_asks_is_sent_away(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_LIMIT_S", 0.2)
    for begun in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: local"):
        assert status(exchange(server, begun)) == 408
    for limit_s in LIMITS_S:
        monkeypatch.setattr(connection, "HEAD_LIMIT_S", limit_s)
        received = codes(exchange(server, GET + b"GET /heal"))
        if received != [408]:
            break
    assert received == [200, 408]


def test_a_connection_between_two_requests_may_rest(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that poll every few seconds keep their connection, and some fail when it breaks."""

    def rests(limit_s: float) -> list[int]:
        monkeypatch.setattr(connection, "HEAD_LIMIT_S", limit_s)
        with connected(server) as opened:
            opened.sendall(GET)
            first = opened.recv(65_536)
            if status(first) == 408:
                return [408]
            opened.settimeout(1.5 * limit_s)
            with pytest.raises(TimeoutError):
                opened.recv(1)
            opened.settimeout(LIMIT_S)
            opened.sendall(LAST)
            return codes(first + until_closed(opened))

    found = next((found for limit_s in LIMITS_S if (found := rests(limit_s)) != [408]), [408])
    assert found == [200, 200]


def test_a_connection_that_rests_too_long_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit_s in LIMITS_S:
        monkeypatch.setattr(run, "KEEP_ALIVE_S", round(1.5 * limit_s))
        monkeypatch.setattr(connection, "HEAD_LIMIT_S", limit_s)
        with running(tmp_path) as server:
            received = codes(exchange(server, GET + GET))
        if received != [408]:
            break
    assert received == [200, 200], "it is closed without a word: nothing was asked"


def test_a_body_that_does_not_come_is_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_LIMIT_S", 0.2)
    with running(tmp_path) as server:
        for sent in (b"", TASK[:20]):
            received = exchange(server, post(len(TASK), sent))
            assert status(received) == 408
            assert json.loads(received.partition(b"\r\n\r\n")[2])["status_code"] == 408


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with connected(server) as opened:
            opened.sendall(post(len(TASK), TASK[:20]))
        with connected(server) as opened:
            opened.sendall(GET)
        assert server.client.get("/v1/tasks").json()["tasks"] == []
    statuses = {line["status"] for line in server.log_lines() if line["msg"] == "request"}
    assert statuses <= {200, 499}
    assert not [line for line in server.log_lines() if line["level"] == "error"]


def test_a_large_refused_body_does_not_break_the_answer(server: Running) -> None:
    size = server.settings.max_body_bytes * 3
    received = exchange(server, post(size, b"x" * size))
    assert status(received) == 413


def test_100_continue_is_sent_when_the_body_is_wanted(server: Running) -> None:
    with connected(server) as opened:
        opened.sendall(post(len(TASK), b"", b"Expect: 100-continue\r\n", b"Connection: close\r\n"))
        assert opened.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        opened.sendall(TASK)
        assert status(until_closed(opened)) == 200


def test_http_1_0_is_answered_and_closed(server: Running) -> None:
    assert status(exchange(server, b"GET /healthz HTTP/1.0\r\n\r\n")) == 200


def test_an_upgrade_to_a_websocket_is_not_followed(server: Running) -> None:
    sent = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with connected(server) as opened:
        opened.sendall(sent)
        assert status(opened.recv(65_536)) == 200


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
"""What clients send that would rather speak HTTP/2 (Java's HttpClient, curl --http2)."""


def codes(received: bytes) -> list[int]:
    """The status of each answer; None of their bodies has the words."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def in_segments(server: Running, *segments: bytes) -> bytes:
    with connected(server) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in segments:
            opened.sendall(segment)
            time.sleep(0.05)
        return until_closed(opened)


@pytest.mark.parametrize("cut", [None, 10, 60, 100, 190, -len(TASK) - 3, -len(TASK), -20])
def test_a_create_that_offers_http_2_is_served_with_its_body(server: Running, cut: int | None) -> None:
    sent = post(len(TASK), TASK, H2C)
    segments = [sent] if cut is None else [sent[:cut], sent[cut:]]
    received = in_segments(server, *segments, LAST)
    assert codes(received) == [200, 200], received
    assert b'{"id":"' in received


def test_a_chunked_create_that_offers_http_2_is_served_with_its_body(server: Running) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + H2C
    sent = head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n" % TASK[:5]
    rest = b"%x\r\n%b\r\n0\r\n\r\n" % (len(TASK) - 5, TASK[5:])
    for segments in ([sent + rest + LAST], [sent, rest + LAST]):
        received = in_segments(server, *segments)
        assert codes(received) == [200, 200]
        assert b'{"id":"' in received


def test_a_body_is_never_taken_for_a_request(server: Running) -> None:
    for segments in ([post(len(GET), GET, H2C)], [post(len(GET), b"", H2C), GET]):
        assert codes(in_segments(server, *segments, LAST)) == [400, 200]


def test_pipelined_requests_that_offer_http_2_are_all_answered(server: Running) -> None:
    offering = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + H2C + b"\r\n"
    received = exchange(server, offering * 100 + GET + post(len(TASK), TASK, H2C) + LAST)
    assert codes(received) == [200] * 103


def test_curl_may_offer_http_2(server: Running) -> None:
    posting = ["-sS", "--http2", "-H", "Content-Type: application/json", "--data-binary", TASK.decode()]
    url = f"{server.url}/v1/tasks"
    command = [program("curl"), *posting, url, "--next", "-sS", "--http2", url]
    done = subprocess.run(command, capture_output=True, timeout=300, check=True)
    assert done.stdout.startswith(b'{"id":"')
    assert b'"tasks":[' in done.stdout


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Running]:
    """A server whose page of tasks is far larger than what sockets hold."""
    command = ["sh", "-c", "x" * 4_000_000]
    with running(tmp_path) as server:
        for _ in range(4):
            document = {"executors": [{"image": "a", "command": command}]}
            created = httpx.post(f"{server.url}/v1/tasks", json=document, timeout=LIMIT_S)
            assert created.status_code == 200, created.text
        yield server


def lose_patience(monkeypatch: pytest.MonkeyPatch, limit_s: float) -> None:
    """Soon looks at connections that are made from now on, and then each time that the limit has passed."""
    monkeypatch.setattr(connection, "UNREAD_LIMIT_S", limit_s)
    monkeypatch.setattr(connection, "HEAD_LIMIT_S", limit_s / 2)


FULL = b"GET /v1/tasks?view=FULL HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [FULL, FULL.replace(b"localhost", b"localhost\r\nConnection: close"), FULL + FULL])
def test_a_client_that_reads_no_further_is_sent_away(
    huge: Running, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At rest, closing, and with a further answer that waits for the first one to be read."""
    for limit_s in LIMITS_S:
        lose_patience(monkeypatch, limit_s)
        with connected(huge) as opened:
            opened.sendall(sent)
            begun = opened.recv(12)
            until(lambda: huge.connections() == 0, what="the end of the connection")
            assert len(until_closed(opened)) < 16_000_000
        if begun == b"HTTP/1.1 200":
            break
    assert begun == b"HTTP/1.1 200"


def test_a_client_that_reads_slowly_gets_all(huge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(pause_s: float) -> bytes:
        with connected(huge) as opened:
            opened.sendall(FULL + LAST)
            received, rested = b"", 0
            with contextlib.suppress(ConnectionResetError):
                while chunk := opened.recv(65_536):
                    received += chunk
                    if len(received) > rested + 500_000:
                        rested = len(received)
                        time.sleep(pause_s)
            return received

    for limit_s in LIMITS_S:
        lose_patience(monkeypatch, limit_s)
        received = read(limit_s / 10)
        if codes(received) == [200, 200]:
            break
    assert codes(received) == [200, 200]
    assert len(received) > 16_000_000
