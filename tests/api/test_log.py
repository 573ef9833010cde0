"""The log: what it tells about requests, and what it never holds."""

import io
import json
import logging
import threading
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from tesk.server import log as server_log
from tesk.server.log import ERROR, INFO, Log, described
from tesk.store.base import StoreError
from tests.api.conftest import running

SECRET = "hunter2"


def test_requests_are_logged_as_json_with_their_id(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        document = {"executors": [{"image": "alpine", "command": ["true"]}]}
        answer = server.client.post("/v1/tasks", json=document, headers={"X-Request-ID": "mine-1"})
        server.client.get("/v1/tasks?page_size=x")
    first, second = server.log_lines()
    assert first.pop("time").endswith("Z")
    assert first.pop("ms") >= 0
    assert first == {
        "level": "info",
        "msg": "request",
        "id": "mine-1",
        "method": "POST",
        "path": "/v1/tasks",
        "status": 200,
        "task": answer.json()["id"],
    }
    assert (second["status"], second["level"]) == (400, "info")


def test_reads_that_succeed_are_logged_at_debug_only(tmp_path: Path) -> None:
    with running(tmp_path, log_level="info") as server:
        for path in ("/v1/tasks", "/healthz", "/readyz", "/v1/service-info"):
            assert server.client.get(path).status_code == 200
        server.client.get("/nothing")
    assert [line["path"] for line in server.log_lines()] == ["/nothing"]


def test_the_log_never_holds_what_a_client_sent(tmp_path: Path) -> None:
    document = {
        "name": SECRET,
        "executors": [{"image": "alpine", "command": ["login", SECRET], "env": {"TOKEN": SECRET}}],
        "inputs": [
            {"path": "/in", "content": SECRET},
            {"path": "/in2", "url": f"ftp://user:{SECRET}@host/x"},
        ],
        "tags": {SECRET: SECRET},
    }
    headers = {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET}
    with running(tmp_path) as server:
        assert server.client.post("/v1/tasks", json=document, headers=headers).status_code == 200
        document["outputs"] = [{"path": SECRET, "url": SECRET}]
        assert server.client.post("/v1/tasks", json=document, headers=headers).status_code == 400
        server.client.post("/v1/tasks", content=SECRET, headers={"Content-Type": SECRET})
        server.client.get(f"/v1/tasks?name_prefix={SECRET}&page_token={SECRET}", headers=headers)
        server.client.get("/v1/tasks", headers={"Host": SECRET})
        server.client.get("/v1/tasks", headers={"X-Request-ID": f"{SECRET} {SECRET}"})
    assert len(server.log_lines()) == 6
    assert SECRET not in server.log_stream.getvalue().decode()


def test_a_defect_is_a_500_with_a_log_entry_that_quotes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as server:

        async def broken(*arguments: object) -> None:
            raise RuntimeError(f"row {SECRET} is odd")

        monkeypatch.setattr(server.store, "get", broken)
        answer = server.client.get("/v1/tasks/0000000000000", headers={"X-Request-ID": "r-1"})
        assert answer.status_code == 500
        assert "r-1" in answer.json()["msg"]
        assert SECRET not in answer.text
        assert server.client.get("/healthz").status_code == 200
    failure, request = (line for line in server.log_lines() if line["id"] == "r-1")
    assert failure["level"] == "error"
    assert failure["error"].startswith("RuntimeError at ")
    assert "test_log.py" in failure["error"]
    assert request["status"] == 500
    assert SECRET not in server.log_stream.getvalue().decode()


def test_a_database_that_cannot_be_used_is_503_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as server:

        async def away(*arguments: object) -> None:
            raise StoreError("the database is away; start it")

        monkeypatch.setattr(server.store, "get", away)
        monkeypatch.setattr(server.store, "ping", away)
        for path in ("/v1/tasks/0000000000000", "/readyz"):
            answer = server.client.get(path)
            assert answer.status_code == 503
            assert answer.json()["msg"] == "the database is away; start it"


def test_pythons_logging_is_led_into_the_same_log() -> None:
    stream = io.BytesIO()
    log = Log(stream, "info", plain=False)
    logger = logging.Logger("tesk.engines.local")
    logger.addHandler(log)
    logger.debug("not shown")
    logger.info("pulled %s", "alpine", extra={"task": "0000000000000"})
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("cannot go on")
    log.close()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["msg"], first["logger"]) == ("info", "pulled alpine", "tesk.engines.local")
    assert first["task"] == "0000000000000"
    assert second["error"].startswith("ValueError at test_log.py:")
    assert SECRET not in stream.getvalue().decode()


def test_messages_that_cannot_quote_a_task_are_told() -> None:
    assert described(FileNotFoundError(2, "No such file or directory", "/x")).startswith("FileNotFoundError: ")
    assert described(StoreError("disk full")).startswith("StoreError: disk full at")


def test_a_terminal_gets_plain_lines_that_control_nothing() -> None:
    stream = io.BytesIO()
    log = Log(stream, "info", plain=True)
    log.request(INFO, id="r-1", method="GET", path="/\x1b[2Jx\n", status=404, ms=0.1)
    log.close()
    (line,) = stream.getvalue().decode().splitlines()
    assert "status=404" in line
    assert "\x1b" not in line


class Stuck(io.RawIOBase):
    """A stream whose reader does not read until it is told to."""

    def __init__(self) -> None:
        self.resumed = threading.Event()
        self.received = b""

    def write(self, data: object) -> int:
        self.resumed.wait(600)
        self.received += bytes(cast(bytes, data))
        return len(cast(bytes, data))


def test_a_log_that_nobody_reads_delays_nothing_and_says_what_it_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "MOST_WAITING", 100)
    stream = Stuck()
    log = Log(cast(BinaryIO, stream), "info", plain=False)
    for number in range(1000):
        log.request(ERROR, number=number)
    stream.resumed.set()
    log.close()
    lines = [json.loads(line) for line in stream.received.splitlines()]
    kept = [line["number"] for line in lines if "number" in line]
    dropped = [line["msg"] for line in lines if "dropped" in line["msg"]]
    assert kept == sorted(kept)
    assert sum(int(message.split()[0]) for message in dropped) == 1000 - len(kept)
    assert len(kept) < 300


def test_a_closed_stderr_ends_nothing() -> None:
    stream = io.BytesIO()
    log = Log(stream, "info", plain=False)
    stream.close()
    log.request(ERROR, number=1)
    log.close()
    assert not log._thread.is_alive()
