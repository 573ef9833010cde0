"""Structured log: one JSON object per line on stderr, or a plain line where stderr is a terminal.

Requests are logged with id, method, path, status and duration: writes at level info, reads at level debug, since
clients poll by the thousand. The log never holds what a client sent (bodies, queries, headers), nor the messages of
unexpected exceptions, which may quote it. A thread writes the lines, so that a slow reader of the log delays no
request.
"""

import atexit
import logging
import queue
import sys
import threading
import time
from functools import lru_cache
from traceback import extract_tb
from types import TracebackType
from typing import Any, BinaryIO, Final

import msgspec

from tesk.places.base import PlaceError
from tesk.store.base import StoreError

DEBUG: Final = logging.DEBUG
INFO: Final = logging.INFO
ERROR: Final = logging.ERROR
MOST_WAITING: Final = 20_000
CLOSE_LIMIT_S: Final = 2.0
GATHER_S: Final = 0.1
"""Lines are collected for this long: to wake the thread for each line costs more than the line."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUOTABLE: Final = (OSError, StoreError, PlaceError)
_encode: Final = msgspec.json.Encoder().encode


class Log(logging.Handler):
    """Takes entries from the server and from Python's logging, and writes them in the background."""

    def __init__(self, stream: BinaryIO, level: str, *, plain: bool) -> None:
        super().__init__(level.upper())
        self._stream = stream
        self._plain = plain
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._dropped = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def request(self, level: int, **entry: Any) -> None:
        """Logs one request; callers ask `wants(level)` first."""
        self._put(level, {"msg": "request", **entry})

    def failure(self, error: str, **entry: Any) -> None:
        """Logs a request that failed by a defect of tesk or by the database."""
        self._put(ERROR, {"msg": "request failed", "error": error, **entry})

    def audit(self, **entry: Any) -> None:
        """Logs a line of the audit, whatever the level."""
        self._put(INFO, {"msg": "audit", **entry})

    def wants(self, level: int) -> bool:
        return level >= self.level

    def emit(self, record: logging.LogRecord) -> None:
        entry: dict[str, Any] = {"msg": record.getMessage(), "logger": record.name}
        for key, value in vars(record).items():
            if key not in _STANDARD and isinstance(value, str | int | float):
                entry[key] = value
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = described(record.exc_info[1])
        self._put(record.levelno, entry)

    def close(self) -> None:
        """Writes what waits, within a time limit, and stops."""
        if self._thread.is_alive():
            self._closing.set()
            self._lines.put(None)
            self._thread.join(CLOSE_LIMIT_S)
        super().close()

    def _put(self, level: int, entry: dict[str, Any]) -> None:
        if self._lines.qsize() >= MOST_WAITING:
            self._dropped += 1
            return
        self._lines.put(_line(level, entry, time.time(), plain=self._plain))

    def _write(self) -> None:
        going_on = True
        while going_on:
            lines = [self._lines.get()]
            self._closing.wait(GATHER_S)
            while not self._lines.empty():
                lines.append(self._lines.get())
            going_on = None not in lines
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                entry = {"msg": f"{dropped} log entries were dropped: the log is read too slowly"}
                lines.append(_line(logging.WARNING, entry, time.time(), plain=self._plain))
            self._deliver(b"".join(line for line in lines if line is not None))

    def _deliver(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError):
            self._dropped += 1  # logged once the stream takes lines again


def start(level: str) -> Log:
    """The log of this process, on stderr. Python's logging writes into it too."""
    log = Log(sys.stderr.buffer, level, plain=sys.stderr.isatty())
    root = logging.getLogger()
    root.handlers[:] = [log]
    root.setLevel(log.level)
    logging.getLogger("uvicorn").setLevel(max(log.level, logging.WARNING))
    atexit.register(log.close)
    return log


def described(error: BaseException) -> str:
    """An exception for the log: its type and where it was raised; its message only if that cannot quote a task."""
    message = f": {error}" if isinstance(error, _QUOTABLE) else ""
    return f"{type(error).__name__}{message} at {_frames(error.__traceback__)}"


def _frames(trace: TracebackType | None) -> str:
    frames = extract_tb(trace)[-8:]
    return " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _line(level: int, entry: dict[str, Any], now: float, *, plain: bool) -> bytes:
    stamp = _second(int(now))
    name = logging.getLevelName(level).lower()
    if plain:
        return _plain_line(stamp, name, entry)
    return _encode({"time": f"{stamp}.{int(now * 1000) % 1000:03d}Z", "level": name, **entry}) + b"\n"


def _plain_line(stamp: str, level: str, entry: dict[str, Any]) -> bytes:
    details = " ".join(f"{key}={_printable(value)}" for key, value in entry.items() if key not in ("msg", "logger"))
    return f"{stamp[11:]} {level:7} {_printable(entry['msg'])} {details}".rstrip().encode() + b"\n"


def _printable(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else repr(text)
