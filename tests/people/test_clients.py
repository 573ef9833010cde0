"""Every client that is known gets in with an API token: the libraries themselves, the others by what they send.

Where a client writes the credential was read from its code. tests/whole has engines that run workflows.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import tes as py_tes  # type: ignore[import-untyped]

from tests.api.conftest import Running, running
from tests.api.test_clients import run_old_client
from tests.people.test_tokens import ALICE as USER
from tests.people.test_tokens import TASK, bearer, make, write_users


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("clients")
    with running(folder, users_file=str(write_users(folder, USER))) as started:
        yield started


@pytest.fixture(scope="module")
def token(server: Running) -> str:
    return str(make(server, USER)["token"])


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def create_read_and_cancel(client: Any) -> None:
    """What an engine does with py-tes."""
    identifier = client.create_task(py_tes.Task(executors=[py_tes.Executor(image="alpine", command=["true"])]))
    assert client.get_task(identifier, "FULL").state == "QUEUED"
    assert identifier in [task.id for task in client.list_tasks().tasks]
    client.cancel_task(identifier)
    assert client.wait(identifier, timeout=180).state == "CANCELED"


@pytest.mark.parametrize("how", ["token", "password"])
def test_py_tes_signs_in_with_a_token(server: Running, token: str, how: str) -> None:
    credential = {"token": token} if how == "token" else {"user": "alice", "password": token}
    create_read_and_cancel(py_tes.HTTPClient(server.url, timeout=180, **credential))


def test_py_tes_signs_in_with_the_token_of_a_netrc_file(
    server: Running, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As cwl-tes has to: what it takes by --token is a JWT with a signature that it knows."""
    (tmp_path / "netrc").write_text(f"machine {urlsplit(server.url).hostname} login token password {token}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    create_read_and_cancel(py_tes.HTTPClient(server.url, timeout=180))


def test_py_tes_says_why_it_does_not_get_in(server: Running, token: str) -> None:
    with pytest.raises(Exception, match="401 Client Error"):
        create_read_and_cancel(py_tes.HTTPClient(server.url, timeout=180, token=token[:-1]))


@pytest.mark.parametrize("how", ["token", "password"])
def test_old_py_tes_signs_in_with_a_token(server: Running, token: str, how: str) -> None:
    """0.4.2, as Snakemake and Toil have it, sends Basic beside a token: `None:None`."""
    ended = server.client.post("/v1/tasks", json=TASK, headers=bearer(token)).json()["id"]
    credential = {"token": token} if how == "token" else {"user": "alice", "password": token}
    done = run_old_client(server.url, ended, json.dumps(credential))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["version"], seen["after_cancel"]) == ("0.4.2", "CANCELED")
    assert ended in seen["listed"]


def test_old_py_tes_without_a_credential_is_not_let_in(server: Running) -> None:
    done = run_old_client(server.url, "x")
    assert done.returncode == 1
    assert "401 Client Error" in done.stderr


def nextflow(token: str) -> dict[str, dict[str, Any]]:
    """nf-ga4gh, from its tes.basicUsername and basicPassword, apiKey with apiKeyParamMode and -Name, and oauthToken."""
    ways: dict[str, dict[str, Any]] = {
        "basic": {"headers": basic("alice", token)},
        "key in the query": {"params": {"api_key": token}},
        "key in a header": {"headers": {"X-API-Key": token}},
        "bearer": {"headers": bearer(token)},
    }
    together = {"params": {"api_key": token}, "headers": {"X-API-Key": token, **bearer(token)}}
    return {**ways, "all that it is given": together}


@pytest.mark.parametrize("how", nextflow(""))
def test_nextflow_signs_in_with_a_token(server: Running, token: str, how: str) -> None:
    sent = nextflow(token)[how]
    headers = {"Accept": "application/json", "User-Agent": "Swagger-Codegen/1.0.0/java", **sent.get("headers", {})}
    key = sent.get("params", {})
    made = server.client.post("/v1/tasks", json=TASK, headers=headers, params=key)
    identifier = made.json()["id"]
    for view in ("MINIMAL", "FULL"):
        seen = server.client.get(f"/v1/tasks/{identifier}", headers=headers, params={**key, "view": view})
        assert seen.json()["id"] == identifier
    assert server.client.post(f"/v1/tasks/{identifier}:cancel", headers=headers, params=key).status_code == 200


CLIENTS: dict[str, tuple[str, Callable[[str], dict[str, str]]]] = {
    "cromwell": ("/ga4gh/tes/v1", bearer),
    "sprocket": ("/ga4gh/tes/v1", bearer),
    "sprocket with a password": ("/v1", partial(basic, "alice")),
    "galaxy": ("/v1", partial(basic, "galaxy")),
    "pulsar": ("/ga4gh/tes/v1", partial(basic, "pulsar")),
    "curl -u": ("/ga4gh/tes/v1", partial(basic, "")),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_other_engines_sign_in_with_a_token(server: Running, token: str, name: str) -> None:
    base, sent_by = CLIENTS[name]
    headers = sent_by(token)
    tagged = {**TASK, "tags": {"crankshaft-task-group": name}}
    identifier = server.client.post(f"{base}/tasks", json=tagged, headers=headers).json()["id"]
    query = {"tag_key": "crankshaft-task-group", "tag_value": name, "page_size": "2047", "view": "MINIMAL"}
    listed = server.client.get(f"{base}/tasks", params=query, headers=headers).json()
    assert [task["id"] for task in listed["tasks"]] == [identifier]
    assert server.client.get(f"{base}/tasks/{identifier}?view=FULL", headers=headers).status_code == 200
    for body in (b"", b"{}", b"null"):
        sent = {**headers, "Content-Type": "application/json"}
        assert server.client.post(f"{base}/tasks/{identifier}:cancel", content=body, headers=sent).status_code == 200


def test_a_page_of_another_origin_signs_in_with_a_token(tmp_path: Path) -> None:
    origin = {"Origin": "https://workflows.example.org"}
    with running(tmp_path, users_file=str(write_users(tmp_path, USER)), cors_origins=tuple(origin.values())) as server:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
        preflight = server.client.options("/v1/tasks", headers={**origin, **asks})
        assert preflight.status_code == 204
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        sent = {**origin, **bearer(make(server, USER)["token"])}
        made = server.client.post("/v1/tasks", json=TASK, headers=sent)
        assert (made.status_code, made.headers["access-control-allow-origin"]) == (200, origin["Origin"])
        assert "access-control-allow-credentials" not in made.headers
