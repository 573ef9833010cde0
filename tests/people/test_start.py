"""Whether a server starts: never where nobody knows who could call it, and as fast as ever where nobody signs in."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.server.people.passwords import hashed
from tesk.server.people.way import PeopleError
from tesk.server.people.ways import check, ways_in
from tesk.settings import Settings
from tests.servers.cluster import until

USERS = {"users_file": "users.toml"}
PROXY = {"trusted_addresses": ("10.0.0.7/32",)}
OPEN = "whoever reaches .* could run anything"


@pytest.mark.parametrize(
    ("settings", "bound_to", "refused"),
    [
        ({}, "127.0.0.1", ""),
        ({}, "::1", ""),
        ({}, "0.0.0.0", OPEN),
        ({}, "::", OPEN),
        ({}, "192.0.2.1", OPEN),
        ({"tokens": "beside"}, "192.0.2.1", OPEN),  # nobody could make one
        ({"anyone": True}, "0.0.0.0", ""),
        (USERS, "0.0.0.0", ""),
        ({"issuers": "issuers.toml"}, "0.0.0.0", ""),
        (PROXY, "0.0.0.0", ""),
        ({"anyone": True, **USERS}, "127.0.0.1", r"people\.anyone lets everybody in, whatever people\.users_file says"),
        ({"anyone": True, **PROXY}, "0.0.0.0", r"whatever people\.trusted_addresses says"),
        ({"trusted_addresses": ("0.0.0.0/0",)}, "127.0.0.1", r"trusted_addresses: 0\.0\.0\.0/0: everybody could say"),
        ({"trusted_addresses": ("::/0",)}, "127.0.0.1", "everybody could say"),
        ({"trusted_addresses": ("proxy.example.org",)}, "127.0.0.1", "trusted_addresses: 'proxy.example.org'"),
        ({"trusted_addresses": ("10.0.0.7/8",)}, "127.0.0.1", "trusted_addresses: 10.0.0.7/8 has host bits set"),
        ({"admins": ("alice",)}, "127.0.0.1", r"people\.admins names people, but there is no way in"),
        ({"admin_groups": ("ops",)}, "127.0.0.1", r"people\.admin_groups names people"),
    ],
)
def test_a_configuration_that_lets_the_world_in_is_refused_by_name(
    settings: dict[str, Any], bound_to: str, refused: str
) -> None:
    with pytest.raises(PeopleError, match=refused) if refused else contextlib.nullcontext():
        check(Settings(**settings), bound_to)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ()),
        ({"anyone": True}, ()),
        (USERS, ("basic", "token")),
        ({**USERS, "tokens": "never"}, ("basic",)),
        ({"tokens": "alone"}, ("token",)),
        ({**PROXY, **USERS, "issuers": "i"}, ("basic", "oidc", "proxy", "token")),
    ],
)
def test_the_ways_in_are_those_that_are_set(settings: dict[str, Any], names: tuple[str, ...]) -> None:
    assert ways_in(Settings(**settings)) == names


def serve(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tesk", "serve", "--data", str(folder), "--port", "0", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TESK_")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """The URL of a real server."""
    with serve(folder, *arguments) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("server: "), process.stderr and process.stderr.read()
            yield line.split()[1]
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "could run anything"),
        (("--users-file", "/nowhere/users.toml"), "/nowhere/users.toml: cannot be read: No such file or directory"),
        (("--anyone", "true", "--users-file", "x"), "leave one of them out"),
    ],
)
def test_the_command_says_why_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    _, errors = (process := serve(tmp_path, *arguments)).communicate(timeout=300)
    assert process.returncode == 1
    assert said in errors
    assert errors.startswith("tesk serve: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[alice", "not TOML"),
        ('[alice]\npassword = "plain"', "alice: password is no argon2 hash"),
        ("[alice]\n", "missing required field `password`"),
        ("[alice]\npasswort = 1\n", "alice"),
        (f'["a:b"]\npassword = "{hashed("x")}"', "'a:b' is no name of a user"),
        (f'[alice]\npassword = "{hashed("x")}"\ngroups = ["a b"]', "'a b' is no name of a group"),
    ],
)
def test_a_file_of_users_that_cannot_be_used_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(content)
    _, errors = (process := serve(tmp_path, "--users-file", str(path))).communicate(timeout=300)
    assert process.returncode == 1
    assert f"tesk serve: {path}: " in errors
    assert said in errors


def test_a_server_that_others_reach_starts_with_a_way_in(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    path.write_text(f'[alice]\npassword = "{hashed("correct horse")}"\n')
    with serving(tmp_path, "--host", "0.0.0.0", "--users-file", str(path)) as url:
        tasks = f"{url.replace('0.0.0.0', '127.0.0.1')}/v1/tasks"
        assert httpx.get(tasks, timeout=300).status_code == 401

        def signed_in() -> int:
            """503 says that the machine is too busy to check a password in time."""
            found = httpx.get(tasks, auth=("alice", "correct horse"), timeout=300).status_code
            return 0 if found == 503 else found

        assert until(signed_in, what="an answer to who signs in") == 200


IMPORTED = """
import sys
from tesk.server.people.ways import edge_of
from tesk.server import run
from tesk.settings import Settings
assert edge_of(Settings(anyone=True), None, None) is None
print(sorted(name for name in sys.modules if name.startswith(("tesk.server.people.", "argon2"))))
"""


def test_without_a_way_in_nothing_of_them_is_imported() -> None:
    found = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True, timeout=300)
    light = ["audit", "sharing", "way", "ways", "whoami"]
    assert found.stdout.strip() == str([f"tesk.server.people.{name}" for name in light])
