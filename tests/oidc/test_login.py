"""`tesk login`, as its user sees it: a real provider, a real server, and a person who signs in at the provider."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Running, running
from tests.oidc.test_server import issuers_file
from tests.servers.oidc_provider import OidcProvider, sign_in

TESK = (sys.executable, "-m", "tesk")
Done = subprocess.CompletedProcess[str]
Tesk = Callable[..., Done]


@pytest.fixture(scope="module")
def server(running_provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("login")
    with running(folder, issuers=str(issuers_file(folder, running_provider)), tokens=False) as started:
        yield started


@pytest.fixture
def environment(server: Running, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TESK_")}
    return {**kept, "TESK_SERVER": server.url, "XDG_CONFIG_HOME": str(tmp_path), "BROWSER": "true"}


@pytest.fixture
def tesk(environment: dict[str, str]) -> Tesk:
    def run(*arguments: str) -> Done:
        return subprocess.run([*TESK, *arguments], capture_output=True, text=True, timeout=120, env=environment)

    return run


def login(environment: dict[str, str], *arguments: str) -> str:
    """Runs `tesk login` and signs in as alice where it says; what it wrote last."""
    command = [*TESK, "login", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        line = process.stderr.readline()
        found = re.match(r"open (\S+)", line)
        assert found, line + process.stderr.read()
        sign_in(found[1], {"login": "alice", "password": "any"})
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    return rest


def _file(environment: dict[str, str]) -> Path:
    (path,) = Path(environment["XDG_CONFIG_HOME"], "tesk", "logins").glob("*.json")
    return path


def _change(environment: dict[str, str], **changes: Any) -> dict[str, Any]:
    path = _file(environment)
    document: dict[str, Any] = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document))
    return document


@pytest.mark.parametrize("arguments", [(), ("--browser",)])
def test_after_a_login_every_command_uses_the_token(
    provider: OidcProvider, server: Running, environment: dict[str, str], tesk: Tesk, arguments: tuple[str, ...]
) -> None:
    assert tesk("list").returncode == 1
    said = login(environment, *arguments)
    assert said == f"signed in to {server.url} as lab:alice\n"
    assert tesk("list").returncode == 0
    who = json.loads(tesk("whoami").stdout)
    assert (who["user"], who["way"]) == ("lab:alice", "oidc")
    assert tesk("whoami", "--server", f"{server.url}/ga4gh/tes/v1/").returncode == 0


def test_the_token_is_for_its_user_alone(provider: OidcProvider, environment: dict[str, str], tesk: Tesk) -> None:
    login(environment, "--browser")
    path = _file(environment)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.suffix for each in path.parent.iterdir()] == [".json"]
    token = json.loads(path.read_text())["access_token"]
    done = tesk("whoami", "--table")
    assert token not in done.stdout + done.stderr


def test_the_token_goes_to_the_server_alone_that_it_was_got_for(
    provider: OidcProvider, environment: dict[str, str], tesk: Tesk, tmp_path: Path
) -> None:
    login(environment, "--browser")
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other", log_level="debug") as other:
        assert json.loads(tesk("whoami", "--server", other.url).stdout)["user"] == ""


def test_a_token_that_ends_soon_is_renewed_once_by_many_commands_at_once(
    provider: OidcProvider, environment: dict[str, str], tesk: Tesk
) -> None:
    login(environment, "--browser")
    before = _change(environment, ends=time.time() + 30)
    provider.calls()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: tesk("whoami"), range(4)))
    assert [each.returncode for each in done] == [0] * 4, done
    assert provider.calls()["/token"] == 1
    after = json.loads(_file(environment).read_text())
    assert after["access_token"] != before["access_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert after["ends"] > time.time() + 600


def test_a_sign_in_that_the_provider_ended_says_what_to_do(
    provider: OidcProvider, server: Running, environment: dict[str, str], tesk: Tesk
) -> None:
    login(environment, "--browser")
    _change(environment, ends=time.time() - 1, refresh_token="revoked")
    done = tesk("list")
    assert done.returncode == 1
    assert f"the sign-in to {server.url} has ended" in done.stderr
    assert f"run `tesk login {server.url}`" in done.stderr


def test_while_the_provider_is_away_a_token_that_still_holds_is_used(
    provider: OidcProvider, environment: dict[str, str], tesk: Tesk
) -> None:
    login(environment, "--browser")
    assert tesk("whoami").returncode == 0
    _change(environment, ends=time.time() + 50)
    provider.set(status=503)
    assert tesk("whoami").returncode == 0
    _change(environment, ends=time.time() - 1)
    done = tesk("whoami")
    assert done.returncode == 1
    assert "could not be renewed" in done.stderr


def test_logout_forgets_the_token_and_has_it_revoked(
    provider: OidcProvider, server: Running, environment: dict[str, str], tesk: Tesk
) -> None:
    login(environment, "--browser")
    provider.calls()
    assert tesk("logout").stderr == f"signed out of {server.url}\n"
    assert provider.calls()["/token/revocation"] == 1
    assert tesk("list").returncode == 1
    assert tesk("logout").stderr == f"nobody is signed in to {server.url}\n"


def test_a_token_that_the_server_does_not_take_is_not_kept(
    provider: OidcProvider, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    file = issuers_file(folder, provider)
    file.write_text(file.read_text() + 'required_groups = ["lab-b"]\n')
    with running(folder, issuers=str(file), tokens=False) as strict, pytest.raises(AssertionError, match="lab-b"):
        login(environment, "--browser", strict.url)
    assert not list(Path(environment["XDG_CONFIG_HOME"]).glob("tesk/logins/*.json"))


def test_a_server_without_issuers_says_what_ways_it_has(
    environment: dict[str, str], tesk: Tesk, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    with running(folder) as plain:
        done = tesk("login", plain.url)
    assert done.returncode == 1
    assert "no issuer that `tesk login` can use" in done.stderr
