"""The front between clients and a server that goes and comes: nobody is refused, and nothing but reads is repeated."""

import contextlib
import http.client
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.cluster import until
from tests.servers.process import free_port

TESK = (sys.executable, "-m", "tesk")
PATIENT = (
    "import sys; from tesk import front; front.CONNECT_S = front.ENDING_S = 600.0; sys.exit(front.main(sys.argv[1:]))"
)
"""`tesk front` on a busy machine."""
WAIT_S = 600.0
INFO = "/ga4gh/tes/v1/service-info"
TASKS = "/ga4gh/tes/v1/tasks"
JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def front(to: int, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A front of a loopback port: its process and its own port."""
    command = [sys.executable, "-c", PATIENT, "--to", f"127.0.0.1:{to}", "--port", "0", f"--wait={WAIT_S}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith("front: "), said
    try:
        yield process, int(said.rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def server(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real server, as it is at once after its start: it may not answer yet."""
    command = [*TESK, "serve", "--port", str(port), "--data", str(folder), "--log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(WAIT_S)


def ask(port: int, path: str = INFO, method: str = "GET", body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request(method, path, body, JSON)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_clients_wait_for_a_server_that_starts(tmp_path: Path) -> None:
    port = free_port()
    with front(port) as (_, at):
        found: list[tuple[int, bytes]] = []
        early = threading.Thread(target=lambda: found.append(ask(at)))
        early.start()
        with server(port, tmp_path):
            early.join(WAIT_S)
            assert [status for status, _ in found] == [200]


def test_no_request_is_refused_while_the_server_is_restarted(tmp_path: Path) -> None:
    port = free_port()
    stop = threading.Event()
    found: list[str] = []

    def poll() -> None:
        while not stop.is_set():
            try:
                found.append(str(ask(at)[0]))
            except (OSError, http.client.HTTPException) as error:
                found.append(repr(error))

    def more() -> None:
        before = len(found)
        until(lambda: len(found) >= before + 50, what="further answers")

    with front(port) as (_, at):
        pollers = [threading.Thread(target=poll) for _ in range(4)]
        try:
            with server(port, tmp_path):
                for poller in pollers:
                    poller.start()
                more()
            with server(port, tmp_path):
                more()
                stop.set()
                for poller in pollers:
                    poller.join(WAIT_S)
        finally:
            stop.set()
    assert set(found) == {"200"}


def test_a_wait_in_vain_ends_with_an_answer_in_words() -> None:
    with front(free_port(), "--wait", "0") as (_, at):
        status, body = ask(at)
    assert status == 503
    assert "away" in json.loads(body)["msg"]


@contextlib.contextmanager
def dying(answers: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """A port behind which each connection is read once, then answered with the next of `answers`, and closed."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                heard.append(connection.recv(65536).partition(b" ")[0])
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield listener.getsockname()[1], heard


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def test_a_question_over_which_the_server_went_away_is_asked_again() -> None:
    with dying([b"", OK]) as (port, heard), front(port) as (_, at):
        assert ask(at) == (200, b"{}")
        assert heard == [b"GET", b"GET"]


def test_a_question_over_which_the_server_always_goes_away_is_given_up() -> None:
    with dying([b""] * 5) as (port, heard), front(port) as (_, at):
        with pytest.raises(http.client.RemoteDisconnected):
            ask(at)
        assert heard == [b"GET"] * 3


@pytest.mark.parametrize(("method", "answer"), [("POST", b""), ("POST", OK[:-1]), ("GET", OK[:-1])])
def test_neither_a_write_nor_half_an_answer_is_repeated(method: str, answer: bytes) -> None:
    with dying([answer, OK]) as (port, heard), front(port) as (_, at):
        with pytest.raises(http.client.HTTPException):
            ask(at, TASKS, method)
        assert heard == [method.encode()]


def test_bodies_of_any_size_go_both_ways(tmp_path: Path) -> None:
    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        with front(echo.server_port) as (_, at):
            connection = http.client.HTTPConnection("127.0.0.1", at, timeout=300)
            for size in (0, 1, 65535, 65536, 65537, 5_000_000):
                connection.request("POST", "/", b"x" * size)
                assert len(connection.getresponse().read()) == size
            connection.close()
        echo.shutdown()


def test_a_front_that_ends_lets_requests_end_and_closes_idle_connections() -> None:
    release, arrived = threading.Event(), threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/slow":
                arrived.set()
                release.wait(WAIT_S)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as slow:
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        with front(slow.server_port, "--port", str(free_port())) as (process, at):
            idle, busy = (http.client.HTTPConnection("127.0.0.1", at, timeout=300) for _ in range(2))
            idle.request("GET", "/")
            idle.getresponse().read()
            busy.request("GET", "/slow")
            assert arrived.wait(WAIT_S)
            process.send_signal(signal.SIGTERM)
            assert idle.sock.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                ask(at)
            release.set()
            assert busy.getresponse().status == 200
            busy.close()
            assert process.wait(WAIT_S) == 0
        slow.shutdown()


@pytest.mark.parametrize("to", ["server", "server:http", ":80"])
def test_a_server_that_cannot_be_meant_is_refused(to: str) -> None:
    done = subprocess.run([*TESK, "front", "--to", to], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "expected HOST:PORT" in done.stderr
