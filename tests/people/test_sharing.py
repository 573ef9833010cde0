"""Sharing with colleagues, over HTTP and by `tesk share`, on a running server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tesk.server.people import sharing
from tests.api.conftest import Running, running

TASK = {"executors": [{"image": "alpine", "command": ["true"]}]}
SHARES = "/api/v1/shares"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sharing"), trusted_addresses=("127.0.0.1/32",)) as started:
        yield started


def ask(server: Running, user: str, method: str, path: str, **more: Any) -> httpx.Response:
    return server.client.request(method, path, headers={"X-Forwarded-User": user}, **more)


def test_a_colleague_sees_all_tasks_and_ends_none_until_it_is_taken_back(server: Running) -> None:
    task_id = ask(server, "ann", "POST", "/v1/tasks", json=TASK).json()["id"]
    shared = ask(server, "ann", "POST", SHARES, json={"user": "ben"})
    assert (shared.status_code, shared.json()) == (200, {"seen_by": ["ben"], "sees": []})
    assert ask(server, "ben", "GET", SHARES).json() == {"seen_by": [], "sees": ["ann"]}
    later = ask(server, "ann", "POST", "/v1/tasks", json=TASK).json()["id"]
    assert [task["id"] for task in ask(server, "ben", "GET", "/v1/tasks").json()["tasks"]] == [later, task_id]
    assert ask(server, "ben", "GET", f"/v1/tasks/{task_id}?view=FULL").status_code == 200
    assert ask(server, "ben", "POST", f"/v1/tasks/{task_id}:cancel").status_code == 403
    assert ask(server, "cy", "GET", f"/v1/tasks/{task_id}").status_code == 404
    ended = ask(server, "ann", "DELETE", SHARES, params={"user": "ben"})
    assert (ended.status_code, ended.json()) == (200, {"seen_by": [], "sees": []})
    assert ask(server, "ben", "GET", f"/v1/tasks/{task_id}").status_code == 404
    assert ask(server, "ben", "GET", "/v1/tasks").json()["tasks"] == []
    server.stop()
    notes = [line for line in server.log_lines() if line["msg"] == "audit" and "shared" in line["what"]]
    assert [(line["what"], line["user"], line["colleague"]) for line in notes] == [
        ("shared", "ann", "ben"),
        ("not shared any more", "ann", "ben"),
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user": "ann"}, 400),
        ({"user": ""}, 400),
        ({"user": "b\0n"}, 400),
        ({"user": "x" * 301}, 400),
        ({"user": 7}, 400),
        ({}, 400),
        ({"user": "ben", "as": "manager"}, 400),
        ({"user": "lab:ben/2@example.org"}, 200),
    ],
)
def test_who_can_be_shared_with(server: Running, body: dict[str, Any], status: int) -> None:
    answer = ask(server, "ann", "POST", SHARES, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json().get("field", "user") == "user"


def test_nobody_takes_back_what_another_shares(server: Running) -> None:
    ask(server, "ann", "POST", SHARES, json={"user": "ben"})
    for user in ("ben", "cy"):
        assert ask(server, user, "DELETE", SHARES, params={"user": "ben"}).status_code in (400, 404)
    assert ask(server, "ben", "GET", SHARES).json()["sees"] == ["ann"]


def test_there_is_a_limit(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MOST_COLLEAGUES", 2)
    pairs = [("ann", "ben"), ("ann", "cy"), ("ann", "ben"), ("ann", "dora"), ("eve", "ben"), ("fay", "ben")]
    answers = [ask(server, user, "POST", SHARES, json={"user": colleague}).status_code for user, colleague in pairs]
    assert answers == [200, 200, 200, 409, 200, 409]


def test_where_nobody_signs_in_nobody_shares(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("open")) as server:
        for method in ("GET", "POST", "DELETE"):
            body = {"user": "ben"} if method == "POST" else None
            assert server.client.request(method, SHARES, json=body).status_code == 403


def test_tesk_share(server: Running) -> None:
    token = ask(server, "ann", "POST", "/api/v1/tokens", json={"name": "n"}).json()["token"]
    environment = {**os.environ, "TESK_TOKEN": token, "TESK_SERVER": server.url}

    def tesk(*arguments: str) -> str:
        command = [sys.executable, "-m", "tesk", "share", *arguments]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
        return done.stdout

    assert tesk("add", "ben", "lab:cy/1") == ""
    assert json.loads(tesk("list", "--json")) == {"seen_by": ["ben", "lab:cy/1"], "sees": []}
    tesk("remove", "lab:cy/1")
    assert tesk("list", "--table").split() == ["USER", "ben", "sees", "your", "tasks"]
