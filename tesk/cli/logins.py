"""What `tesk login` leaves: for each server a file with the tokens, in the user's own folder, which nobody else reads.

The access token lives an hour or so, and the provider gives a new one for the refresh token, which it may change with
each use. So one command at a time renews a login: the others wait and take what that one has written.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from tesk.cli.provider import IssuedTokens

RENEW_S: Final = 60.0
"""A token that lives no longer is renewed before it is used."""
LOCK_S: Final = 30.0
_PORTS: Final = {"http": 80, "https": 443}


class KeptLogin(NamedTuple):
    """A user's sign-in to a server by an issuer. `ends` is when the access token does, in seconds of the epoch."""

    server: str
    issuer: str
    client_id: str
    resource: str
    token_endpoint: str
    revocation_endpoint: str
    access_token: str
    refresh_token: str
    ends: float

    def renewed(self, tokens: "IssuedTokens") -> "KeptLogin":
        """With new tokens. A provider that names no new refresh token goes on with the old one."""
        return self._replace(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or self.refresh_token,
            ends=time.time() + tokens.expires_in,
        )


def server_of(url: str) -> str:
    """The server that a URL means: scheme, host, port and what the API is below, written in one way."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    path = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/ga4gh/tes")
    return f"{parts.scheme}://{host}{port}{path}"


def stored_credential(url: str) -> str:
    """The access token for the server of this URL, renewed if need be; empty where nobody signed in to it.

    Raises click.ClickException where the sign-in has ended, or its file cannot be read.
    """
    server = server_of(url)
    login = read(server)
    if login is None:
        return ""
    if login.ends - time.time() < RENEW_S:
        with _lock(server):
            login = read(server) or login  # another command may have renewed it meanwhile
            if login.ends - time.time() < RENEW_S:
                login = _renew(login)
    return login.access_token


def read(server: str) -> KeptLogin | None:
    """None where nobody signed in to the server; also where the home is another user's, or there is none."""
    try:
        path = _path(server)
        login = KeptLogin(**json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, PermissionError, RuntimeError):
        return None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise click.ClickException(f"{path}: this is no sign-in of this version; run `tesk login {server}`") from None
    return login if login.server == server else None


def keep(login: KeptLogin) -> None:
    """Writes the login whole or not at all, readable by its user alone."""
    path = _path(login.server)
    beside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(login._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from None


def forget(server: str) -> None:
    _path(server).unlink(missing_ok=True)


def _renew(login: KeptLogin) -> KeptLogin:
    from tesk.cli.provider import IssuedTokens, ProviderAwayError, ProviderError, post

    again = f"run `tesk login {login.server}`"
    if not login.refresh_token:
        if login.ends > time.time():
            return login
        raise click.ClickException(f"the sign-in to {login.server} has ended; {again}")
    form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": login.client_id}
    if login.resource:
        form["resource"] = login.resource
    try:
        renewed = login.renewed(IssuedTokens.of(post(login.token_endpoint, form)))
    except ProviderAwayError as error:
        if login.ends > time.time():
            return login
        raise click.ClickException(f"the sign-in to {login.server} could not be renewed: {error}; try again") from None
    except ProviderError as error:
        raise click.ClickException(f"the sign-in to {login.server} has ended ({error}); {again}") from None
    keep(renewed)
    return renewed


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "tesk" / "logins"


def _path(server: str) -> Path:
    return folder() / f"{hashlib.sha256(server.encode()).hexdigest()[:32]}.json"


@contextlib.contextmanager
def _lock(server: str) -> Iterator[None]:
    """Held by one command at a time, and by none for longer than it lives."""
    path = _path(server).with_suffix(".lock")
    file: Any = None
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + LOCK_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > until:
                raise click.ClickException(f"{path}: another command has held this for {LOCK_S:.0f} s; try again")
            time.sleep(0.05)
        yield
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    finally:
        if file is not None:
            os.close(file)
