"""What the filer's tests say things with: places in stores, steps that run, and what they reported."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote

from tesk.filer.main import run
from tesk.filer.plan import (
    Done,
    Event,
    Failed,
    FilerSettings,
    InputsPlan,
    OutputsPlan,
    Plan,
    Pushed,
    Warned,
)
from tesk.tes import FileType, Input, Output
from tests import known_secrets

FILE, DIRECTORY = FileType.FILE, FileType.DIRECTORY


class Report(NamedTuple):
    """The events of one step. Its first use checks the contract: exactly one last word."""

    ok: bool
    events: list[Event]

    @property
    def failure(self) -> str:
        assert isinstance(self.events[-1], Failed), self.events
        return self.events[-1].message

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]

    @property
    def pushed(self) -> dict[str, Pushed]:
        return {event.path: event for event in self.events if isinstance(event, Pushed)}


def carry_out(plan: Plan, stop: threading.Event | None = None) -> Report:
    events: list[Event] = []
    ok = run(plan, events.append, stop or threading.Event())
    last_words = [event for event in events if isinstance(event, Done | Failed)]
    assert last_words == events[-1:], events
    assert ok == isinstance(events[-1], Done)
    _look_for_secrets(plan, events)
    return Report(ok, events)


def _look_for_secrets(plan: Plan, events: list[Event]) -> None:
    """A filer tells no secret; but the URL of a pushed file, which is a document's, is as the output's was sent."""
    known_secrets.look("a filer's report", repr([event for event in events if not isinstance(event, Pushed)]))
    known_secrets.look("a filer's report", repr([event for event in events if isinstance(event, Pushed)]), repr(plan))


def fetch(root: Path, *inputs: Input, **settings: Any) -> Report:
    return carry_out(InputsPlan(str(root), list(inputs), settings=FilerSettings(**settings)))


def push(root: Path, *outputs: Output, **settings: Any) -> Report:
    return carry_out(OutputsPlan(str(root), list(outputs), settings=FilerSettings(**settings)))


@runtime_checkable
class Shelf(Protocol):
    """What a store without a folder of this system holds below a place, by a client of the test's own."""

    def __truediv__(self, name: str, /) -> "Shelf": ...

    def read_bytes(self) -> bytes: ...

    def put(self, files: Mapping[str, bytes | None]) -> None: ...

    def tree(self) -> dict[str, bytes | None]: ...

    def changed(self) -> datetime:
        """When the object here was last written, as the store's own client is told it."""
        ...


class Place(NamedTuple):
    """A folder that a server serves, a Path or a Shelf, and its URL."""

    folder: Any
    base: str
    quoted: bool

    def url(self, name: str) -> str:
        return f"{self.base}/{quote(name) if self.quoted else name}"


@dataclass(frozen=True)
class Places:
    """The scratch root of a test, its places by scheme, the roots of `file:` and the files of credentials."""

    root: Path
    by_scheme: dict[str, Place]
    file_roots: tuple[str, ...]
    credentials: tuple[str, ...] = ()

    def __getitem__(self, scheme: str) -> Place:
        return self.by_scheme[scheme]

    @property
    def _settings(self) -> dict[str, Any]:
        return {"file_roots": self.file_roots, "credentials": self.credentials}

    def fetch(self, *inputs: Input, **settings: Any) -> Report:
        return fetch(self.root, *inputs, **{**self._settings, **settings})

    def push(self, *outputs: Output, **settings: Any) -> Report:
        return push(self.root, *outputs, **{**self._settings, **settings})


def tree(folder: Path | Shelf) -> dict[str, bytes | None]:
    """What lies below a folder: relative path → bytes, None for a directory."""
    if isinstance(folder, Shelf):
        return folder.tree()
    found: dict[str, bytes | None] = {}
    for here, directories, files in os.walk(folder):
        relative = os.path.relpath(here, folder)
        for name in directories:
            found[os.path.normpath(os.path.join(relative, name))] = None
        for name in files:
            path = os.path.join(here, name)
            with open(path, "rb") as file:
                found[os.path.normpath(os.path.join(relative, name))] = file.read()
    return {path: found[path] for path in found if not path.startswith(".sgwtmp")}


def write(folder: Path | Shelf, files: Mapping[str, bytes | None]) -> None:
    """Makes what `tree` would find."""
    if isinstance(folder, Shelf):
        folder.put(files)
        return
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
