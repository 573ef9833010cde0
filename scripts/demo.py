"""The demonstration behind scripts/demo: tesk as its user meets it, on this machine and without any registry.

It starts `tesk serve` with its defaults on a folder of its own, gives the container engine a small image made from
the distribution's static busybox, serves a real file over HTTP, and then does everything else by tesk's own commands.
"""

import argparse
import contextlib
import functools
import hashlib
import http.server
import io
import json
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from tesk.engines.local.socket import found

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = "localhost/tesk-demo:1"
TESK: Final = (sys.executable, "-m", "tesk")
START_LIMIT_S: Final = 40
COUNT: Final = "tr -cs A-Za-z '\\n' </data/text.txt | tr A-Z a-z | sort | uniq -c | sort -rn >/work/counts.txt\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="tesk, shown by one real task")
    parser.add_argument("--keep", action="store_true", help="leave the server up at the end")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="tesk-demo-"))
    with contextlib.ExitStack() as cleanup:
        if not keep:
            cleanup.callback(shutil.rmtree, folder)
        (folder / "results").mkdir()
        server, url = start_server(folder)
        if not keep:
            cleanup.callback(stop, server)
        files = cleanup.enter_context(http_server(ROOT))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(engine_socket(folder))), timeout=60) as engine:
            made = make_image(engine)
            try:
                good = run_task(url, files, folder)
            finally:
                if made and not keep:
                    engine.delete(f"http://engine/images/{IMAGE}").raise_for_status()
        print(f"server: {url}", flush=True)
        if keep:
            print(f"It is left up: `tesk run --server {url} --image {IMAGE} -- echo hello` runs another task on it.")
            print(f"Stop it:       kill {server.pid} && rm -r {folder}")
    return 0 if good else 1


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
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """The files of `folder` over HTTP on loopback; its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def engine_socket(folder: Path) -> Path:
    """The socket of the container engine that the server uses: the machine's, or the one that tesk has started."""
    own = folder / "data" / "run" / "podman.sock"
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if socket_path := (found() or (found(str(own)) if own.exists() else None)):
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


def image() -> bytes:
    """The image as `docker load` reads it: one layer, its configuration and the manifest (Docker image spec 1.2)."""
    layer = tar_of({}, root_file_system())
    configuration = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    })  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {"config.json": configuration.encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return tar_of(files, [])


def root_file_system() -> list[tuple[tarfile.TarInfo, bytes]]:
    """busybox and a link for each of its programs."""
    busybox = shutil.which("busybox")
    assert busybox, "scripts/ensure has installed it"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    program = tarfile.TarInfo("bin/busybox")
    program.mode = 0o755
    entries = [(program, Path(busybox).read_bytes())]
    for applet in set(applets) - {"busybox"}:
        link = tarfile.TarInfo(f"bin/{applet}")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        entries.append((link, b""))
    return entries


def tar_of(files: dict[str, bytes], entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for entry, data in [*((tarfile.TarInfo(name), data) for name, data in files.items()), *entries]:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def run_task(url: str, files: str, folder: Path) -> bool:
    """Submits the task by tesk's commands, shows what they print; True if all went as it should."""
    file = folder / "task.json"
    result = folder / "results" / "top.txt"
    file.write_text(json.dumps(task(files, result), indent=2))
    print("$ cat task.json", file.read_text(), sep="\n")
    task_id = tesk(url, "create", str(file), quiet=True).strip()
    print(f"$ tesk create task.json\n{task_id}")
    print(f"$ tesk wait {task_id}", flush=True)
    try:
        wait = subprocess.run([*TESK, "wait", "--server", url, task_id], stdout=subprocess.DEVNULL)
    except BaseException:
        tesk(url, "cancel", task_id)
        subprocess.run([*TESK, "wait", "--server", url, "--timeout", "20", task_id], stdout=subprocess.DEVNULL)
        raise
    tesk(url, "get", "--table", task_id)
    tesk(url, "logs", task_id)
    if not result.is_file():
        print(f"there is no result at {result}")
        return False
    print(f"$ cat {result}\n{result.read_text()}")
    return wait.returncode == 0 and "license" in result.read_text()


def task(files: str, result: Path) -> dict[str, Any]:
    """The most frequent words of a text: the first executor counts, the second reads what the first wrote."""
    count = {"image": IMAGE, "command": ["sh", "-e", "/data/count.sh"]}
    take = {
        "image": IMAGE,
        "command": ["sh", "-c", "grep -E '[a-z]{5}' /work/counts.txt | head -n 5 | tee /out/top.txt"],
    }
    return {
        "name": "demo",
        "inputs": [
            {"url": f"{files}/LICENSE", "path": "/data/text.txt"},
            {"content": COUNT, "path": "/data/count.sh"},
        ],
        "outputs": [{"path": "/out/top.txt", "url": f"file://{result}"}],
        "executors": [count, take],
        "volumes": ["/work"],
        "resources": {"cpu_cores": 1, "ram_gb": 0.25},
    }


def tesk(url: str, command: str, *arguments: str, quiet: bool = False) -> str:
    """Runs a tesk command against the server; what it printed."""
    if not quiet:
        print("$", "tesk", command, *(word for word in arguments if word != "--table"), flush=True)
    done = subprocess.run([*TESK, command, "--server", url, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    if not quiet:
        print(done.stdout, flush=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
