"""A record on its way to a server that takes its time."""

import socket
import threading

import pytest

from tesk.pod import record_sender
from tesk.pod.record_sender import RecordSender

LIMIT_S = 300.0


def test_nothing_is_being_sent_while_another_process_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("TIMEOUT_S", "PAUSED_WITHIN_S"):
        monkeypatch.setattr(record_sender, limit, LIMIT_S)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = RecordSender(f"127.0.0.1:{listening.getsockname()[1]}", "tesk-x", "word")
        sender.put(b"record")
        peer, _ = listening.accept()
        with peer:
            assert sender._sending.locked()
            answered = threading.Event()

            def answer() -> None:
                answered.set()
                peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

            threading.Timer(0.1, answer).start()
            with sender.paused():
                assert answered.is_set()
            assert sender.wait(LIMIT_S)
