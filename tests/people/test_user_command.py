"""`tesk user` as an administrator runs it, and the credentials that the other commands send."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tesk.server.people import users
from tests.api.conftest import Running, running
from tests.people.cards import Cards
from tests.people.test_ways import users_file

TESK = (sys.executable, "-m", "tesk")
PATIENT = """
import sys
from tesk.__main__ import main
from tesk.server.people import users
users.LOCK_LIMIT_S = 300
sys.exit(main())
"""
"""`tesk` on a busy machine."""
Done = subprocess.CompletedProcess[str]


def tesk(*arguments: str, given: str = "", **environment: str) -> Done:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TESK_")}
    return subprocess.run(
        [*TESK, *arguments], input=given, capture_output=True, text=True, timeout=300, env={**plain, **environment}
    )


def user(path: Path, verb: str, *arguments: str, given: str = "") -> Done:
    return tesk("user", verb, "--users-file", str(path), *arguments, given=given)


def fails(done: Done, said: str) -> None:
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


class TestUser:
    def test_add_list_and_remove(self, tmp_path: Path) -> None:
        path = tmp_path / "users.toml"
        chosen = ("--group", "lab-a", "--manages", "lab-a:imaging", "--shown", 'Alice "A." Ü', "--password-stdin")
        assert user(path, "add", *chosen, "alice", given="correct horse\n").returncode == 0
        assert user(path, "add", "--password-stdin", "bob", given="battery staple").returncode == 0
        assert json.loads(user(path, "list").stdout) == [
            {"name": "alice", "shown": 'Alice "A." Ü', "groups": ["lab-a"], "manages": ["lab-a:imaging"]},
            {"name": "bob", "shown": "", "groups": [], "manages": []},
        ]
        assert user(path, "list", "--table").stdout == 'alice  Alice "A." Ü  lab-a  lab-a:imaging (manages)\nbob\n'
        assert user(path, "remove", "alice").returncode == 0
        assert [each["name"] for each in json.loads(user(path, "list").stdout)] == ["bob"]

    def test_the_file_is_for_its_owner_and_has_no_password(self, tmp_path: Path) -> None:
        path = tmp_path / "users.toml"
        user(path, "add", "--password-stdin", "alice", given="correct horse\n")
        assert path.stat().st_mode & 0o777 == 0o600
        assert "correct horse" not in path.read_text()
        path.chmod(0o640)
        user(path, "password", "--password-stdin", "alice", given="battery staple\n")
        assert path.stat().st_mode & 0o777 == 0o640
        assert [each.name for each in tmp_path.iterdir()] == ["users.toml"]

    def test_the_password_is_asked_for_twice_and_not_shown(self, tmp_path: Path) -> None:
        path = tmp_path / "users.toml"
        ours, theirs = pty.openpty()
        command = [*TESK, "user", "add", "--users-file", str(path), "alice"]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
            os.close(theirs)
            shown = b""
            for word in (b"Password of alice", b"Repeat for confirmation"):
                while word not in shown:
                    shown += os.read(ours, 1024)
                os.write(ours, b"correct horse\n")
            assert process.wait(300) == 0
        os.close(ours)
        assert b"correct horse" not in shown
        assert users.read(path).keys() == {"alice"}

    def test_what_cannot_be_meant_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        path = users_file(tmp_path)
        before = path.read_bytes()
        stdin = "--password-stdin"
        fails(user(path, "add", stdin, "alice", given="correct horse\n"), "there is a user alice already")
        fails(user(path, "add", stdin, "a:b", given="correct horse\n"), "is no name of a user")
        fails(user(path, "add", stdin, "--group", "a b", "carol", given="correct horse\n"), "is no name of a group")
        fails(user(path, "add", stdin, "carol", given="short\n"), "at least 8 characters")
        fails(user(path, "remove", "carol"), "there is no user carol")
        fails(user(path, "password", stdin, "carol", given="correct horse\n"), "there is no user carol")
        fails(user(tmp_path / "absent" / "users.toml", "list"), "cannot be read")
        assert path.read_bytes() == before

    def test_changes_at_once_lose_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "users.toml"
        command = [sys.executable, "-c", PATIENT, "user", "add", "--users-file", str(path), "--password-stdin"]
        adding = [subprocess.Popen([*command, f"user-{n}"], stdin=subprocess.PIPE, text=True) for n in range(6)]
        for each in adding:
            each.communicate("correct horse\n", timeout=300)
        assert [each.returncode for each in adding] == [0] * 6
        assert users.read(path).keys() == {f"user-{n}" for n in range(6)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("commands")
    with running(folder, ways=[Cards()], users_file=str(users_file(folder))) as started:
        yield started


class TestCredentials:
    def test_the_commands_sign_in_with_a_token_of_the_environment_or_a_file(
        self, server: Running, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("card:alice\n")
        file = str(tmp_path / "token")
        assert tesk("list", "--server", server.url, TESK_TOKEN="card:alice").returncode == 0
        assert tesk("list", "--server", server.url, "--token-file", file, TESK_TOKEN="wrong").returncode == 0
        assert tesk("list", "--server", server.url, TESK_TOKEN_FILE=file).returncode == 0

    def test_a_user_and_password_in_the_url_come_first(self, server: Running) -> None:
        url = server.url.replace("http://", "http://alice:correct%20horse@")
        assert tesk("list", TESK_SERVER=url, TESK_TOKEN="wrong").returncode == 0

    def test_without_a_credential_the_reason_is_the_servers(self, server: Running) -> None:
        fails(tesk("list", "--server", server.url), "sign in; ways in: basic, token, card (401)")
        fails(tesk("list", "--server", server.url, TESK_TOKEN="two words"), "TESK_TOKEN: this is no token")
        fails(tesk("list", "--server", server.url, "--token-file", "/nowhere"), "--token-file /nowhere: No such file")

    def test_a_redirect_does_not_take_the_token_elsewhere(self) -> None:
        seen: list[str | None] = []

        class Elsewhere(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers["Authorization"])
                body = b'{"tasks": []}'
                self.send_response(200 if "elsewhere" in self.path else 302)
                self.send_header("Location", f"http://localhost:{listening.server_port}/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as listening:
            threading.Thread(target=listening.serve_forever, daemon=True).start()
            done = tesk("list", "--server", f"http://127.0.0.1:{listening.server_port}", TESK_TOKEN="card:alice")
            listening.shutdown()
        assert (done.returncode, seen) == (0, ["Bearer card:alice", None])
