"""Stands beside one executor and says how it goes: its start, its output while it runs, its end.

The shim in the executor's container leaves files in a folder that both share; this is told of them by inotify and
tells the taskmaster within milliseconds, where the kubelet would take a second or two. What it tells it also leaves
in its termination message and its log, for a taskmaster that could not be told.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tesk.clock import now
from tesk.pod.control import ProgramEnd, Watch, has_mark, program_end
from tesk.pod.following import LAST_LOOK_S, LOOK_S, OutputFollower, Streams, streams
from tesk.pod.messages import PATIENCE_S, send_message

USAGE: Final = """\
usage: tesk reporter [--tail BYTES] [--stdout PATH] [--stderr PATH] [--scratch DIR]

Stands beside an executor in its pod and tells its taskmaster of its start and end; nobody else starts it.
"""
CONTROL: Final = Path("/.tesk/control")
TOKEN: Final = Path("/tesk/token/token")
LAST_WORDS: Final = Path("/dev/termination-log")


class Reporter:
    """One executor's reporter."""

    def __init__(self, streams: Streams, tail_bytes: int, control: Path = CONTROL) -> None:
        self._output = OutputFollower(streams, tail_bytes, control)
        self._control = control
        self._started = ""
        self._is_ending = False

    def run(self) -> None:
        """Until the executor's end has been told. A TERM is for the executor alone, whose end is yet to be heard."""
        signal.signal(signal.SIGTERM, self._end)
        watch = Watch()
        watch.add(self._control)
        while True:
            if not self._started and has_mark(self._control, "started"):
                self._started = now()
                self._tell({"told": "started", "at": self._started})
            if (end := program_end(self._control)) is not None:
                self._finish(end)
                return
            if select.select([watch.descriptor], [], [], LAST_LOOK_S if self._is_ending else LOOK_S)[0]:
                watch.clear()
            else:
                self._output.follow()

    def _end(self, *_: Any) -> None:
        self._is_ending = True

    def _finish(self, end: ProgramEnd) -> None:
        moment = now()
        facts: dict[str, Any] = {"told": "ended", "exit_code": end.exit_code}
        facts |= {"started": self._started or moment, "ended": moment}
        if end.out_of_memory:
            facts["out_of_memory"] = True
        if end.terminated:
            facts["terminated"] = True
        if end.problem:
            facts["problem"] = end.problem
        tails = self._output.tails()
        try:
            LAST_WORDS.write_text(json.dumps(facts))
        except OSError as error:
            print(f"{LAST_WORDS}: {error}", file=sys.stderr)
        self._output.follow(whole=True)
        self._tell(facts | tails)

    def _tell(self, facts: dict[str, Any]) -> None:
        """When the pod is deleted, its taskmaster may be gone already."""
        patience_s = 0.0 if self._is_ending else PATIENCE_S
        send_message(
            os.environ["TESK_TASKMASTER"], os.environ["TESK_POD"], TOKEN, json.dumps(facts).encode(), patience_s
        )


def main(argv: Sequence[str]) -> int:
    """The command `tesk reporter`."""
    options = {"--tail": "65536", "--stdout": "", "--stderr": "", "--scratch": ""}
    words = list(argv)
    while words:
        option = words.pop(0)
        if option not in options or not words:
            sys.stdout.write(USAGE)
            return 0 if option in ("--help", "-h") else 2
        options[option] = words.pop(0)
    scratch = Path(options["--scratch"]) if options["--scratch"] else None
    where = streams(options["--stdout"], options["--stderr"], scratch, CONTROL)
    Reporter(where, int(options["--tail"])).run()
    return 0
