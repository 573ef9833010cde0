"""The two servers that are compared, each a process with a database of its own; ended with its context manager."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.api_seed import group, user
from tesk.server.people.passwords import hashed
from tests.servers.process import free_port

PASSWORD = "correct horse"
ADMIN = "admin"
USERS: dict[str, list[str]] = {ADMIN: [], "alice": [], user(77): [], user(177): [group(177)]}
PREFIX = "/ga4gh/tes/v1"
START_LIMIT_S = 60


class Running(NamedTuple):
    """A server that answers at `url`; `started_s` is the time from its start to its first answer."""

    name: str
    url: str
    process: int
    started_s: float
    authorization: str = ""
    """What requests are sent with; empty where nobody signs in."""

    def signed_in(self, user: str) -> "Running":
        """The same, as that user asks it."""
        return self._replace(authorization=f"Basic {b64encode(f'{user}:{PASSWORD}'.encode()).decode()}")

    def memory_mib(self) -> tuple[float, float]:
        """Resident memory, all and without the pages of files (which the kernel may drop)."""
        status = Path(f"/proc/{self.process}/status").read_text()
        sizes = {line.split()[0]: float(line.split()[1]) / 1024 for line in status.splitlines() if line.endswith(" kB")}
        return sizes["VmRSS:"], sizes["RssAnon:"]


def tesk(database_url: str, environment: Mapping[str, str] | None = None) -> contextlib.AbstractContextManager[Running]:
    return _running("tesk", [sys.executable, "-m", "bench.api_serve", database_url], None, environment)


@contextlib.contextmanager
def tesk_with_users(database_url: str, folder: Path) -> Iterator[Running]:
    """With the way in `basic`; asked by alice unless another signs in."""
    users, word = folder / "users.toml", hashed(PASSWORD)
    users.write_text(
        "".join(f'["{name}"]\npassword = "{word}"\ngroups = {json.dumps(groups)}\n' for name, groups in USERS.items())
    )
    command = [sys.executable, "-m", "bench.api_serve", database_url, str(users)]
    with _running("tesk with users", command, None, None) as server:
        yield server.signed_in("alice")


def tesk_serve(data: Path) -> contextlib.AbstractContextManager[Running]:
    """The very command that users run, with a fresh database."""
    return _running(
        "tesk serve", [sys.executable, "-m", "tesk", "serve", "--data", str(data), "--port", "0"], None, None
    )


def prototype(
    database: str, environment: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[Running]:
    return _uvicorn("prototype", "bench.proto.app:app", {**(environment or {}), "PROTO_DATABASE": database})


def bare() -> contextlib.AbstractContextManager[Running]:
    """The interpreter with the server library that tesk uses, and nothing else."""
    return _uvicorn("uvicorn", "bench.proto.bare:app", {})


def _uvicorn(name: str, app: str, environment: Mapping[str, str]) -> contextlib.AbstractContextManager[Running]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return _running(name, command, f"http://127.0.0.1:{port}", environment)


@contextlib.contextmanager
def _running(
    name: str, command: list[str], url: str | None, environment: Mapping[str, str] | None
) -> Iterator[Running]:
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
        try:
            url = url or _said(child)
            if url is None or not _answers(url, child):
                errors.seek(0)
                raise SystemExit(f"{name} did not start: {errors.read().decode(errors='replace')[-2000:]}")
            yield Running(name, url, child.pid, time.monotonic() - began)
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _said(child: "subprocess.Popen[bytes]") -> str | None:
    """The URL from the line `server: URL`."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(b"server: "):
            return line.decode().split()[1]
    return None


def _answers(url: str, child: "subprocess.Popen[bytes]") -> bool:
    parts = urlsplit(url)
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit and child.poll() is None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", f"{PREFIX}/service-info")
            return connection.getresponse().status == 200
        time.sleep(0.005)
    return False
