"""`tesk login`, as its user sees it: a real provider, a real server, and a person who signs in at the provider."""

import json
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.api.conftest import Running, running
from tests.oidc.login import change, file, log_in, tesk
from tests.oidc.test_server import issuers_file
from tests.servers.oidc_provider import OidcProvider

Tesk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(running_provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("login")
    with running(folder, issuers=str(issuers_file(folder, running_provider)), tokens="never") as started:
        yield started


@pytest.fixture
def run(server: Running, tmp_path: Path) -> Tesk:
    """Runs tesk for a user who has `tmp_path` as home."""
    return lambda *arguments: tesk(server.url, tmp_path, *arguments)


@pytest.mark.parametrize("arguments", [(), ("--browser",)])
def test_after_a_login_every_command_uses_the_token(
    provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk, arguments: tuple[str, ...]
) -> None:
    assert run("list").returncode == 1
    said = log_in(server.url, tmp_path, *arguments)
    assert said == f"signed in to {server.url} as lab:alice\n"
    assert run("list").returncode == 0
    who = json.loads(run("whoami").stdout)
    assert (who["user"], who["way"]) == ("lab:alice", "oidc")
    assert run("whoami", "--server", f"{server.url}/ga4gh/tes/v1/").returncode == 0


def test_the_token_is_for_its_user_alone(provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk) -> None:
    log_in(server.url, tmp_path, "--browser")
    path = file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.suffix for each in path.parent.iterdir()] == [".json"]
    token = json.loads(path.read_text())["access_token"]
    done = run("whoami", "--table")
    assert token not in done.stdout + done.stderr


def test_the_token_goes_to_the_server_alone_that_it_was_got_for(
    provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk
) -> None:
    log_in(server.url, tmp_path, "--browser")
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other", log_level="debug") as other:
        assert json.loads(run("whoami", "--server", other.url).stdout)["user"] == ""


def test_a_token_that_ends_soon_is_renewed_once_by_many_commands_at_once(
    provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk
) -> None:
    log_in(server.url, tmp_path, "--browser")
    before = change(tmp_path, ends=time.time() + 30)
    provider.calls()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run("whoami"), range(4)))
    assert [each.returncode for each in done] == [0] * 4, done
    assert provider.calls()["/token"] == 1
    after = json.loads(file(tmp_path).read_text())
    assert after["access_token"] != before["access_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert after["ends"] > time.time() + 600


def test_a_sign_in_that_the_provider_ended_says_what_to_do(
    provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk
) -> None:
    log_in(server.url, tmp_path, "--browser")
    change(tmp_path, ends=time.time() - 1, refresh_token="revoked")
    done = run("list")
    assert done.returncode == 1
    assert f"the sign-in to {server.url} has ended" in done.stderr
    assert f"run `tesk login {server.url}`" in done.stderr


def test_while_the_provider_is_away_a_token_that_still_holds_is_used(
    provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk
) -> None:
    log_in(server.url, tmp_path, "--browser")
    assert run("whoami").returncode == 0
    provider.set(status=503)
    for _ in range(5):
        soon = change(tmp_path, ends=time.time() + 55)["ends"]
        done = run("whoami")
        if time.time() < soon:
            break
    assert done.returncode == 0, done.stderr
    change(tmp_path, ends=time.time() - 1)
    done = run("whoami")
    assert done.returncode == 1
    assert "could not be renewed" in done.stderr


def test_logout_forgets_the_token_and_has_it_revoked(
    provider: OidcProvider, server: Running, tmp_path: Path, run: Tesk
) -> None:
    log_in(server.url, tmp_path, "--browser")
    provider.calls()
    assert run("logout").stderr == f"signed out of {server.url}\n"
    assert provider.calls()["/token/revocation"] == 1
    assert run("list").returncode == 1
    assert run("logout").stderr == f"nobody is signed in to {server.url}\n"


def test_a_token_that_the_server_does_not_take_is_not_kept(
    provider: OidcProvider, server: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    issuers = issuers_file(folder, provider)
    issuers.write_text(issuers.read_text() + 'required_groups = ["lab-b"]\n')
    with running(folder, issuers=str(issuers), tokens="never") as strict, pytest.raises(AssertionError, match="lab-b"):
        log_in(server.url, tmp_path, "--browser", strict.url)
    assert not list(tmp_path.glob("tesk/logins/*.json"))


def test_a_server_without_issuers_says_what_ways_it_has(server: Running, tmp_path: Path, run: Tesk) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    with running(folder) as plain:
        done = run("login", plain.url)
    assert done.returncode == 1
    assert "no issuer that `tesk login` can use" in done.stderr
