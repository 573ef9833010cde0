"""The demonstration's server on this machine: `tesk serve` with its defaults, on Docker or Podman."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from scripts.demo_image import IMAGE, image
from tesk.places.local.socket import found

TESK: Final = (sys.executable, "-m", "tesk")
START_LIMIT_S: Final = 300


@contextlib.contextmanager
def serving(folder: Path, *, keep: bool) -> Iterator[tuple[str, str, list[str]]]:
    """The server's URL, an address of this machine that filers reach, and what to print at the end."""
    with contextlib.ExitStack() as cleanup:
        if not keep:
            cleanup.callback(shutil.rmtree, folder)
        server, url = start_server(folder)
        if not keep:
            cleanup.callback(stop, server)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(engine_socket(folder))), timeout=START_LIMIT_S
        ) as engine:
            if make_image(engine) and not keep:
                cleanup.callback(remove_image, folder)
        yield (
            url,
            "127.0.0.1",
            [
                f"It is left up: `tesk run --server {url} --image {IMAGE} -- echo hello` runs another task on it.",
                f"Stop it:       kill {server.pid} && rm -r {folder}",
            ],
        )


def start_server(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """`tesk serve` on port 8080 or, where that is taken, a free one; and its URL."""
    command = [*TESK, "serve", "--port", str(port()), "--data", f"{folder}/data", "--file-root", f"{folder}/results"]
    print("$", *("tesk", *command[len(TESK) :]), flush=True)
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
    assert server.stdout
    line = server.stdout.readline()
    if not line.startswith("server: "):
        stop(server)
        raise SystemExit(f"demo: the server did not start:\n{(folder / 'server.log').read_text()}")
    return server, line.removeprefix("server: ").strip()


def port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            return 0
        return 8080


def stop(server: subprocess.Popen[str]) -> None:
    server.terminate()
    try:
        server.wait(120)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def engine_socket(folder: Path) -> Path:
    """The socket of the container engine that the server uses: the machine's, or the one that tesk has started."""
    own = folder / "data" / "run" / "podman.sock"
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if socket_path := (found() or (found(str(own.resolve())) if own.exists() else None)):
            return socket_path
        time.sleep(0.05)
    raise SystemExit(f"demo: no container engine came up:\n{(folder / 'server.log').read_text()}")


def make_image(engine: httpx.Client) -> bool:
    """Makes the demo's image unless the engine has it: busybox and its applets. False if it was there."""
    if engine.get(f"http://engine/images/{IMAGE}/json").is_success:
        return False
    print(f"making the image {IMAGE} from this machine's static busybox", flush=True)
    reply = engine.post("http://engine/images/load", content=image())
    if reply.is_error:
        raise SystemExit(f"demo: the engine took no image: {reply.status_code} {reply.text}")
    return True


def remove_image(folder: Path) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(engine_socket(folder))), timeout=START_LIMIT_S) as engine:
        limit = time.monotonic() + START_LIMIT_S
        while (answer := engine.delete(f"http://engine/images/{IMAGE}")).status_code == httpx.codes.CONFLICT:
            if time.monotonic() > limit:  # the container of a task that has ended is removed after its end
                break
            time.sleep(0.1)
        answer.raise_for_status()
