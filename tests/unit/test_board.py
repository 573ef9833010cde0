"""Where a taskmaster listens: on addresses of both kinds, and to nobody who lacks its word."""

import http.client
import socket

import pytest

from tesk.engines.kubernetes.told import Started
from tesk.taskmaster.board import Board, listen

STARTED = b'{"told": "started", "at": "2026-01-01T00:00:00Z"}'


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
    host: str, pod: str, word: str, body: bytes, status: int, told: list[Started]
) -> None:
    board = Board()
    board.expect("pod")
    server = listen(board, 0, "secret")
    try:
        connection = http.client.HTTPConnection(host, server.server_address[1], timeout=10)
        connection.request("POST", f"/{pod}", body, {"Authorization": f"Bearer {word}"})
        assert connection.getresponse().status == status
        connection.close()
    finally:
        server.shutdown()
        server.server_close()
    assert board.look("pod")[2] == told
