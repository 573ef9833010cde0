"""The demonstration behind scripts/demo: tesk as its user meets it, without any registry.

A server is started, on this machine's container engine or in a cluster of its own; a real file is served over HTTP; and
everything else is done by tesk's own commands.
"""

import argparse
import contextlib
import functools
import http.server
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scripts import demo_kubernetes, demo_local
from scripts.demo_image import IMAGE

ROOT: Final = Path(__file__).parents[1]
TESK: Final = (sys.executable, "-m", "tesk")
COUNT: Final = "tr -cs A-Za-z '\\n' </data/text.txt | tr A-Z a-z | sort | uniq -c | sort -rn >/work/counts.txt\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="tesk, shown by one real task")
    parser.add_argument("--keep", action="store_true", help="leave the server up at the end")
    parser.add_argument("--kubernetes", action="store_true", help="on a Kubernetes node of its own, by the chart")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="tesk-demo-"))
    results = folder / "results"
    results.mkdir()
    where = demo_kubernetes if chosen.kubernetes else demo_local
    with where.serving(folder, keep=chosen.keep) as (url, address, notes):
        with http_server(ROOT, address, results) as files:
            delivered = f"{files}/top.txt" if chosen.kubernetes else f"file://{results}/top.txt"
            good = run_task(url, files, folder, delivered=delivered)
        print(f"server: {url}", flush=True)
        if chosen.keep:
            print(*notes, sep="\n", flush=True)
    return 0 if good else 1


@contextlib.contextmanager
def http_server(folder: Path, address: str, results: Path) -> Iterator[str]:
    """The files of `folder` over HTTP on one address of this machine, and PUT into `results`; its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_PUT(self) -> None:
            size = int(self.headers["Content-Length"])
            (results / Path(self.path).name).write_bytes(self.rfile.read(size))
            self.send_response(201)
            self.end_headers()

    with http.server.ThreadingHTTPServer((address, 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()


def run_task(url: str, files: str, folder: Path, *, delivered: str) -> bool:
    """Submits the task by tesk's commands, shows what they print; True if all went as it should."""
    file = folder / "task.json"
    result = folder / "results" / "top.txt"
    file.write_text(json.dumps(task(files, delivered), indent=2))
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


def task(files: str, delivered: str) -> dict[str, Any]:
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
        "outputs": [{"path": "/out/top.txt", "url": delivered}],
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
