"""The pod of a whole task with no cluster: a runner's process, and shims in root folders of their own beside it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tesk.filer.plan import FilerSettings
from tesk.kubernetes import document, names
from tesk.kubernetes import record as records
from tesk.kubernetes.output import last_record
from tesk.kubernetes.pod_layout import pod_layout
from tesk.kubernetes.record import Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.tes import Task, parse
from tests.shim.containers import NOBODY, PATIENCE_S, Container, first_of, program, until

WORD = "secret"
NAME = "tesk-1"
RUNNER = f"""\
import sys
sys.modules.setdefault("typing_extensions", None)
from tesk.pod import runner
runner.TOLD_WITHIN_S = {PATIENCE_S}
sys.exit(runner.main(sys.argv[1:]))
"""
"""`tesk runner`, but that it waits for a server that takes its time, as on a busy machine."""


class Server:
    """Listens to runners, as a server does. `answers`: what it says first, before it takes what it is told."""

    def __init__(self, *answers: int, port: int = 0) -> None:
        self.records: list[Record] = []
        self.requests: list[tuple[str, str]] = []
        server, left = self, [*answers]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append((self.path, self.headers["Authorization"]))
                answer = left.pop(0) if left else 204
                if answer == 204:
                    server.records.append(records.unpack(body))
                if answer:
                    self.send_response(answer)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Outcome(NamedTuple):
    """How a runner ended: its exit code, the record in its log and in its last words, its log's other lines."""

    code: int
    record: Record | None
    last_words: Record | None
    log: list[dict[str, Any]]
    stderr: str

    @property
    def exit_codes(self) -> list[int]:
        assert self.record is not None
        return [each.exit_code for each in self.record.now.log.logs]


class Pod:
    """One pod. `document` is a TES task."""

    def __init__(self, folder: Path, report: str, document: dict[str, Any], **settings: Any) -> None:
        self.folder, self.report = folder, report
        folder.chmod(0o755)
        self.task: Task = parse(json.dumps(document).encode())[0]
        filer = FilerSettings(file_roots=(str(folder / "store"),), retries=0)
        cluster = TaskSettings("here", "tests", "tesk", filer=filer, **settings)
        for name in ("task", "control", "scratch", "store"):
            (folder / name).mkdir()
        for name in ("control", "scratch"):
            (folder / name).chmod(0o777)
        write_secrets(folder / "task", self.task, cluster)
        self.store, self.scratch, self.last_words = folder / "store", folder / "scratch", folder / "last-words"
        self.plan = pod_layout(self.task)
        self.roots: dict[int, Container] = {}
        self.shims: dict[int, subprocess.Popen[bytes]] = {}
        self.runner: subprocess.Popen[bytes]

    def control(self, n: int) -> Path:
        return self.folder / "control" / names.executor_container(n)

    def start(self) -> None:
        """Starts the runner, and then all executors."""
        self.start_runner()
        for n in range(len(self.task.executors)):
            self.start_executor(n)

    def start_runner(self) -> None:
        """It has no power over other users' files."""
        options = {"--task": "task", "--control": "control", "--scratch": "scratch", "--last-words": "last-words"}
        words = [word for option, name in options.items() for word in (option, str(self.folder / name))]
        powerless = [program("setpriv"), "--bounding-set=-all"] if os.geteuid() == 0 else []
        self.runner = subprocess.Popen(
            [*powerless, sys.executable, "-c", RUNNER, *words], stdin=subprocess.DEVNULL,
            stdout=(self.folder / "log").open("wb"), stderr=(self.folder / "stderr").open("wb"),
            env={**os.environ, "TESK_POD": NAME, "TESK_REPORT": self.report},
        )  # fmt: skip

    def start_executor(self, n: int, user: int = 0) -> None:
        """Starts an executor's container, as the kubelet does: what is mounted is there then, and another user's."""
        executor, container = self.task.executors[n], self.make_root(n)
        mounts = [(self.control(n), "/.tesk/control")]
        mounts += [(self.scratch / path.lstrip("/"), path) for path in self.plan.bound]
        for folder, _ in mounts:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            if os.geteuid() == 0:
                os.chown(folder, NOBODY, NOBODY)
        copies = self.plan.copies(last=n == len(self.task.executors) - 1)
        stdio = [executor.workdir or "", executor.stdin or "", executor.stdout or "", executor.stderr or ""]
        words = ["wait", *stdio, str(len(copies)), *copies, *executor.command]
        self.shims[n] = container.start(*words, user=user, mounts=mounts)

    def make_root(self, n: int) -> Container:
        """The root folder of an executor's container. It is made once."""
        if n not in self.roots:
            (self.folder / f"root-{n}").mkdir()
            self.roots[n] = Container(self.folder / f"root-{n}")
        return self.roots[n]

    def until_held(self, n: int) -> None:
        """Waits until the runner has the pipe of an executor, which sees its end from now on."""
        pipe = str(self.control(n) / "turn")
        until(lambda: pipe in map(os.readlink, Path(f"/proc/{self.runner.pid}/fd").iterdir()))

    def shim(self, n: int) -> int:
        """The process of an executor's shim."""
        return first_of(self.shims[n].pid)

    def end_of(self, n: int) -> int:
        """The exit code of an executor's container, once it has ended."""
        said, _ = self.shims[n].communicate(timeout=PATIENCE_S)
        assert not said, said
        return self.shims[n].returncode

    def until_written(self, text: str, n: int = 0) -> None:
        """Waits until an executor has written something."""
        until(lambda: text in (self.control(n) / "stdout").read_text())

    def terminate(self) -> None:
        """Ends the pod, as when it is deleted."""
        for process in [self.runner.pid, *map(self.shim, self.shims)]:
            with contextlib.suppress(ProcessLookupError):  # a shim ends with the runner too
                os.kill(process, signal.SIGTERM)

    def log(self) -> list[dict[str, Any]]:
        """The lines of the runner's log but for its records."""
        *lines, _ = (self.folder / "log").read_text().split("\n")  # the last one may be half a line yet
        return [found for line in lines if "record" not in (found := json.loads(line))]

    def ended(self) -> Outcome:
        """Waits for the runner's end."""
        code = self.runner.wait(PATIENCE_S)
        log = (self.folder / "log").read_bytes().splitlines()
        words = self.last_words.read_bytes().splitlines() if self.last_words.exists() else []
        found = [last_record(log), last_record(words)]
        record, last = (None if packed is None else records.unpack(packed) for packed in found)
        return Outcome(code, record, last, self.log(), (self.folder / "stderr").read_text())

    def close(self) -> None:
        """Ends all that still runs."""
        for process in (self.runner, *self.shims.values()):
            process.kill()
            process.communicate()


def write_secrets(folder: Path, task: Task, cluster: TaskSettings) -> None:
    """The folder in which a runner finds what it is to do."""
    for n, part in enumerate(document.pack(task)):
        (folder / str(n)).mkdir()
        (folder / str(n) / names.DOCUMENT_KEY).write_bytes(part)
    (folder / "0" / names.CLUSTER_KEY).write_bytes(msgspec.json.encode(cluster))
    (folder / "0" / names.TOKEN_KEY).write_text(f"{WORD}\n")
