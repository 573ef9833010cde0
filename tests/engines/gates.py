"""Gates at which the steps of tasks stop until they are let through: so that a test can strike at any step for certain.

An HTTP server of this machine. A step asks for `NAME`, is counted, and is answered once its gate is open; whatever is
counted twice has run twice.
"""

import asyncio
import contextlib
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.engines.running import SHORT_S, Document, sh
from tests.engines.serving import Server
from tests.servers.cluster import until

TWO = ("executor-0", "executor-1")
STEPS = ("inputs", *TWO, "outputs")
IN_BOTH_MODES = {"": "/work", "pod-": "/mnt/work"}
"""What tasks' names begin with, and their folders: in mode "auto" the first, which an image may have, means a
taskmaster, and the second one pod. So tasks of both modes meet the same fault."""


class Gates:
    """`url`: where pods reach them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.reached: Counter[str] = Counter()
        self.received: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._open: set[str] = set()
        self._all_open = False

    def open(self, *names: str) -> None:
        """Lets these through, now and later."""
        with self._changed:
            self._open.update(names)
            self._changed.notify_all()

    def open_all(self) -> None:
        with self._changed:
            self._all_open = True
            self._changed.notify_all()

    def enter(self, name: str, sent: bytes | None) -> None:
        """Counts a step and holds it as long as its gate is closed."""
        with self._changed:
            self.reached[name] += 1
            if sent is not None:
                self.received[name] = sent
            self._changed.wait_for(lambda: self._all_open or name in self._open)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gates: Gates

    def do_GET(self) -> None:
        self._answer(None)

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, sent: bytes | None) -> None:
        name = self.path.lstrip("/")
        self.gates.enter(name, sent)
        body = f"{name}\n".encode() if sent is None else b""
        with contextlib.suppress(OSError):
            self.send_response_only(200 if sent is None else 201)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response_only(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1000
    daemon_threads = True


@contextlib.contextmanager
def gates(host: str) -> Iterator[Gates]:
    """Closed gates on `host`, an address of this machine."""

    class Handler(_Handler):
        pass

    server = _Server((host, 0), Handler)
    Handler.gates = Gates(f"http://{host}:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, name="gates", daemon=True).start()
    try:
        yield Handler.gates
    finally:
        Handler.gates.open_all()
        server.shutdown()
        server.server_close()


def gated(gates: Gates, name: str, *codes: int) -> Document:
    """A task with a gate at each of its steps: NAME/inputs, NAME/executor-N that ends with the Nth code, NAME/outputs.

    Another output, NAME/early, goes through at once.
    """
    gates.open(f"{name}/early")
    folder = IN_BOTH_MODES["pod-" if name.startswith("pod-") else ""]
    return {
        "name": name,
        "inputs": [{"path": f"{folder}/in", "url": f"{gates.url}/{name}/inputs"}],
        "outputs": [
            {"path": f"{folder}/in", "url": f"{gates.url}/{name}/early"},
            {"path": f"{folder}/ran", "url": f"{gates.url}/{name}/outputs"},
        ],
        "executors": [
            sh(f"wget -q -O - {gates.url}/{name}/executor-{n} >> {folder}/ran; echo out {n}; exit {code}")
            for n, code in enumerate(codes)
        ],
    }


def short(gates: Gates, name: str, code: int = 0) -> Document:
    """A task that is one executor and its gate."""
    script = f"wget -q -O - {gates.url}/{name}/executor-0; exit {code}"
    return {"name": name, "executors": [sh(script)]}


def assert_ran_once(doors: Gates, task: Document) -> None:
    name = task["name"]
    assert task["state"] == "COMPLETE", task["logs"]
    assert [(log["exit_code"], log["stdout"]) for log in task["logs"][0]["logs"]] == [(0, "out 0\n"), (0, "out 1\n")]
    assert {step: doors.reached[f"{name}/{step}"] for step in TWO} == dict.fromkeys(TWO, 1), "an executor ran twice"
    assert doors.received[f"{name}/outputs"].decode() == f"{name}/executor-0\n{name}/executor-1\n"
    pushed = {output["url"] for output in task["logs"][0]["outputs"]}
    assert pushed == {f"{doors.url}/{name}/early", f"{doors.url}/{name}/outputs"}


async def reached(doors: Gates, *names: str) -> None:
    await asyncio.to_thread(until, lambda: all(doors.reached[name] for name in names), SHORT_S, f"all of {names}")


def steps(name: str, before: str = "") -> list[str]:
    """The gates of a task, up to a step that stays closed."""
    return [f"{name}/{step}" for step in STEPS[: STEPS.index(before) if before else None]]


async def in_every_step(server: Server, doors: Gates, *prefixes: str) -> dict[str, str]:
    """Tasks that are held in each of their steps, by name. `prefixes`: see IN_BOTH_MODES."""
    ids: dict[str, str] = {}
    held = {f"{prefix}in-{step}": step for prefix in prefixes or ("",) for step in STEPS}
    for name, step in held.items():
        ids[name] = await server.create(gated(doors, name, 0, 0))
        doors.open(*steps(name, before=step))
    await reached(doors, *(f"{name}/{step}" for name, step in held.items()))
    return ids
