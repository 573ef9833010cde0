"""Which queued tasks the engine is given, by the API and a real database; the engine only says what it has room for."""

import queue
import time
from pathlib import Path
from typing import Any

import pytest

from tesk.store.base import StoreError
from tests.api.conftest import Running, running

LARGE = {"ram_gb": 100}


def post(server: Running, **resources: float) -> str:
    document = {"executors": [{"image": "alpine", "command": ["true"]}], "resources": resources}
    return str(server.client.post("/v1/tasks", json=document).json()["id"])


def given(server: Running) -> str:
    return server.engine.submitted.get(timeout=20)


def test_tasks_that_the_engine_holds_back_let_those_behind_them_pass(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        large = [post(server, ram_gb=100) for _ in range(450)]
        server.engine.holds_from_gb = 100
        server.engine.room = 3
        small = [post(server), post(server)]
        assert [given(server), given(server)] == small
        first, last = (server.client.get(f"/v1/tasks/{each}?view=FULL").json() for each in (large[0], large[-1]))
        assert first["logs"][0]["system_logs"] == ["waiting: no node"]
        assert last["logs"][0]["system_logs"] == ["waiting for its turn; the first in line is waiting: no node"]
        server.engine.holds_from_gb = 1000
        assert given(server) == large[0]


def test_a_task_whose_submission_the_store_could_not_note_is_next_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as server:
        ids = [post(server) for _ in range(3)]
        noted: Any = server.store.submitted
        failures = queue.SimpleQueue[StoreError]()
        for words in ("the disk is full", "the disk is full still"):
            failures.put(StoreError(words))

        async def fails_at_first(task_id: str) -> bool:
            if not failures.empty():
                raise failures.get()
            return bool(await noted(task_id))

        monkeypatch.setattr(server.store, "submitted", fails_at_first)
        server.engine.room = 3
        assert [given(server) for _ in ids] == ids


def test_a_long_document_is_weighed_like_any_other(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.engine.holds_from_gb = 100
        server.engine.room = 2
        document = {
            "executors": [{"image": "alpine", "command": ["echo", "x" * 100_000]}],
            "resources": LARGE,
        }
        held = server.client.post("/v1/tasks", json=document).json()["id"]
        small = post(server)
        assert given(server) == small
        limit = time.monotonic() + 20
        while "logs" not in (task := server.client.get(f"/v1/tasks/{held}?view=FULL").json()):
            assert time.monotonic() < limit
        assert task["logs"][0]["system_logs"] == ["waiting: no node"]
        server.engine.holds_from_gb = 1000
        assert given(server) == held
