"""A real PostgreSQL for tests: a throw-away cluster on a free loopback port, gone with its context manager.

PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`. It dies with this process, even when that
is killed.
"""

import contextlib
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.known_secrets import known
from tests.servers.process import free_port, program

START_LIMIT_S = 300
PASSWORD = known("the password of the database", "s3cret-of-the-tests")
PR_SET_PDEATHSIG = 1
_numbers = itertools.count(1)


class Postgres(NamedTuple):
    """A running cluster; its superuser is `tesk`."""

    port: int
    data: Path
    process: int

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://tesk:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.psql(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def psql(self, sql: str, url: str | None = None) -> str:
        """What the statement answers, unadorned."""
        command = [program_path("psql"), url or self.url(), "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.strip()

    @contextlib.contextmanager
    def holding(self, sql: str, url: str) -> Iterator[None]:
        """A transaction that begins with the statement and ends with this context manager."""
        command = [program_path("psql"), url, "-qAtX", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as holder:
            assert holder.stdin is not None
            holder.stdin.write(f"BEGIN; {sql};\n")
            holder.stdin.flush()
            try:
                yield
            finally:
                holder.kill()


@contextlib.contextmanager
def postgres(
    *, durable: bool = False, settings: Mapping[str, str] | None = None, preload: str = ""
) -> Iterator[Postgres]:
    """Runs a cluster of its own. `durable` leaves fsync on; `preload` is a library for LD_PRELOAD."""
    folder = Path(tempfile.mkdtemp(prefix="tesk-postgres-"))
    user = _user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        data = folder / "data"
        _initialise(data, folder, user)
        port = free_port()
        chosen = {"fsync": "on" if durable else "off", "listen_addresses": "127.0.0.1", "port": str(port)}
        chosen |= {"unix_socket_directories": "", "logging_collector": "off", **(settings or {})}
        with _running(data, folder / "log", chosen, user, preload) as process:
            yield Postgres(port, data, process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(data: Path, folder: Path, user: pwd.struct_passwd | None) -> None:
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    command = [program_path("initdb"), "-D", str(data), "-U", "tesk", "-A", "scram-sha-256", f"--pwfile={password}"]
    command += ["-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, user=_name(user), check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"initdb failed: {done.stderr}")


@contextlib.contextmanager
def _running(
    data: Path, log: Path, settings: Mapping[str, str], user: pwd.struct_passwd | None, preload: str
) -> Iterator[int]:
    command = [program_path("postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    environment = {**os.environ, "LD_PRELOAD": preload} if preload else None
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            user=_name(user),
            preexec_fn=_die_with_parent,
        )
    try:
        _await(child, settings["port"], log)
        yield child.pid
    finally:
        child.send_signal(signal.SIGQUIT)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await(child: subprocess.Popen[bytes], port: str, log: Path) -> None:
    command = [program_path("pg_isready"), "-q", "-h", "127.0.0.1", "-p", port]
    for _ in range(START_LIMIT_S * 20):
        if child.poll() is not None:
            break
        if subprocess.run(command, timeout=300, check=False).returncode == 0:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)
    raise AssertionError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")


def program_path(name: str) -> str:
    """The newest PostgreSQL of the distribution, else the one in PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: -float(path.parts[4]))
    return program(name, *installed)


def _user() -> pwd.struct_passwd | None:
    """Who runs it when we are root, else None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")


def _name(user: pwd.struct_passwd | None) -> str | None:
    return None if user is None else user.pw_name


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
