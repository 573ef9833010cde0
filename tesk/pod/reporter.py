"""Stands beside one executor and says how it goes: its start, its output while it runs, its end.

The shim in the executor's container leaves files in a folder that both share; this is told of them by inotify and
tells the taskmaster within milliseconds, where the kubelet would take a second or two. What it tells it also leaves
in its termination message and its log, for a taskmaster that could not be told.

The folder is the program's to write in, so it may lie about itself there; links, pipes and what is no exit code count
for nothing.
"""

import ctypes
import json
import os
import re
import select
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tesk.kubernetes.output import line
from tesk.pod.messages import PATIENCE_S, send_message
from tesk.shim import ENDED, MOST_ENDED
from tesk.tails import cut, open_below, tail, trim

USAGE: Final = """\
usage: tesk reporter [--tail BYTES] [--stdout PATH] [--stderr PATH] [--scratch DIR]

Stands beside an executor in its pod and tells its taskmaster of its start and end; nobody else starts it.
"""
CONTROL: Final = Path("/.tesk/control")
TOKEN: Final = Path("/tesk/token/token")
LAST_WORDS: Final = Path("/dev/termination-log")
IN_CLOSE_WRITE: Final = 0x8
LOOK_S: Final = 1.0
LAST_LOOK_S: Final = 0.2
"""The same once the pod is to end: what is not in the log when it is killed is lost."""
MOST_PER_LOOK: Final = 65536


class Reporter:
    """One executor's reporter. `streams`: for stdout and stderr, where each lies, as a root and a path below it."""

    def __init__(self, streams: dict[str, tuple[Path, str]], tail_bytes: int, control: Path = CONTROL) -> None:
        self._streams = streams
        self._tail_bytes = tail_bytes
        self._control = control
        self._said = dict.fromkeys(streams, 0)
        self._started = ""
        self._is_ending = False

    def run(self) -> None:
        """Until the executor's end has been told. A TERM is for the executor alone, whose end is yet to be heard."""
        signal.signal(signal.SIGTERM, self._end)
        watch = _watch(self._control)
        while True:
            if not self._started and self._is_there("started"):
                self._started = _now()
                self._tell({"told": "started", "at": self._started})
            if (ended := self._ended()) is not None:
                self._finish(ended)
                return
            if select.select([watch], [], [], LAST_LOOK_S if self._is_ending else LOOK_S)[0]:
                os.read(watch, 65536)
            else:
                self._follow()

    def _end(self, *_: Any) -> None:
        self._is_ending = True

    def _is_there(self, word: str) -> bool:
        return os.path.lexists(self._control / word)

    def _ended(self) -> re.Match[str] | None:
        return ENDED.fullmatch(tail(self._control, "/ended", MOST_ENDED))

    def _finish(self, ended: re.Match[str]) -> None:
        moment = _now()
        facts: dict[str, Any] = {"told": "ended", "exit_code": int(ended[1])}
        facts |= {"started": self._started or moment, "ended": moment}
        for word, key in (("oom", "out_of_memory"), ("terminated", "terminated")):
            if self._is_there(word):
                facts[key] = True
        if ended[2]:
            facts["problem"] = "workdir"
        tails = {name: tail(*where, self._tail_bytes) for name, where in self._streams.items()}
        try:
            LAST_WORDS.write_text(json.dumps(facts))
        except OSError as error:
            print(f"{LAST_WORDS}: {error}", file=sys.stderr)
        self._follow(whole=True)
        self._tell(facts | tails)

    def _tell(self, facts: dict[str, Any]) -> None:
        """When the pod is deleted, its taskmaster may be gone already."""
        patience_s = 0.0 if self._is_ending else PATIENCE_S
        send_message(
            os.environ["TESK_TASKMASTER"], os.environ["TESK_POD"], TOKEN, json.dumps(facts).encode(), patience_s
        )

    def _follow(self, *, whole: bool = False) -> None:
        """Puts what was written since the last time into the log; of much, the end."""
        for name, (root, path) in self._streams.items():
            data = self._fresh(name, root, path, whole=whole)
            if data:
                print(line(name, cut(data.decode(errors="replace"), MOST_PER_LOOK)), flush=True)
            if root == self._control and self._said[name] > MOST_PER_LOOK:
                trim(root, path)

    def _fresh(self, name: str, root: Path, path: str, *, whole: bool) -> bytes:
        """What follows what was said; not the beginning of a character whose rest may still come."""
        descriptor = open_below(root, path, os.O_RDONLY)
        if descriptor is None:
            return b""
        with open(descriptor, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = max(self._said[name] if end >= self._said[name] else 0, end - max(MOST_PER_LOOK, self._tail_bytes))
            file.seek(begin)
            data = file.read(end - begin)
        if not whole:
            data = data[: len(data) - _torn(data)]
        self._said[name] = begin + len(data)
        return data


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
    streams = {}
    for name in ("stdout", "stderr"):
        given = options[f"--{name}"]
        streams[name] = (Path(options["--scratch"]), given) if given and options["--scratch"] else (CONTROL, f"/{name}")
    Reporter(streams, int(options["--tail"])).run()
    return 0


def _torn(data: bytes) -> int:
    """The number of bytes at the end that begin a UTF-8 character without ending it."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            wanted = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < wanted else 0
        if byte < 0x80:
            return 0
    return 0


def _watch(folder: Path) -> int:
    """A descriptor that is readable when a file in the folder has been written (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_CLOSE_WRITE) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(folder))
    return int(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
