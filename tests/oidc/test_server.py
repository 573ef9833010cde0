"""A running server whose users come by a real provider."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import LIMIT_S, Running, running
from tests.servers.oidc_provider import AUDIENCE, CLIENT, PREFIX, SECRET, OidcProvider

TASK = {"executors": [{"image": "alpine", "command": ["true"]}]}


def issuers_file(folder: Path, provider: OidcProvider) -> Path:
    (folder / "secret").write_text(SECRET)
    path = folder / "issuers.toml"
    path.write_text(f"""
[lab]
issuer = "{provider.issuer}"
audience = ["{AUDIENCE}"]
group_prefix = "{PREFIX}"
client_id = "{CLIENT}"
client_secret_file = "secret"
opaque_tokens = "introspection"
admin_groups = ["lab-a:imaging"]
login_client_id = "tesk-cli"
login_resource = "{AUDIENCE}"
login_scopes = ["openid", "offline_access", "tes"]
timeout_s = 60.0
""")
    return path


@pytest.fixture(scope="module")
def server(running_provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("oidc")
    with running(folder, issuers=str(issuers_file(folder, running_provider)), tokens="beside") as started:
        yield started


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_whoami_says_whom_a_token_is_taken_for(server: Running, provider: OidcProvider) -> None:
    token = provider.token("alice", format="jwt", resource=AUDIENCE, scope="tes")
    answer = server.client.get("/api/v1/whoami", headers=_bearer(token))
    assert answer.status_code == 200
    assert answer.json() == {
        "user": "lab:alice",
        "shown": "Alice Example",
        "groups": ["lab-a", "lab-a:imaging"],
        "manages": ["lab-a:imaging"],
        "default_group": "",
        "is_admin": True,
        "way": "oidc",
        "scopes": ["read", "submit", "cancel"],
    }


def test_a_task_is_made_and_read_with_a_token_in_one_call_to_the_provider(
    server: Running, provider: OidcProvider
) -> None:
    token = provider.token("alice", format="jwt", resource=AUDIENCE, scope="tes")
    made = server.client.post("/v1/tasks", json=TASK, headers=_bearer(token)).json()
    for _ in range(5):
        assert server.client.get(f"/v1/tasks/{made['id']}", headers=_bearer(token)).status_code == 200
    assert provider.calls()["/me"] == 1


@pytest.mark.parametrize("token", ["eyJhbGciOiJub25lIn0.e30.", "made-up", "tesk_none", "a.b.c", "ü"])
def test_a_bad_token_is_401_and_stands_in_no_answer_and_no_log(
    server: Running, provider: OidcProvider, token: str
) -> None:
    answer = server.client.get("/v1/tasks", headers={b"Authorization": f"Bearer {token}".encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="tesk", error="invalid_token"'
    assert token not in answer.text
    assert token.encode() not in server.log_stream.getvalue()


def test_while_the_provider_is_away_a_new_token_is_503_with_the_reason(provider: OidcProvider, tmp_path: Path) -> None:
    token = provider.token("alice", resource=AUDIENCE, scope="tes")
    provider.set(status=503)
    with running(tmp_path, issuers=str(issuers_file(tmp_path, provider))) as server:
        answer = server.client.get("/v1/tasks", headers=_bearer(token))
    assert answer.status_code == 503
    assert "issuer lab answered 503" in answer.json()["msg"]
    assert int(answer.headers["retry-after"]) > 0


def test_a_token_of_the_servers_own_outlives_the_providers_and_has_the_users_groups(
    server: Running, provider: OidcProvider
) -> None:
    signed_in = _bearer(provider.token("alice", format="jwt", resource=AUDIENCE, scope="tes", ttl_s=600))
    made = server.client.post("/api/v1/tokens", json={"name": "workflow"}, headers=signed_in)
    assert made.status_code == 200, made.text
    provider.set(status=503)
    who = server.client.get("/api/v1/whoami", headers=_bearer(made.json()["token"])).json()
    assert (who["user"], who["groups"], who["way"]) == ("lab:alice", ["lab-a", "lab-a:imaging"], "token")


def test_how_to_sign_in_is_open_and_has_no_secret(server: Running) -> None:
    answer = httpx.get(f"{server.url}/api/v1/sign-in", timeout=LIMIT_S)
    assert answer.json()["ways"] == ["oidc", "token"]
    (issuer,) = answer.json()["issuers"]
    assert issuer["client_id"] == "tesk-cli"
    assert issuer["scopes"] == ["openid", "offline_access", "tes"]
    assert SECRET not in answer.text


def test_without_a_way_in_everybody_is_nobody(tmp_path: Path) -> None:
    with running(tmp_path) as open_server:
        assert open_server.client.get("/api/v1/whoami").json()["user"] == ""
        assert open_server.client.get("/api/v1/sign-in").json() == {"ways": [], "issuers": []}
