"""A small process that has the filer's modules loaded and forks one filer per transfer step.

A transfer runs in a process of its own, so that it cannot hurt the server, yet starting an interpreter for each would
cost more than the containers do. What each would make for itself first, the decoder of plans and the patterns of URLs,
is made here once. The zygote has no threads and opens nothing, so that forking it is safe; it ends with the server and
its children end with it. Each child may have so much memory and no more.

Protocol (JSON datagrams on the socket that is file descriptor argv[1]): {"run": key, "plan": path, "report": path,
"memory": bytes, 0 for any, "transfers": how many at once} and {"kill": key} come in, {"key": key, "code": exit code}
goes out.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from tesk import schemes
from tesk.filer import child
from tesk.filer.plan import Plan
from tesk.filer.schemes.file import scheme as file_scheme  # noqa: F401 - loaded here once, not by each filer
from tesk.places.local.socket import die_with_parent

_read_plan: Final = msgspec.json.Decoder(Plan).decode


def serve(descriptor: int) -> None:
    """Forks filers as told until the other end of the socket closes."""
    die_with_parent()
    schemes.serving("")
    wake, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    channel = socket.socket(fileno=descriptor)
    children: dict[str, int] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), wake], [], [])
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            _reap(children, channel)
        if channel.fileno() in ready:
            message = channel.recv(65536)
            if not message:
                return
            _obey(json.loads(message), children, channel, (wake, wakeup))


def _obey(order: dict[str, Any], children: dict[str, int], channel: socket.socket, pipe: tuple[int, int]) -> None:
    if "kill" in order:
        if process := children.get(order["kill"]):
            os.kill(process, signal.SIGKILL)
        return
    own = os.getpid()
    process = os.fork()
    if process:
        children[order["run"]] = process
        return
    code = 70
    try:
        die_with_parent(parent=own)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.close()
        for end in pipe:
            os.close(end)
        code = _transfer(Path(order["plan"]), Path(order["report"]), order["memory"], order["transfers"])
    except BaseException as error:
        print(f"filer: {error!r}", file=sys.stderr, flush=True)
        raise
    finally:
        os._exit(code)


def _transfer(plan: Path, report: Path, memory_bytes: int, transfers: int) -> int:
    """Runs the filer on a plan, its events as JSON lines in `report`; the exit code of `tesk filer`."""
    with report.open("wb", buffering=0) as out:
        return child.run(_read_plan(plan.read_bytes()), out.write, threading.Event(), memory_bytes, transfers)


def _reap(children: dict[str, int], channel: socket.socket) -> None:
    for key, process in list(children.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            del children[key]
            channel.send(json.dumps({"key": key, "code": os.waitstatus_to_exitcode(status)}).encode())


if __name__ == "__main__":
    serve(int(sys.argv[1]))
