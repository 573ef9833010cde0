"""A real `tesk serve` on Podman for the tests of the command line, and the command itself as its user runs it."""

import contextlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.known_secrets import log_file
from tests.servers.containers import IMAGE, image_archive

START_LIMIT_S = 300.0
TESK = (sys.executable, "-m", "tesk")


class Server(NamedTuple):
    """A running server: its URL and the folder that its file: URLs may use."""

    url: str
    shared: Path


Done = subprocess.CompletedProcess[str]
Tesk = Callable[..., Done]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cli")
    with serving(folder) as (_, server):
        load_image(folder)
        yield server


@contextlib.contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], Server]]:
    """A server with everything below `folder`; TERM ends it with the context, unless it has ended before."""
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    arguments = [f"--port={port}", f"--data={folder}/data", f"--file-root={shared}", "--engine-socket=podman"]
    arguments += ["--service-name=tested", "--network=none"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen([*TESK, "serve", *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
    with log_file("the log of a server", folder / "log"), process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("server: "), (folder / "log").read_text()
            yield process, Server(line.removeprefix("server: ").strip(), shared)
        finally:
            process.terminate()
            process.wait(300)


def load_image(folder: Path) -> None:
    """Gives the tests' image to the engine of the server whose folder this is."""
    limit = time.monotonic() + START_LIMIT_S
    socket = folder / "data" / "run" / "podman.sock"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=300) as engine:
        while True:
            try:
                engine.get("http://engine/_ping").raise_for_status()
                break
            except httpx.TransportError:
                assert time.monotonic() < limit, (folder / "log").read_text()
                time.sleep(0.05)
        engine.post("http://engine/images/load", content=image_archive(IMAGE)).raise_for_status()


@pytest.fixture
def tesk(server: Server) -> Tesk:
    """Runs `tesk ARGUMENTS` against the server, its output piped."""

    def run(*arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Done:
        environment = {**os.environ, "TESK_SERVER": server.url, **(env or {})}
        return subprocess.run(
            [*TESK, *arguments], input=stdin, capture_output=True, text=True, timeout=300, env=environment
        )

    return run


@pytest.fixture
def on_terminal(server: Server) -> Callable[..., str]:
    """Runs `tesk ARGUMENTS` with stdout on a plain terminal; what it shows."""

    return lambda *arguments: shown_on_terminal(server.url, *arguments)


def shown_on_terminal(url: str, *arguments: str) -> str:
    """What `tesk ARGUMENTS` shows on a terminal, of both its streams; it has to end well."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TESK_SERVER": url, "TERM": "dumb"}
    with subprocess.Popen([*TESK, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        os.close(ours)
        assert process.wait(300) == 0, shown
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux gives EIO when the other side is closed
        return b""
