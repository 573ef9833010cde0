"""The stores of `scripts/bench staging`: a real server over a folder, and the tool that each is compared with."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from tests.servers.ftp import plain_vsftpd
from tests.servers.nginx import nginx
from tests.servers.process import program
from tests.servers.s3 import s3_server
from tests.servers.sshd import sshd

S5CMD_VERSION = "v2.3.0"
FILE_LIMIT = 1.3
"""The speed of cp, and the start of an interpreter (60 ms), which shows where a copy goes at 4 GB/s."""


class Case(NamedTuple):
    name: str
    is_large: bool
    is_down: bool


LARGE_DOWN = Case("1 GB down", True, True)
LARGE_UP = Case("1 GB up", True, False)
SMALL_DOWN = Case("2,000 of 100 kB down", False, True)
SMALL_UP = Case("2,000 of 100 kB up", False, False)
CASES = (LARGE_DOWN, LARGE_UP, SMALL_DOWN, SMALL_UP)


class Command(Protocol):
    """Moves `data/large` or `data/small` to the URL, or what is there to `here`, with another tool."""

    def __call__(self, url: str, data: Path, here: Path) -> list[str]: ...


Serve = Callable[[Path], AbstractContextManager[tuple[str, dict[str, str]]]]


class Store(NamedTuple):
    """`lists`: a directory is one input; else each of its files is."""

    name: str
    tool: str
    serve: Serve
    commands: Mapping[Case, Command]
    limits: Mapping[Case, float]
    lists: bool = True


def cached(*parts: str) -> Path:
    """A folder below the cache that scripts/ensure fills."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(cache, "tesk", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with s3_server(folder) as server:
        yield "s3://bench", {**server.environment(), "S3_ENDPOINT_URL": server.url}


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Processes that are started here keep to the first core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def _web(folder: Path, *, ranges: bool = True) -> Iterator[tuple[str, dict[str, str]]]:
    """On one core, as it is one process: else it and a client share one in some runs, whichever the client is."""
    with contextlib.ExitStack() as stack:
        with _one_core():
            url = stack.enter_context(nginx(folder, listing="dav", ranges=ranges))
        yield f"{url}/bench", {}


@contextlib.contextmanager
def _plain_web(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with _web(folder, ranges=False) as served:
        yield served


@contextlib.contextmanager
def _ftp(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with plain_vsftpd(folder) as url:
        yield f"{url}/bench", {}


@contextlib.contextmanager
def _sftp(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """With a home beside the folder that has the key and knows the host."""
    with sshd() as server:
        home = folder.parent / "home"
        server.settle(home)
        yield f"{server.url}{folder}/bench", {"HOME": str(home)}


def _scp(url: str, home: Path, *words: str) -> list[str]:
    """OpenSSH's client, which speaks SFTP since 9.0; `URL` among the words stands for the other side."""
    parts = urlsplit(url)
    there = f"{parts.username}@{parts.hostname}:{parts.path}"
    ssh = home / ".ssh"
    options = [f"-oUserKnownHostsFile={ssh}/known_hosts", "-oIdentitiesOnly=yes", "-F", "none", "-s", "-q"]
    return [
        "scp",
        "-i",
        f"{ssh}/id_ed25519",
        "-P",
        str(parts.port),
        *options,
        *(w.replace("URL", there) for w in words),
    ]


SCP: Mapping[Case, Command] = {
    LARGE_DOWN: lambda url, data, here: _scp(url, data.parent / "home", "URL/large", str(here)),
    LARGE_UP: lambda url, data, here: _scp(url, data.parent / "home", str(data / "large"), "URL/large"),
    SMALL_DOWN: lambda url, data, here: _scp(url, data.parent / "home", "-r", "URL/small", str(here)),
    SMALL_UP: lambda url, data, here: _scp(url, data.parent / "home", "-r", str(data / "small"), "URL"),
}


@contextlib.contextmanager
def _file(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    yield str(folder / "bench"), {}


def _s5cmd(*words: str) -> list[str]:
    tool = cached(f"s5cmd-{S5CMD_VERSION}") / "s5cmd"
    return [program("s5cmd", tool), "--log", "error", *words]


def _curl_each(url: str, data: Path, here: Path, *, up: bool = False) -> list[str]:
    """One process of curl for all files, on kept connections, in parallel."""
    words = ["curl", "-sSf", "--parallel", "--parallel-max", "8", "--ftp-create-dirs"]
    for name in sorted(os.listdir(data / "small")):
        there = f"{url}/small/{name}"
        words += ["-T", str(data / "small" / name), there] if up else ["-o", str(here / "small" / name), there]
    return words


CURL: Mapping[Case, Command] = {
    LARGE_DOWN: lambda url, data, here: ["curl", "-sSf", "-o", str(here / "large"), f"{url}/large"],
    LARGE_UP: lambda url, data, here: ["curl", "-sSf", "-T", str(data / "large"), f"{url}/large"],
    SMALL_DOWN: _curl_each,
    SMALL_UP: lambda url, data, here: _curl_each(url, data, here, up=True),
}

STORES = {
    "s3": Store(
        "s3",
        "s5cmd",
        _s3,
        {
            LARGE_DOWN: lambda url, data, here: _s5cmd("cp", f"{url}/large", str(here / "large")),
            LARGE_UP: lambda url, data, here: _s5cmd("cp", str(data / "large"), f"{url}/large"),
            SMALL_DOWN: lambda url, data, here: _s5cmd("cp", f"{url}/small/*", f"{here}/small/"),
            SMALL_UP: lambda url, data, here: _s5cmd("cp", f"{data}/small/", f"{url}/small/"),
        },
        {LARGE_DOWN: 1.2, LARGE_UP: 1.05, SMALL_DOWN: 1.1, SMALL_UP: 1.1},
    ),
    "http": Store("http", "curl", _web, CURL, {LARGE_DOWN: 0.6, LARGE_UP: 0.9}),
    "http-no-ranges": Store(
        "http without ranges", "curl", _plain_web, {LARGE_DOWN: CURL[LARGE_DOWN]}, {LARGE_DOWN: 0.9}
    ),
    "ftp": Store("ftp", "curl", _ftp, CURL, {LARGE_DOWN: 0.6, LARGE_UP: 0.9}),
    "sftp": Store("sftp", "scp", _sftp, SCP, {LARGE_DOWN: 1.2, LARGE_UP: 1.2}),
    "file": Store(
        "file",
        "cp",
        _file,
        {
            LARGE_DOWN: lambda url, data, here: ["cp", f"{url}/large", str(here)],
            LARGE_UP: lambda url, data, here: ["cp", str(data / "large"), url],
            SMALL_DOWN: lambda url, data, here: ["cp", "-r", f"{url}/small", str(here)],
            SMALL_UP: lambda url, data, here: ["cp", "-r", str(data / "small"), url],
        },
        {LARGE_DOWN: FILE_LIMIT, LARGE_UP: FILE_LIMIT},
    ),
}
