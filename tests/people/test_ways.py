"""Signing in by each way on a running server: who gets in as whom, who does not, and what the answers say."""

import json
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.identity import SCOPES
from tesk.server.people import passwords, tries
from tesk.server.people.passwords import hashed
from tests.api.conftest import LIMIT_S, Running, running
from tests.known_secrets import known
from tests.people.cards import Cards
from tests.servers.signing_proxy import signing_proxy

TASK = {"executors": [{"image": "alpine", "command": ["true"]}]}
USERS = {
    "alice": known("the password of alice", "correct horse"),
    "bob": known("the password of bob", "battery staple"),
}
ALICE = ("alice", USERS["alice"])
CHALLENGES = ['Basic realm="tesk", charset="UTF-8"', 'Bearer realm="tesk"']
CHANGE_LIMIT_S = 300.0


@cache
def hash_of(password: str) -> str:
    return hashed(password)


def replace(path: Path, text: str) -> None:
    """A server that reads the file meanwhile sees the old or the new one."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def users_file(folder: Path, users: dict[str, str] = USERS) -> Path:
    path = folder / "users.toml"
    replace(path, "".join(f'[{name}]\npassword = "{hash_of(word)}"\n' for name, word in users.items()))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With users and with cards."""
    folder = tmp_path_factory.mktemp("ways")
    chosen: dict[str, Any] = {"users_file": str(users_file(folder)), "cors_origins": ("https://portal.example.org",)}
    with running(folder, ways=[Cards()], **chosen) as started:
        yield started


def card(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer card:{text}"}


class TestWhoGetsIn:
    def test_a_user_with_name_and_password(self, server: Running) -> None:
        made = server.client.post("/v1/tasks", json=TASK, auth=ALICE)
        assert made.status_code == 200
        assert server.client.get(f"/v1/tasks/{made.json()['id']}", auth=ALICE).status_code == 200

    @pytest.mark.parametrize(
        "auth", [None, ("alice", "battery staple"), ("eve", "correct horse"), ("None", "None"), ("", ""), ("alice", "")]
    )
    @pytest.mark.parametrize(("method", "path"), [("GET", "/v1/tasks"), ("POST", "/v1/tasks"), ("GET", "/v1/tasks/x")])
    def test_nobody_else(self, server: Running, method: str, path: str, auth: tuple[str, str] | None) -> None:
        answer = server.client.request(method, path, json=TASK if method == "POST" else None, auth=auth)
        assert answer.status_code == 401
        assert answer.headers.get_list("www-authenticate", split_commas=False) == CHALLENGES

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            (card("alice"), ""),
            ({"X-API-Key": "card:alice"}, ""),
            ({}, "?api_key=card%3Aalice"),
            ({}, "?view=FULL&api_key=card:alice&page_size=5"),
            ({"X-API-Key": "card:alice", "Authorization": f"Basic {b64encode(b'None:None').decode()}"}, ""),
            ({"X-API-Key": "nonsense"}, "?api_key=card:alice"),
        ],
    )
    def test_a_token_by_any_road(self, server: Running, headers: dict[str, str], query: str) -> None:
        assert httpx.get(f"{server.url}/v1/tasks{query}", headers=headers, timeout=LIMIT_S).status_code == 200

    def test_a_refused_token_is_told_so(self, server: Running) -> None:
        answer = server.client.get("/v1/tasks", headers={"Authorization": "Bearer nonsense"})
        assert answer.json() == {"status_code": 401, "msg": "this is no card; ways in: basic, token, card"}
        challenges = answer.headers.get_list("www-authenticate", split_commas=False)
        assert challenges[1] == f'{CHALLENGES[1]}, error="invalid_token"'

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/v1/service-info", "/"])
    def test_everybody_to_what_describes_the_server(self, server: Running, path: str) -> None:
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            assert httpx.get(server.url + path, headers=headers, timeout=LIMIT_S).status_code == 200

    def test_not_everybody_to_service_info_where_it_is_closed(self, tmp_path: Path) -> None:
        chosen: dict[str, Any] = {"users_file": str(users_file(tmp_path)), "public_service_info": False}
        with running(tmp_path, **chosen) as closed:
            for path in ("/v1/service-info", "/v1/tasks/service-info"):
                assert closed.client.get(path).status_code == 401
                assert closed.client.get(path, auth=ALICE).status_code == 200
            assert closed.client.get("/healthz").status_code == 200


OPERATIONS = {
    "GET /v1/tasks": "read",
    "GET /v1/tasks/x": "read",
    "POST /v1/tasks": "submit",
    "POST /v1/tasks/x:cancel": "cancel",
}


@pytest.mark.parametrize("scopes", ["read", "submit", "cancel", "read,submit", "submit,cancel", "none"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_credential_does_what_it_is_good_for_and_nothing_else(server: Running, operation: str, scopes: str) -> None:
    method, path = operation.split()
    answer = server.client.request(
        method, path, json=TASK if method == "POST" else None, headers=card(f"alice:{scopes}")
    )
    needed = OPERATIONS[operation]
    if needed in scopes.split(","):
        assert answer.status_code in (200, 404)
        return
    assert answer.status_code == 403
    good_for = ", ".join(each for each in sorted(SCOPES) if each in scopes.split(",")) or "nothing"
    assert answer.json()["msg"] == f"this credential is good for {good_for}; it needs {needed}"
    assert answer.headers["www-authenticate"] == f'Bearer realm="tesk", error="insufficient_scope", scope="{needed}"'


def test_the_ways_in_are_named(server: Running) -> None:
    assert server.client.get("/v1/service-info").json()["description"].endswith(" (sign in by: basic, token)")
    description = server.client.get("/openapi.json").json()
    schemes = description["components"]["securitySchemes"]
    assert schemes["basic"] == {"type": "http", "scheme": "basic"}
    assert schemes["token_in_query"] == {"type": "apiKey", "in": "query", "name": "api_key"}
    assert {name for each in description["security"] for name in each} == schemes.keys()
    assert description["paths"]["/service-info"]["get"]["security"] == []


class TestBrowsers:
    """What a browser adds on its own does not reach across origins; what a page sends itself does, where allowed."""

    def test_a_page_of_a_configured_origin_may_sign_in(self, server: Running) -> None:
        asked = {
            "Origin": "https://portal.example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        allowed = server.client.options("/v1/tasks", headers=asked)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
        answer = server.client.post("/v1/tasks", json=TASK, headers={"Origin": asked["Origin"], **card("alice")})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == asked["Origin"]
        assert "access-control-allow-credentials" not in answer.headers
        refused = server.client.get("/v1/tasks", headers={"Origin": asked["Origin"]})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, asked["Origin"])

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    @pytest.mark.parametrize("path", ["/v1/tasks", "/v1/tasks/x:cancel"])
    def test_a_foreign_page_cannot_use_the_password_that_the_browser_remembers(
        self, server: Running, path: str, headers: dict[str, str]
    ) -> None:
        for body, kind in ((json.dumps(TASK), "application/json"), ("", "text/plain")):
            answer = server.client.post(path, auth=ALICE, content=body, headers={**headers, "Content-Type": kind})
            assert answer.status_code == 403

    def test_no_answer_can_be_framed_and_none_sets_a_cookie(self, server: Running) -> None:
        for path, auth, status in (("/v1/tasks", ALICE, 200), ("/v1/tasks", None, 401), ("/none", None, 404)):
            answer = server.client.get(path, auth=auth)
            assert answer.status_code == status
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "set-cookie" not in answer.headers


class TestPasswords:
    def test_many_requests_with_one_password_are_one_check(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked = _watched(monkeypatch)
        with running(tmp_path, users_file=str(users_file(tmp_path))) as server, ThreadPoolExecutor(32) as threads:
            url = f"{server.url}/v1/tasks"
            found = [*threads.map(lambda _: httpx.get(url, auth=ALICE, timeout=LIMIT_S).status_code, range(64))]
        assert found == [200] * 64
        assert checked == [hash_of(ALICE[1])]

    def test_an_unknown_name_costs_a_check_like_a_known_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked = _watched(monkeypatch)
        with running(tmp_path, users_file=str(users_file(tmp_path))) as server:
            for name in ("eve", "mallory", "trudy"):
                answer = server.client.get("/v1/tasks", auth=(name, ALICE[1]))
                assert answer.json()["msg"].startswith("there is no user with this name and password")
            assert server.client.get("/v1/tasks", auth=("alice", "x")).json() == answer.json()
        assert len(checked) == 4
        assert set(checked) <= {hash_of(word) for word in USERS.values()}

    def test_the_server_answers_while_passwords_are_checked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_end = threading.Event()
        monkeypatch.setattr(passwords, "_is_right", lambda *_: may_end.wait(LIMIT_S))
        monkeypatch.setattr(passwords, "MOST_WAITING", 6)
        with running(tmp_path, users_file=str(users_file(tmp_path))) as server, ThreadPoolExecutor(8) as threads:
            url = f"{server.url}/v1/tasks"
            asking = [threads.submit(httpx.get, url, auth=("alice", f"{n}"), timeout=LIMIT_S) for n in range(6)]
            while server.connections() < 6 or server.do(_checking(server)) < 6:
                time.sleep(0.01)
            assert httpx.get(f"{server.url}/healthz", timeout=LIMIT_S).status_code == 200
            beyond = httpx.get(url, auth=("alice", "one more"), timeout=LIMIT_S)
            assert (beyond.status_code, beyond.headers["retry-after"]) == (503, "5")
            assert not any(each.done() for each in asking)
            may_end.set()
            assert {each.result().status_code for each in asking} == {200}

    def test_a_check_that_waits_too_long_is_503(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        may_end = threading.Event()
        monkeypatch.setattr(passwords, "_is_right", lambda *_: may_end.wait(LIMIT_S))
        monkeypatch.setattr(passwords, "WAIT_LIMIT_S", 0.1)
        with running(tmp_path, users_file=str(users_file(tmp_path))) as server:
            assert server.client.get("/v1/tasks", auth=ALICE).status_code == 503
            may_end.set()
            monkeypatch.setattr(passwords, "WAIT_LIMIT_S", LIMIT_S)
            assert server.client.get("/v1/tasks", auth=ALICE).status_code == 200

    def test_guessing_ends_with_429(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tries, "NAME_TRY_EVERY_S", 1000)  # none comes back while this runs, however slowly
        with running(tmp_path, users_file=str(users_file(tmp_path))) as server:
            answers = [server.client.get("/v1/tasks", auth=("alice", f"guess {n}")) for n in range(12)]
            assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
            assert int(answers[-1].headers["retry-after"]) in range(1, 1001)
            assert server.client.get("/v1/tasks", auth=("bob", USERS["bob"])).status_code == 200


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords are held against from now on."""
    checked: list[str] = []
    check = passwords._is_right

    def watched(hashed: str, password: str) -> bool:
        checked.append(hashed)
        return check(hashed, password)

    monkeypatch.setattr(passwords, "_is_right", watched)
    return checked


async def _checking(server: Running) -> int:
    edge = server.app._edge
    assert edge is not None
    return len(edge._checking)


class TestTheFileOfUsers:
    def test_a_change_is_seen_by_a_running_server(self, tmp_path: Path) -> None:
        path = users_file(tmp_path)
        with running(tmp_path, users_file=str(path)) as server:
            assert _status(server, ALICE) == 200
            _tesk_user(path, "add", "carol", given="a new password\n")
            _until(server, ("carol", "a new password"), 200)
            _tesk_user(path, "password", "alice", given="another password\n")
            _until(server, ALICE, 401)
            assert _status(server, ("alice", "another password")) == 200
            _tesk_user(path, "remove", "carol")
            _until(server, ("carol", "a new password"), 401)
            assert _status(server, ("bob", USERS["bob"])) == 200
        notes = [line for line in server.log_lines() if line["msg"] == "audit" and "of" in line]
        assert [(line["what"], line["of"]) for line in notes] == [
            ("user added", "carol"),
            ("user changed", "alice"),
            ("user removed", "carol"),
        ]

    def test_a_broken_file_is_told_and_the_users_before_it_stay(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = users_file(tmp_path)
        with running(tmp_path, users_file=str(path)) as server:
            replace(path, '[alice]\npassword = "plain"\n')
            limit = time.monotonic() + CHANGE_LIMIT_S
            while "is no argon2 hash" not in caplog.text:
                assert time.monotonic() < limit, "the broken file was not reported"
                time.sleep(0.05)
            assert _status(server, ALICE) == 200
            users_file(tmp_path, {"alice": "battery staple"})
            _until(server, ("alice", "battery staple"), 200)
            assert _status(server, ALICE) == 401


def _status(server: Running, auth: tuple[str, str]) -> int:
    return server.client.get("/v1/tasks", auth=auth).status_code


def _until(server: Running, auth: tuple[str, str], status: int) -> None:
    """Waits until the server has seen the change. Few tries: wrong ones are limited."""
    limit = time.monotonic() + CHANGE_LIMIT_S
    while _status(server, auth) != status:
        assert time.monotonic() < limit, f"the server did not see the change within {CHANGE_LIMIT_S:.0f} s"
        time.sleep(1)


def _tesk_user(path: Path, verb: str, name: str, given: str = "") -> None:
    stdin = ["--password-stdin"] if given else []
    command = [sys.executable, "-m", "tesk", "user", verb, "--users-file", str(path), *stdin, name]
    subprocess.run(command, input=given, text=True, check=True, timeout=300)


class TestProxies:
    @pytest.fixture(scope="class")
    def behind(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        chosen: dict[str, Any] = {"trusted_addresses": ("127.0.0.0/8",), "admin_groups": ("operators",)}
        with running(tmp_path_factory.mktemp("proxy"), **chosen) as started:
            yield started

    def test_the_word_of_a_trusted_one_counts(self, behind: Running) -> None:
        headers = {"X-Forwarded-User": "alice", "X-Forwarded-Groups": "lab-a,operators"}
        assert behind.client.get("/v1/tasks", headers=headers).status_code == 200

    @pytest.mark.parametrize("user", ["", "a b", "google:alice", "alice,root", "x" * 201])
    def test_a_name_that_could_be_another_s_does_not(self, behind: Running, user: str) -> None:
        assert behind.client.get("/v1/tasks", headers={"X-Forwarded-User": user}).status_code == 401

    def test_two_names_do_not(self, behind: Running) -> None:
        headers = [("X-Forwarded-User", "alice"), ("X-Forwarded-User", "root")]
        assert behind.client.get("/v1/tasks", headers=headers).status_code == 400

    def test_groups_without_a_name_do_not(self, behind: Running) -> None:
        assert behind.client.get("/v1/tasks", headers={"X-Forwarded-Groups": "operators"}).status_code == 401

    def test_a_real_one_asks_and_what_its_callers_say_of_themselves_goes_no_further(self, tmp_path: Path) -> None:
        chosen: dict[str, Any] = {"trusted_addresses": ("127.0.0.1/32",), "admins": ("root",)}
        said = {"X-Forwarded-User": "root", "X-Forwarded-Groups": "operators", "X-Forwarded-For": "192.0.2.9"}
        with running(tmp_path, **chosen) as server, signing_proxy(server.url, tmp_path, alice="pw") as url:
            assert httpx.get(f"{url}/v1/tasks", timeout=LIMIT_S).status_code == 401
            made = httpx.post(f"{url}/v1/tasks", json=TASK, auth=("alice", "pw"), headers=said, timeout=LIMIT_S)
            assert made.status_code == 200
        audit = [line for line in server.log_lines() if line["msg"] == "audit"]
        assert {(line["what"], line["user"]) for line in audit} == {("signed in", "alice"), ("created", "alice")}

    def test_the_word_of_anybody_else_is_ignored(self, tmp_path: Path) -> None:
        with running(tmp_path, trusted_addresses=("192.0.2.1/32",)) as server:
            headers = {"X-Forwarded-User": "alice", "X-Forwarded-For": "192.0.2.1"}
            answer = server.client.get("/v1/tasks", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"]


class TestTheLog:
    def test_the_audit_tells_who_did_what_whatever_the_level(self, tmp_path: Path) -> None:
        with running(tmp_path, users_file=str(users_file(tmp_path)), log_level="error") as server:
            made = server.client.post("/v1/tasks", json=TASK, auth=ALICE)
            task_id = made.json()["id"]
            server.client.get("/v1/tasks", auth=ALICE)
            server.client.post(f"/v1/tasks/{task_id}:cancel", json={}, auth=ALICE)
            server.client.post("/v1/tasks", json={}, auth=ALICE)
            server.client.get("/v1/tasks", auth=("alice", "wrong"))
        lines = [line for line in server.log_lines() if line["msg"] == "audit"]
        assert [(line["what"], line["user"], line.get("task")) for line in lines] == [
            ("signed in", "alice", None),
            ("created", "alice", task_id),
            ("cancelled", "alice", task_id),
            ("not let in", "", None),
        ]
        assert (lines[0]["way"], lines[0]["address"]) == ("basic", "127.0.0.1")
        assert lines[1]["id"] == made.headers["x-request-id"]

    def test_the_audit_tells_what_was_refused_to_whom_and_why(self, tmp_path: Path) -> None:
        foreign = TASK | {"tags": {"group": "lab-b"}}
        with running(tmp_path, users_file=str(users_file(tmp_path)), log_level="error") as server:
            made = server.client.post("/v1/tasks", json=foreign, auth=ALICE)
            assert made.status_code == 403
            token = server.client.post("/api/v1/tokens", json={"name": "n", "scopes": ["read"]}, auth=ALICE).json()
            bearer = {"Authorization": f"Bearer {token['token']}"}
            assert server.client.post("/v1/tasks", json=TASK, headers=bearer).status_code == 403
            assert server.client.get("/v1/tasks/0000000000000", auth=ALICE).status_code == 404
            assert server.client.get("/v1/tasks", auth=("alice", "wrong")).status_code == 401
        lines = [line for line in server.log_lines() if line["msg"] == "audit" and line["what"] == "refused"]
        assert [(line["user"], line["asked"], line.get("field")) for line in lines] == [
            ("alice", "POST /v1/tasks", "tags.group"),
            ("alice", "POST /v1/tasks", None),
        ]
        assert lines[0]["reason"] == made.json()["msg"]
        assert lines[0]["id"] == made.headers["x-request-id"]
        assert lines[1]["reason"] == "this credential is good for read; it needs submit"

    def test_no_credential_stands_in_it_nor_in_an_answer(self, tmp_path: Path) -> None:
        secret = "s3cr3t-of-somebody"
        sent: list[dict[str, Any]] = [
            {"headers": {"Authorization": f"Bearer {secret}"}},
            {"headers": {"Authorization": f"Bearer card:alice:{secret}"}},
            {"headers": {"Authorization": f"Basic {secret}"}},
            {"headers": {"Authorization": f"{secret} x"}},
            {"headers": {"X-API-Key": secret}},
            {"params": {"api_key": secret}},
            {"params": {"api_key": secret, "view": "NONE"}, "headers": card("alice")},
            {"auth": ("alice", secret)},
            {"auth": ("tesk", f"tesk_{secret}")},
        ]
        answers = b""
        with running(tmp_path, ways=[Cards()], users_file=str(users_file(tmp_path))) as server:
            for each in sent:
                for method, path in (("GET", "/v1/tasks"), ("POST", "/v1/tasks"), ("GET", "/none")):
                    answer = server.client.request(method, path, **each)
                    answers += repr(answer.headers).encode() + answer.content
        for hidden in (secret.encode(), b64encode(secret.encode())[:-4], b64encode(f"alice:{secret}".encode())[:-4]):
            assert hidden not in server.log_stream.getvalue()
            assert hidden not in answers
