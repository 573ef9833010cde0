"""One server program as a context manager: started, awaited until it accepts connections, ended for sure."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

START_LIMIT_S = 300.0


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def refusing(host: str = "127.0.0.1") -> Iterator[int]:
    """A port of an address of this machine that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind((host, 0))
        yield held.getsockname()[1]


def program(name: str, *more: Path) -> str:
    """The path of a server program; a missing one is a failure that says how to get it, never a skip."""
    for candidate in more:
        if candidate.is_file():
            return str(candidate)
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not found:
        raise AssertionError(f"{name} is not installed; scripts/test installs what the tests need")
    return found


@contextlib.contextmanager
def serving(
    command: Sequence[str], port: int, log: Path, cwd: Path | None = None, host: str = "127.0.0.1"
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command` until it accepts on `port`; its output goes to `log`; it is dead afterwards."""
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd)
    try:
        _await(child, host, port, log)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await(child: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if child.poll() is not None:
            raise AssertionError(f"{child.args!r} ended with {child.returncode}: {log.read_text(errors='replace')}")
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"{child.args!r} does not accept on {port}: {log.read_text(errors='replace')}")
