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

from tesk.filer.main import run
from tesk.filer.plan import Done, Event, Failed, InputsPlan, Large, Looked, OutputsPlan, Plan, Progress
from tesk.kubernetes import document, manifests, names
from tesk.kubernetes.messages import Moved
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import NOTHING, Found, doubtful, layout, occupied, read_answer, to_look_at
from tesk.pod.messages import send_message
from tesk.pod.transfers import plan, scrub
from tesk.tes import Task

USAGE: Final = "usage: tesk filer inputs|outputs --pod [--failed]\n"
TOKEN: Final = Path(manifests.TASK_FOLDER) / "0" / names.TOKEN_KEY
FOUND: Final = Path(manifests.SCRATCH) / ".tesk" / "found"
LOOK_AGAIN_S: Final = 0.02
encode: Final = msgspec.json.Encoder().encode


def main(argv: Sequence[str]) -> int:
    """The command `tesk filer STEP --pod`: 0 when the step went well."""
    words = [word for word in argv if not word.startswith("--")]
    if len(words) != 1 or words[0] not in (names.INPUTS, names.OUTPUTS):
        sys.stderr.write(USAGE)
        return 2
    task, cluster, _ = document.read(Path(manifests.TASK_FOLDER))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sender = Sender()
    found = Found(_look(task, cluster, sender, stop)) if words[0] == names.INPUTS else _recall()
    wanted = plan(task, cluster, words[0], layout(task, found), failed="--failed" in argv)

    def emit(event: Event) -> None:
        if isinstance(event, Large):
            found.alone.append(event.path)
        if isinstance(event, Done) and isinstance(wanted, InputsPlan):
            _keep(found)
        _emit(event, sender, wanted, stopped=stop.is_set())

    done = run(wanted, emit, stop)
    sender.close()
    return 0 if done else 1


def _look(task: Task, cluster: TaskSettings, sender: "Sender", stop: threading.Event) -> dict[str, bool]:
    """What the images have where the task's files lie, by the containers beside this one; the taskmaster hears of it.

    The taskmaster also ends the task where one of them cannot be started.
    """
    images = manifests.images_to_look_at(task, cluster)
    if not images:
        return {}
    asked, waiting = doubtful(task), [Path(manifests.LOOKS) / str(number) for number in range(len(images))]
    while not all(answer.exists() for answer in waiting) and not stop.wait(LOOK_AGAIN_S):
        pass
    if stop.is_set():
        return {}
    found = occupied(asked, [read_answer(to_look_at(asked), answer.read_text()) for answer in waiting])
    _say(Looked(found), sender)
    return found


def _keep(found: Found) -> None:
    """Leaves it for the filer of the outputs on the volume, where no container reaches it."""
    if found != NOTHING:
        FOUND.parent.mkdir(exist_ok=True)
        FOUND.write_bytes(encode(found))


def _recall() -> Found:
    try:
        return msgspec.json.decode(FOUND.read_bytes(), type=Found)
    except FileNotFoundError:
        return NOTHING


class Sender:
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
                send_message(
                    os.environ["TESK_TASKMASTER"], os.environ["TESK_POD"], TOKEN, encode(Moved(events, before))
                )
                before += len(events)


def _emit(event: Event, sender: Sender, wanted: Plan, *, stopped: bool) -> None:
    """A step that was stopped from outside has no end to tell of."""
    if stopped and isinstance(event, Failed):
        return
    if isinstance(event, Done) and isinstance(wanted, OutputsPlan):
        scrub(wanted.root)
    _say(event, sender)


def _say(event: Event, sender: Sender) -> None:
    if not isinstance(event, Progress):
        sys.stdout.write(encode(event).decode() + "\n")
        sys.stdout.flush()
    sender.put(event)
