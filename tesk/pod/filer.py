"""The filer in a pod of its own: it finds its plan in the task's Secrets and tells the taskmaster how it goes.

Everything it says stands in its log too, one event a line, for a taskmaster that could not be told.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from tesk.engines.kubernetes import document, manifests, names
from tesk.engines.kubernetes.cluster import Cluster
from tesk.engines.kubernetes.told import Moved
from tesk.filer import scratch
from tesk.filer.main import run
from tesk.filer.plan import Done, Event, Failed, InputsPlan, OutputsPlan, Plan, Progress
from tesk.layout import layout
from tesk.pod.teller import tell
from tesk.tes import Task

USAGE: Final = "usage: tesk filer inputs|outputs --pod [--failed]\n"
TOKEN: Final = Path(manifests.TASK_FOLDER) / "0" / names.TOKEN_KEY
encode: Final = msgspec.json.Encoder().encode


def main(argv: Sequence[str]) -> int:
    """The command `tesk filer STEP --pod`: 0 when the step went well."""
    words = [word for word in argv if not word.startswith("--")]
    if len(words) != 1 or words[0] not in (names.INPUTS, names.OUTPUTS):
        sys.stderr.write(USAGE)
        return 2
    task, cluster, _ = document.read(Path(manifests.TASK_FOLDER))
    wanted = plan(task, cluster, words[0], failed="--failed" in argv)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    teller = Teller()
    done = run(wanted, lambda event: _emit(event, teller, wanted, stopped=stop.is_set()), stop)
    teller.close()
    return 0 if done else 1


def plan(task: Task, cluster: Cluster, step: str, *, failed: bool) -> Plan:
    """What is to be moved; after a failed executor an output that is not there is no error."""
    root, laid = manifests.SCRATCH, layout(task)
    if step == names.INPUTS:
        directories, touched = list(laid.directories), list(laid.touched)
        return InputsPlan(root, list(task.inputs or ()), directories, touched, cluster.filer, laid.uncopied)
    settings = msgspec.structs.replace(cluster.filer, missing_outputs="warning") if failed else cluster.filer
    return OutputsPlan(root, list(task.outputs or ()), settings, laid.uncopied)


class Teller:
    """Sends events from a thread of its own, those that wait together in one request."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="tell")
        self._thread.start()

    def put(self, event: Event) -> None:
        self._events.put(event)

    def close(self) -> None:
        """Returns when everything has been told, or could not be."""
        self._events.put(None)
        self._thread.join()

    def _send(self) -> None:
        open_, before = True, 0
        while open_:
            batch = [self._events.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(self._events.get_nowait())
            open_ = None not in batch
            events = [event for event in batch if event is not None]
            if events:
                tell(os.environ["TESK_TASKMASTER"], os.environ["TESK_POD"], TOKEN, encode(Moved(events, before)))
                before += len(events)


def _emit(event: Event, teller: Teller, wanted: Plan, *, stopped: bool) -> None:
    """A step that was stopped from outside has no end to tell of."""
    if stopped and isinstance(event, Failed):
        return
    if isinstance(event, Done) and isinstance(wanted, OutputsPlan):
        _scrub(wanted.root)
    if not isinstance(event, Progress):
        sys.stdout.write(encode(event).decode() + "\n")
        sys.stdout.flush()
    teller.put(event)


def _scrub(root: str) -> None:
    """Empties the volume as far as this user may: it is deleted next, but some storage keeps what it held."""
    for name in os.listdir(root):
        with contextlib.suppress(OSError):
            scratch.scrub(os.path.join(root, name))
