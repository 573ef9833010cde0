"""One server program as a context manager: started, awaited until it accepts connections, ended for sure."""

import contextlib
import functools
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

START_LIMIT_S = 300.0
PORTS: Final = range(20000, 30000)
"""Below those that the kernel gives to connections, and to whoever asks for port 0 (net.ipv4.ip_local_port_range)."""
AT_ONCE: Final = 100
"""Ports of one process. It takes them in turn, so that one that was chosen is not chosen again before it is used."""


def free_port() -> int:
    """A port that nobody listens on now, at any address of this machine, and that nobody else takes meanwhile."""
    for _ in range(AT_ONCE):
        port = next(_own_ports(os.getpid()))
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
    raise AssertionError(f"none of the {AT_ONCE} ports of this process is free")


@functools.cache
def _own_ports(_: int) -> Iterator[int]:
    """The ports of this process, over and over. A socket whose name has the first of them is theirs while it lives."""
    for first in PORTS[::AT_ONCE]:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0tesk-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return itertools.cycle(range(first, first + AT_ONCE))
    raise AssertionError(f"all ports of {PORTS} belong to other processes that run tests")


_claims: list[socket.socket] = []


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
