"""Moves a task's files in a process of its own beside the runner, which stays small: the filer's modules are in memory
only while it runs, and whatever happens to it, the runner tells of it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tesk.filer.plan import Event, OutputsPlan, Plan, Pushed
from tesk.life.facts import TaskStep
from tesk.life.steps import Absent, AtWork, FilerEnded, Seen
from tesk.life.transfer import Transfer

OUTPUTS_BYTES: Final = 4 * 1024 * 1024
"""As much of what it says as may name outputs that become part of the task's log: some 40,000 of them."""
READ_BYTES: Final = 65536
MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Of the limit of the runner's container. Where a filer met that itself, the kernel would kill the runner with it
(cgroup v2, memory.oom.group), and nobody could say why the task ends."""
MOST_DESCRIPTORS: Final = 4096
_decode: Final = msgspec.json.Decoder(Event).decode


class FilerStep:
    """The step that moves the inputs or the outputs. `make_plan` is called in its process. `empties`: the scratch
    volume outlives its pod, and is emptied once the outputs are pushed."""

    look_s = None
    broken: Sequence[int] = ()

    def __init__(self, step: TaskStep, make_plan: Callable[[], Plan], *, empties: bool) -> None:
        self.step = step
        self.transfer = Transfer()
        self.has_ended = False
        self._make_plan, self._empties = make_plan, empties
        self._rest = b""
        self._size = 0
        self._process = 0
        self.readable: int | None = None

    def start(self) -> None:
        """Begins to move the files."""
        self.readable, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._process = os.fork()
        if not self._process:
            _work(self._make_plan, writer, empties=self._empties)
        os.close(writer)

    def end(self) -> None:
        """Tells the filer to end, with no half of a file left."""
        if self.readable is None:
            self.has_ended = True
        else:
            os.kill(self._process, signal.SIGTERM)

    def see(self) -> Seen:
        """What is seen of it now."""
        if self.has_ended:
            return FilerEnded(self.transfer)
        if self.readable is None:
            return Absent(is_asked=True)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.readable, READ_BYTES):
                self._take(data)
            os.close(self.readable)
            self.readable = None
            os.waitpid(self._process, 0)
            self.has_ended = True
            return FilerEnded(self.transfer)
        return AtWork()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = _decode(line)
            self._size += len(line) if isinstance(event, Pushed) else 0
            self.transfer.add(event, is_shown=self._size <= OUTPUTS_BYTES)


def _work(make_plan: Callable[[], Plan], writer: int, *, empties: bool) -> None:
    """Runs the filer in the forked child, which ends here. It keeps nothing of its parent's open."""
    code = 70
    try:
        stop = threading.Event()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        os.set_blocking(writer, True)
        os.closerange(3, writer)
        os.closerange(writer + 1, MOST_DESCRIPTORS)
        sys.modules.pop("typing_extensions", None)  # which storage libraries need
        code = _move(make_plan(), writer, stop, empties=empties)
    except BaseException as error:
        print(f"filer: {error!r}", file=sys.stderr, flush=True)
        raise
    finally:
        os._exit(code)


def _move(plan: Plan, writer: int, stop: threading.Event, *, empties: bool) -> int:
    from tesk.filer import child
    from tesk.pod.transfers import scrub

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(writer, data) :]

    code = child.run(plan, write, stop, MEMORY_BYTES, plan.settings.concurrency)
    if not code and empties and isinstance(plan, OutputsPlan):
        scrub(plan.root)
    return code
