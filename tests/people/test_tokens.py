"""API tokens on a running server: who makes them, what they are good for, and when they end."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tesk.identity import Identity
from tesk.server.people.passwords import hashed
from tesk.server.people.tokens import GOOD_FOR_S, ApiTokens, digest, new_text, new_token
from tesk.server.people.way import OWN_TOKEN, CallerCredential, CannotTell
from tesk.store import open_store
from tesk.store.base import Store
from tesk.store.identifiers import now_ms
from tests.api.conftest import LIMIT_S, Running, postgres_server, running
from tests.known_secrets import known
from tests.servers.postgres import Postgres

__all__ = ["postgres_server"]

ALICE = ("alice", known("the password of alice", "correct horse"))
BOB = ("bob", known("the password of bob", "battery staple"))
TASK = {"executors": [{"image": "alpine", "command": ["true"]}]}
DAY_S = 24 * 3600
TOKENS = "/api/v1/tokens"


def write_users(folder: Path, *users: tuple[str, str], groups: str = "") -> Path:
    path = folder / "users.toml"
    made = folder / "users.new"
    line = f"groups = {json.dumps(groups.split())}\n"
    made.write_text("".join(f'[{name}]\npassword = "{HASHES[word]}"\n{line}' for name, word in users))
    made.replace(path)
    return path


HASHES = {word: hashed(word) for _, word in (ALICE, BOB)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tokens")
    trusted = ("127.0.0.1/32",)
    file = str(write_users(folder, ALICE, BOB))
    with running(folder, users_file=file, admins=("root",), trusted_addresses=trusted, token_days=30) as started:
        yield started


def make(server: Running, auth: tuple[str, str] = ALICE, **wanted: Any) -> dict[str, Any]:
    answer = server.client.post(TOKENS, json={"name": "n", **wanted}, auth=auth)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    known("an API token", made["token"].removeprefix(OWN_TOKEN))
    return made


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def status(server: Running, text: str, method: str = "GET", path: str = "/v1/tasks") -> int:
    body = TASK if method == "POST" else None
    return server.client.request(method, path, json=body, headers=bearer(text)).status_code


def reason_of_refusal(server: Running, text: str) -> str:
    """Why the token lets nobody in any more, once the server has noticed."""
    limit = time.monotonic() + LIMIT_S
    while (answer := server.client.get("/v1/tasks", headers=bearer(text))).status_code == 200:
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert answer.status_code == 401
    return str(answer.json()["msg"])


def as_proxy(user: str, groups: str = "") -> dict[str, str]:
    return {"X-Forwarded-User": user, "X-Forwarded-Groups": groups}


def sent_as(text: str) -> dict[str, dict[str, Any]]:
    """The token wherever a client can put it: arguments of httpx."""
    return {
        "bearer": {"headers": bearer(text)},
        "header": {"headers": {"X-API-Key": text}},
        "query": {"params": {"api_key": text}},
        "password": {"auth": ("alice", text)},
        "password of another": {"auth": ("whoever", text)},
        "password of nobody": {"auth": ("", text)},
    }


@pytest.mark.parametrize("how", sent_as(""))
def test_a_token_lets_its_user_in_wherever_a_client_can_put_it(server: Running, how: str) -> None:
    sent = sent_as(make(server)["token"])[how]
    assert server.client.post("/v1/tasks", json=TASK, **sent).status_code == 200
    listed = server.client.get(TOKENS, **sent).json()["tokens"]
    assert {token["user"] for token in listed} == {"alice"}


def test_a_list_has_the_own_tokens_and_no_secret(server: Running) -> None:
    mine, other = make(server, name="Grüße", scopes=["read"], expires_in_s=60), make(server, BOB)
    answer = server.client.get(TOKENS, auth=ALICE)
    token = next(each for each in answer.json()["tokens"] if each["id"] == mine["id"])
    assert token == {key: value for key, value in mine.items() if key != "token"}
    assert (token["name"], token["scopes"], token["user"]) == ("Grüße", ["read"], "alice")
    assert other["id"] not in answer.text
    assert "tesk_" not in answer.text


def test_the_text_of_a_token_is_in_no_cache_and_not_in_the_database(server: Running) -> None:
    answer = server.client.post(TOKENS, json={"name": "n"}, auth=ALICE)
    assert answer.headers["cache-control"] == "no-store"
    files = [path.read_bytes() for path in Path(server.settings.data).glob("tesk.db*")]
    assert files
    assert not [file for file in files if answer.json()["token"].encode() in file]


@pytest.mark.parametrize(
    ("scopes", "method", "path", "expected"),
    [
        (["read"], "GET", "/v1/tasks", 200),
        (["read"], "POST", "/v1/tasks", 403),
        (["read"], "POST", "/v1/tasks/0000000000000:cancel", 403),
        (["submit"], "GET", "/v1/tasks", 403),
        (["submit"], "POST", "/v1/tasks", 200),
        (["submit"], "POST", "/v1/tasks/0000000000000:cancel", 403),
        (["cancel"], "GET", "/v1/tasks/0000000000000", 403),
        (["cancel"], "POST", "/v1/tasks/0000000000000:cancel", 404),
    ],
)
def test_a_token_is_good_for_its_scopes_alone(
    server: Running, scopes: list[str], method: str, path: str, expected: int
) -> None:
    assert status(server, make(server, scopes=scopes)["token"], method, path) == expected


@pytest.mark.parametrize(
    ("wanted", "field", "reason"),
    [
        ({}, "", "name"),
        ({"name": ""}, "name", "1 to 100 printable"),
        ({"name": "x" * 101}, "name", "1 to 100 printable"),
        ({"name": "a\nb"}, "name", "1 to 100 printable"),
        ({"name": "n", "scopes": []}, "scopes", "one of read, submit, cancel"),
        ({"name": "n", "scopes": ["admin"]}, "scopes[0]", "Invalid enum value 'admin'"),
        ({"name": "n", "expires_in_s": 30 * DAY_S + 1}, "expires_in_s", "at most 30 days"),
        ({"name": "n", "expires_in_s": 59}, "expires_in_s", ">= 60"),
        ({"name": "n", "user": "bob"}, "", "unknown field `user`"),
    ],
)
def test_a_token_that_cannot_be_is_refused(server: Running, wanted: dict[str, Any], field: str, reason: str) -> None:
    answer = server.client.post(TOKENS, json=wanted, auth=ALICE)
    assert answer.status_code == 400
    assert answer.json().get("field", "") == field
    assert reason in answer.json()["msg"]


def test_a_token_lasts_as_long_as_the_setting_allows_where_nothing_is_asked(server: Running) -> None:
    made = make(server)
    assert made["expires"][:10] > made["made"][:10]
    token = server.do(server.store.tokens.list("alice"))[0]
    assert token.expires_ms - token.made_ms == 30 * DAY_S * 1000


def test_a_token_makes_no_token_and_revokes_itself_alone(server: Running) -> None:
    text, other = make(server), make(server)
    headers = bearer(text["token"])
    refused = server.client.post(TOKENS, json={"name": "n"}, headers=headers)
    assert (refused.status_code, refused.json()["msg"][:34]) == (403, "an API token cannot make another: ")
    assert server.client.delete(f"{TOKENS}/{other['id']}", headers=headers).status_code == 403
    assert server.client.delete(f"{TOKENS}/{text['id']}", headers=headers).status_code == 200
    assert status(server, text["token"]) == 401
    assert status(server, other["token"]) == 200


def test_a_revoked_token_lets_nobody_in_from_then_on(server: Running) -> None:
    made = make(server)
    assert status(server, made["token"]) == 200
    assert server.client.delete(f"{TOKENS}/{made['id']}", auth=BOB).status_code == 404
    assert status(server, made["token"]) == 200
    revoked = server.client.delete(f"{TOKENS}/{made['id']}", auth=ALICE)
    assert "revoked" in revoked.json()
    answer = server.client.get("/v1/tasks", headers=bearer(made["token"]))
    assert answer.status_code == 401
    assert "the API token 'n' was revoked: make another" in answer.json()["msg"]
    assert answer.headers.get_list("www-authenticate", split_commas=False)
    assert server.client.delete(f"{TOKENS}/{made['id']}", auth=ALICE).json() == revoked.json()


def test_an_admin_lists_and_revokes_the_tokens_of_others(server: Running) -> None:
    made = make(server)
    listed = server.client.get(TOKENS, params={"user": "alice"}, headers=as_proxy("root")).json()["tokens"]
    assert made["id"] in [token["id"] for token in listed]
    assert server.client.get(TOKENS, params={"user": "alice"}, auth=BOB).status_code == 403
    assert server.client.delete(f"{TOKENS}/{made['id']}", headers=as_proxy("root")).status_code == 200
    assert status(server, made["token"]) == 401


def test_a_token_that_has_expired_lets_nobody_in(server: Running) -> None:
    made = make(server)
    assert status(server, made["token"]) == 200
    with sqlite3.connect(f"{server.settings.data}/tesk.db", timeout=LIMIT_S) as database:
        database.execute("UPDATE api_token SET expires = ? WHERE id = ?", (now_ms() - 1, made["id"]))
    server.client.delete(f"{TOKENS}/{make(server)['id']}", auth=ALICE)  # drops what is kept of alice
    answer = server.client.get("/v1/tasks", headers=bearer(made["token"]))
    assert answer.status_code == 401
    assert "has expired" in answer.json()["msg"]


def test_a_user_has_a_hundred_tokens_that_work(tmp_path: Path) -> None:
    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE, BOB))) as server:
        made = [make(server) for _ in range(100)]
        refused = server.client.post(TOKENS, json={"name": "n"}, auth=ALICE)
        assert (refused.status_code, "revoke one" in refused.text) == (409, True)
        make(server, BOB)
        server.client.delete(f"{TOKENS}/{made[7]['id']}", auth=ALICE)
        make(server)


def write_notes(server: Running) -> None:
    """Writes what the server would write within a minute."""
    assert server.edge is not None
    tokens = server.edge.ways[-1]
    assert isinstance(tokens, ApiTokens)
    server.do(tokens.write_notes())


def test_a_token_has_the_groups_of_the_last_sign_in(server: Running) -> None:
    def groups() -> tuple[str, ...]:
        return server.do(server.store.tokens.list("carol"))[0].rights.groups

    server.client.post(TOKENS, json={"name": "n"}, headers=as_proxy("carol", "lab-a,lab-b"))
    assert groups() == ("lab-a", "lab-b")
    server.client.get("/v1/tasks", headers=as_proxy("carol", "lab-b"))
    write_notes(server)
    assert groups() == ("lab-b",)


def test_the_last_use_of_a_token_is_shown(server: Running) -> None:
    made = make(server)
    assert status(server, made["token"]) == 200
    write_notes(server)
    token = next(each for each in server.client.get(TOKENS, auth=ALICE).json()["tokens"] if each["id"] == made["id"])
    assert token["last_used"] >= token["made"]


def test_tokens_die_with_the_user_in_the_file_of_users(tmp_path: Path) -> None:
    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE, BOB))) as server:
        texts = [make(server, auth)["token"] for auth in (ALICE, BOB)]
        assert [status(server, text) for text in texts] == [200, 200]
        write_users(tmp_path, BOB)
        assert "was removed" in reason_of_refusal(server, texts[0])
        assert status(server, texts[1]) == 200


def test_tokens_of_a_way_that_is_off_let_nobody_in(tmp_path: Path) -> None:
    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE))) as server:
        text = make(server)["token"]
    with running(tmp_path, tokens="alone") as server:
        answer = server.client.get("/v1/tasks", headers=bearer(text))
        assert (answer.status_code, "signing in with basic, which is off now" in answer.json()["msg"]) == (401, True)


def test_without_tokens_none_is_made_and_none_lets_in(tmp_path: Path) -> None:
    users = str(write_users(tmp_path, ALICE))
    with running(tmp_path, users_file=users) as server:
        text = make(server)["token"]
    with running(tmp_path, users_file=users, tokens="never") as server:
        refused = server.client.post(TOKENS, json={"name": "n"}, auth=ALICE)
        assert (refused.status_code, "the setting tokens is never" in refused.text) == (403, True)
        assert status(server, text) == 401


def test_nobody_has_tokens_where_nobody_signs_in(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        answer = server.client.post(TOKENS, json={"name": "n"})
        assert (answer.status_code, "nobody signs in here" in answer.text) == (403, True)


def test_a_token_that_one_server_revokes_ends_on_another_of_the_same_database(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    users = str(write_users(tmp_path, ALICE))
    database = postgres_server.new_database()
    with (
        running(folders[0], database=database, users_file=users) as one,
        running(folders[1], database=database, users_file=users) as two,
    ):
        made = make(one)
        assert [status(server, made["token"]) for server in (one, two)] == [200, 200]
        one.client.delete(f"{TOKENS}/{made['id']}", auth=ALICE)
        assert status(one, made["token"]) == 401
        assert "was revoked" in reason_of_refusal(two, made["token"])
    assert GOOD_FOR_S <= 10


async def test_what_cannot_be_looked_up_is_no_refusal_and_what_was_noted_is_written_later(tmp_path: Path) -> None:
    def opened() -> Store:
        return open_store(f"sqlite:///{tmp_path}/tesk.db", log_tail_bytes=9)

    carol = Identity(user="carol", way="proxy", groups=frozenset({"lab-a"}))
    text, token = new_text(), new_token(carol, "n", now_ms(), DAY_S)
    store = opened()
    await store.open()
    await store.tokens.add(token, digest(text))
    ways = ApiTokens(store.tokens, {"proxy": None})
    shown = CallerCredential("bearer", "", text)
    assert await ways.identify(shown)
    ways.learn(msgspec.structs.replace(carol, groups=frozenset({"lab-b"})))
    await store.close()
    await ways.write_notes()
    with pytest.raises(CannotTell, match="cannot be used"):
        await ways.identify(shown)

    await store.open()
    found = await ways.identify(shown)
    assert found is not None
    assert found.identity.groups == {"lab-b"}
    await ways.write_notes()
    stored = await store.tokens.find(digest(text))
    assert stored is not None
    assert stored.used_ms is not None
    assert stored.rights.groups == ("lab-b",)
    await store.close()


def tesk(server: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`tesk token …` on the machine of the server, with the server's settings."""
    environment = {"PATH": "/usr/bin:/bin", "TESK_STORE_DATABASE_URL": server.database, "TESK_SERVER": server.url}
    environment["TESK_PEOPLE_USERS_FILE"] = server.settings.users_file
    command = [sys.executable, "-m", "tesk", "token", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_the_operator_makes_the_first_token_where_tokens_are_the_only_way_in(tmp_path: Path) -> None:
    with running(tmp_path, tokens="alone") as server:
        assert httpx.get(f"{server.url}/v1/tasks", timeout=LIMIT_S).status_code == 401
        made = tesk(server, "create", "--user=ls:abc@ls", "--group=lab-a", "--name=first", "--expires=2h")
        assert made.returncode == 0, made.stderr
        text = made.stdout.strip()
        assert status(server, text, "POST") == 200
        (token,) = json.loads(tesk(server, "list", "--user=ls:abc@ls").stdout)
        assert token["id"] in made.stderr
        assert (token["name"], token["scopes"]) == ("first", ["read", "submit", "cancel"])
        (stored,) = server.do(server.store.tokens.list("ls:abc@ls"))
        assert (stored.rights.groups, stored.expires_ms - stored.made_ms) == (("lab-a",), 2 * 3600 * 1000)
        assert tesk(server, "revoke", "--user=bob", token["id"]).returncode == 1
        assert tesk(server, "revoke", "--user=ls:abc@ls", "--all").returncode == 0
        assert "was revoked" in reason_of_refusal(server, text)


def test_a_token_that_the_operator_made_dies_with_the_user_in_the_file(tmp_path: Path) -> None:
    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE, BOB, groups="lab-a"))) as server:
        assert (
            "the groups of alice are in the file"
            in tesk(server, "create", "--user=alice", "--group=g", "--name=n").stderr
        )
        text = tesk(server, "create", "--user=alice", "--name=n").stdout.strip()
        assert server.client.get("/api/v1/whoami", headers=bearer(text)).json()["groups"] == ["lab-a"]
        write_users(tmp_path, BOB)
        assert "was removed" in reason_of_refusal(server, text)


def test_the_command_line_makes_lists_and_revokes_over_http(server: Running) -> None:
    url = server.url.replace("http://", "http://alice:correct%20horse@")
    made = tesk(server, "create", "--server", url, "--name", "cli", "--scope", "read,cancel", "--json")
    token = json.loads(made.stdout)
    assert status(server, token["token"]) == 200
    assert token["scopes"] == ["read", "cancel"]
    listed = json.loads(tesk(server, "list", "--server", url + "/ga4gh/tes/v1").stdout)
    assert {key: value for key, value in token.items() if key != "token"} in listed
    assert tesk(server, "revoke", "--server", url + "/v1", token["id"]).returncode == 0
    assert status(server, token["token"]) == 401


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["create", "--name=n", "--scope=admin"], "'admin' is none of read, submit, cancel"),
        (["create", "--name=n", "--expires=30"], "such as 30d or 12h"),
        (["create", "--name=n", "--group=g"], "--group is for --user"),
        (["create", "--user=a b", "--name=n"], "'a b' is no name of a user"),
        (["create", "--user=a", "--name=n", "--expires=400d"], "at most 365 days"),
        (["revoke"], "name the tokens by their ids, or give --all"),
        (["revoke", "../x"], "is not the id of a token"),
    ],
)
def test_wrong_use_of_the_command_line_is_told(server: Running, arguments: list[str], reason: str) -> None:
    done = tesk(server, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_the_audit_log_tells_who_made_and_revoked_what(tmp_path: Path) -> None:
    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE)), log_level="error") as server:
        made = make(server, scopes=["read"])
        server.client.delete(f"{TOKENS}/{made['id']}", auth=ALICE)
    lines = [line for line in server.log_lines() if line.get("what", "").startswith("token ")]
    assert [(line["what"], line["user"], line["token"]) for line in lines] == [
        ("token made", "alice", made["id"]),
        ("token revoked", "alice", made["id"]),
    ]


def test_no_token_is_in_the_log_wherever_it_was_sent(tmp_path: Path) -> None:
    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE)), log_level="debug") as server:
        text = make(server)["token"]
        ended = make(server)
        server.client.delete(f"{TOKENS}/{ended['id']}", auth=ALICE)
        for each in (text, ended["token"], "tesk_unknown-secret"):
            for path in ("/v1/tasks", "/v1/tasks/nothing", "/nowhere", "/v1/tasks?page_size=x&"):
                query = "" if path.endswith("&") else "?"
                server.client.get(f"{path}{query}api_key={each}")
                server.client.get(path, headers={"X-API-Key": each})
                server.client.get(path, headers=bearer(each))
                server.client.get(path, auth=("alice", each))
            server.client.post(f"/v1/tasks?api_key={each}", content=b"{", headers={"Content-Type": "application/json"})
            server.client.put(f"/v1/tasks?api_key={each}")
    log = server.log_stream.getvalue().decode()
    assert log.count('"msg":"request"') > 20
    for secret in (text, ended["token"], "unknown-secret", "correct horse"):
        assert secret not in log
        assert secret.removeprefix("tesk_") not in log
