"""Signing in by each way on a running server: who gets in as whom, who does not, and what the answers say."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tesk.server.people.passwords import hashed
from tests.api.conftest import Running, running

TASK = {"executors": [{"image": "alpine", "command": ["true"]}]}
USERS = {"alice": "correct horse", "bob": "battery staple"}


def users_file(folder: Path) -> Path:
    path = folder / "users.toml"
    path.write_text("".join(f'[{name}]\npassword = "{hashed(word)}"\n' for name, word in USERS.items()))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("ways")
    with running(folder, users_file=str(users_file(folder))) as started:
        yield started


def test_a_user_signs_in_with_name_and_password(server: Running) -> None:
    made = server.client.post("/v1/tasks", json=TASK, auth=("alice", "correct horse"))
    assert made.status_code == 200
    assert server.client.get(f"/v1/tasks/{made.json()['id']}", auth=("alice", "correct horse")).status_code == 200


@pytest.mark.parametrize(
    "auth",
    [None, ("alice", "battery staple"), ("eve", "correct horse"), ("None", "None"), ("", ""), ("alice", "")],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/tasks"), ("POST", "/v1/tasks"), ("GET", "/v1/tasks/x")])
def test_nobody_else_gets_in(server: Running, method: str, path: str, auth: tuple[str, str] | None) -> None:
    answer = server.client.request(method, path, json=TASK if method == "POST" else None, auth=auth)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="tesk", charset="UTF-8"'


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/v1/service-info", "/"])
def test_what_describes_the_server_is_open(server: Running, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 200
