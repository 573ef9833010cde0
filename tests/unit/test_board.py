"""What a taskmaster knows of its pods, in whatever order it comes, and to whom it listens."""

import http.client
import socket

import pytest

from tesk.engines.kubernetes.objects import Metadata, Pod
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


def called_p(uid: str, deleted: str | None = None) -> Pod:
    return Pod(Metadata(name="p", uid=uid, deletion_timestamp=deleted))


def test_a_pod_that_went_does_not_come_back_with_a_late_answer_but_another_of_its_name_may() -> None:
    board = Board()
    board.answered(called_p("1"))
    board.change(called_p("1", "now"), gone=True)
    board.answered(called_p("1"))
    assert board.look("p")[1] is None
    assert board.last("p") == called_p("1", "now")
    board.answered(called_p("2"))
    assert board.look("p")[1] == called_p("2")


def test_a_late_answer_does_not_undo_what_the_watch_has_told() -> None:
    board = Board()
    board.change(called_p("1", "now"))
    turn = board.look("p")[0]
    board.answered(called_p("1"))
    assert board.look("p") == (turn, called_p("1", "now"), [])
    board.change(called_p("1"))
    assert board.look("p")[1] == called_p("1")


def test_how_a_pod_went_is_not_known_when_nobody_saw_it_go() -> None:
    board = Board()
    board.change(called_p("1"))
    board.replace({})
    assert (board.look("p")[1], board.last("p")) == (None, None)
