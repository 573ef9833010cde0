"""To whom a taskmaster listens, and what strangers cost it: a real listener in a process of its own, real sockets."""

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
import pytest

from tesk.kubernetes.message_head import HEAD_BYTES
from tesk.kubernetes.messages import Started
from tesk.taskmaster import listener as listeners
from tesk.taskmaster.listener import BODY_BYTES, CONNECTIONS, MessageListener
from tesk.taskmaster.observations import Observations

STARTED = b'{"told": "started", "at": "2026-01-01T00:00:00Z"}'
SAFE_S = 300.0


@pytest.fixture
def observations() -> Observations:
    observations = Observations()
    observations.expect("pod")
    return observations


@pytest.fixture
def port(observations: Observations, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A listener that knows no haste, so that a busy machine ends no connection for its time."""
    monkeypatch.setattr(listeners, "HEAD_S", SAFE_S)
    monkeypatch.setattr(listeners, "BODY_S", SAFE_S)
    listener = MessageListener(observations, 0, "secret")
    yield listener.port
    listener.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SAFE_S)


def head(word: str = "secret", size: object = len(STARTED), first: str = "POST /pod HTTP/1.1", more: str = "") -> bytes:
    return f"{first}\r\nAuthorization: Bearer {word}\r\n{more}Content-Length: {size}\r\n\r\n".encode()


def answered(connection: socket.socket) -> str:
    """The status of the answer; empty where the connection was ended without one."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(4096):
            data += piece
    return data.split(b" ")[1].decode() if data else ""


@pytest.mark.parametrize("host", ["127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])])
@pytest.mark.parametrize(
    ("pod", "word", "body", "status", "told"),
    [
        ("pod", "secret", STARTED, 204, [Started("2026-01-01T00:00:00Z")]),
        ("pod", "wrong", STARTED, 401, []),
        ("other", "secret", STARTED, 404, []),
        ("pod", "secret", b"{}", 400, []),
    ],
)
def test_what_a_pod_tells_is_taken(
    observations: Observations, port: int, host: str, pod: str, word: str, body: bytes, status: int, told: list[Started]
) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=SAFE_S)
    connection.request("POST", f"/{pod}", body, {"Authorization": f"Bearer {word}"})
    assert connection.getresponse().status == status
    connection.close()
    assert observations.snapshot("pod")[2] == told


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("wrong"), "401"),
        (head("wrong", size="x", first="nonsense"), "401"),
        (head(""), "401"),
        (b"POST /pod HTTP/1.1\r\n\r\n", "401"),
        (head(first="GET /pod HTTP/1.1"), "400"),
        (head(first="POST pod HTTP/1.1"), "400"),
        (head(size=""), "413"),
        (head(size="-1"), "413"),
        (head(size=BODY_BYTES + 1), "413"),
        (b"x" * HEAD_BYTES, "431"),
        (head(more="X: " + "x" * HEAD_BYTES + "\r\n")[:HEAD_BYTES], "431"),
    ],
)
def test_a_head_alone_is_enough_to_be_refused(port: int, sent: bytes, status: str) -> None:
    with connect(port) as connection:
        connection.sendall(sent)
        assert answered(connection) == status


def test_a_body_may_come_in_pieces(observations: Observations, port: int) -> None:
    with connect(port) as connection:
        for piece in (head()[:20], head()[20:] + STARTED[:5], STARTED[5:]):
            connection.sendall(piece)
            time.sleep(0.05)
        assert answered(connection) == "204"
    assert len(observations.snapshot("pod")[2]) == 1


def test_whoever_does_not_say_the_word_in_time_is_sent_away(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HEAD_S", 1.0)
    with connect(port) as connection:
        connection.sendall(b"POST /pod")
        assert answered(connection) == "408"


def test_strangers_who_hold_every_place_keep_no_pod_from_telling(observations: Observations, port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10 * CONNECTIONS):
            stack.enter_context(connect(port)).sendall(b"POST /pod HTTP/1.1\r\n")
        with connect(port) as own:
            own.sendall(head() + STARTED)
            assert answered(own) == "204"
    assert len(observations.snapshot("pod")[2]) == 1


def test_one_who_knows_the_word_keeps_its_place(observations: Observations, port: int) -> None:
    with connect(port) as own, contextlib.ExitStack() as stack:
        own.sendall(head())
        for _ in range(10 * CONNECTIONS):
            stack.enter_context(connect(port)).sendall(b"P")
        own.sendall(STARTED)
        assert answered(own) == "204"


SERVE = """
import sys
from tesk.taskmaster.observations import Observations
from tesk.taskmaster.listener import MessageListener
print(MessageListener(Observations(), 0, "secret").port, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process() -> Iterator[tuple[psutil.Process, int]]:
    """A listener in a process of its own, and its port."""
    with subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        yield psutil.Process(running.pid), int(running.stdout.readline())


def push(connection: socket.socket, most_bytes: int) -> int:
    """Sends header lines without end; the number of bytes that were taken before the connection was ended."""
    line = b"X: " + b"x" * 60_000 + b"\r\n"
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most_bytes:
            sent += connection.send(line)
    return sent


def test_strangers_cost_a_taskmaster_next_to_nothing() -> None:
    """Of the bytes that a stranger sends those that fill the kernel's own buffers may be taken, and no more."""
    with process() as (listener, port), contextlib.ExitStack() as stack:
        before = listener.memory_info().rss
        crowd = [stack.enter_context(connect(port)) for _ in range(60)]
        for connection in crowd:
            connection.sendall(b"POST /pod HTTP/1.1\r\n")
        opened = len([each for each in listener.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED])
        taken = [push(connection, 64 * 1024 * 1024) for connection in crowd]
        assert opened <= CONNECTIONS + 1, "one more while another gives way"
        assert max(taken) < 16 * 1024 * 1024
        assert listener.memory_info().rss - before < 8 * 1024 * 1024
