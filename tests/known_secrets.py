"""No secret of the tests is in anything that tesk leaves behind, in whichever test it was used.

A test's server, store or user file makes a secret `known` where the secret is made. Helpers through which the suite
passes anyway `look` for all known secrets at what is final there: whole lines of logs, answers, tasks that have ended,
objects of a cluster. After each test, tests/conftest.py fails the one that has left a secret somewhere. A server that
serves several tests writes its log with a little delay: then the failure may be that of the next test.
"""

import contextlib
import functools
import io
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 8
"""A shorter text could be somewhere by chance."""

_known: dict[str, str] = {}
_leaks: list[str] = []
_logs: list["Log"] = []


def known(name: str, text: str) -> str:
    """Declares a secret; its text, which has to be nowhere by chance."""
    assert len(text) >= SHORTEST, f"{name} is too short to be looked for"
    _known[text] = name
    return text


def forget(text: str) -> None:
    """Looks for a secret no longer."""
    _known.pop(text, None)


def names() -> list[str]:
    """The names of the secrets that are looked for."""
    return [*_known.values()]


def look(where: str, found: str | bytes, sent: str | bytes = "") -> None:
    """Notes which secrets are in what was found. What the user has `sent` may be shown to the user."""
    shown, given = _text(found), _text(sent)
    for secret, name in [*_known.items()]:
        if any(form in shown for form in forms(secret)) and not any(form in given for form in forms(secret)):
            _leaks.append(f"{name} is in {where}")


def look_at_task(task: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> None:
    """Looks at a task in the FULL view. A secret that the task was `sent` with may be everywhere but in sentences."""
    where = f"task {task['id']}"
    lines = [line for log in task.get("logs") or [] for line in log.get("system_logs") or []]
    look(f"the system logs of {where}", "\n".join(lines))
    own = sent or {name: value for name, value in task.items() if name != "logs"}
    look(f"the document of {where}", _json(task), _json(own))


def take() -> list[str]:
    """The leaks since the last call."""
    for log in _logs:
        log.look()
    found = [*dict.fromkeys(_leaks)]
    _leaks.clear()
    return found


@functools.lru_cache(4096)
def forms(secret: str) -> tuple[str, ...]:
    """How a secret can be written: plain, escaped for JSON or a URL, in base64 with anything before and after it."""
    raw = secret.encode()
    found = {secret, *(json.dumps(secret, ensure_ascii=each)[1:-1] for each in (True, False))}
    found |= {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    found |= {re.sub("%..", lambda code: code[0].lower(), each) for each in found if "%" in each}
    for before in range(3):
        encoded = b64encode(bytes(before) + raw).decode()
        own = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        found |= {own, own.translate(str.maketrans("+/", "-_"))}
    return tuple(found)


class Log:
    """A log that grows. `read`: what is in it from an offset on."""

    def __init__(self, where: str, read: Callable[[int], bytes]) -> None:
        self._where, self._read, self._offset = where, read, 0

    def look(self, *, is_final: bool = False) -> None:
        """Looks at the lines that have been written since the last look; at the end also at an unfinished one."""
        new = self._read(self._offset)
        if not is_final:
            new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        if new:
            look(self._where, new)


@contextlib.contextmanager
def log_file(where: str, path: Path) -> Iterator[None]:
    """Looks at the log of a server during and after its life."""
    with _followed(Log(f"{where} ({path})", functools.partial(_read_file, path))):
        yield


@contextlib.contextmanager
def log_stream(where: str, stream: io.BytesIO) -> Iterator[None]:
    """Looks at the log of a server of this process."""
    with _followed(Log(where, lambda offset: stream.getvalue()[offset:] if stream.tell() > offset else b"")):
        yield


@contextlib.contextmanager
def _followed(log: Log) -> Iterator[None]:
    _logs.append(log)
    try:
        yield
    finally:
        _logs.remove(log)
        log.look(is_final=True)


def _read_file(path: Path, offset: int) -> bytes:
    if not path.exists() or path.stat().st_size <= offset:
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def _text(found: str | bytes) -> str:
    return found if isinstance(found, str) else found.decode(errors="replace")


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)
