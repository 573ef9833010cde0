"""Brings a task's inputs into its scratch volume.

First every input is looked up (all at once): a file is one arrival, a directory as many as it holds. Then the list
is merged, later inputs winning, so that no file is fetched in vain. Then files are fetched, each URL once, and put
into place when they are whole, as private copies that any user of the image can change, with the times that their
stores tell. Directories get theirs last, when nothing is put into them any more.
"""

import contextlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from tesk.filer.attributes import UNKNOWN, Attributes
from tesk.filer.copies import copy
from tesk.filer.download import Download
from tesk.filer.errors import TransferError, from_file, printable, redact, sentence
from tesk.filer.jail import Scratch
from tesk.filer.landing import Landing
from tesk.filer.plan import InputsPlan, Large, Typed
from tesk.filer.scheme import Kind
from tesk.filer.scratch import prepare, staging
from tesk.filer.step import Step
from tesk.filer.streams import Sink
from tesk.layout import MANY, Trees
from tesk.tes import Input

MOST_COPIED: Final = 1024**3


class Arrival(NamedTuple):
    """One file or directory to be: its container path and, for a file, its URL or content; what is known of it."""

    path: str
    is_directory: bool
    url: str
    content: str | None = None
    size: int | None = None
    attributes: Attributes = UNKNOWN


def fetch_inputs(plan: InputsPlan, step: Step) -> None:
    """Makes the scratch ready and fetches all. Raises TransferError (a whole sentence), OSError, Stopped."""
    prepare(plan.root, plan.directories, plan.files)
    if not plan.inputs:
        return
    found: list[list[Arrival]] = [[] for _ in plan.inputs]

    def look_up(n: int, given: Input) -> None:
        found[n] = _arrivals(given, step)

    step.run([partial(look_up, n, given) for n, given in enumerate(plan.inputs)])
    if any(given.type is None for given in plan.inputs):
        step.emit(Typed("".join("D" if arrivals[0].is_directory else "F" for arrivals in found)))
    directories, files = merge(found)
    step.meter.expect([arrival.size for arrival in files])
    alone = large(plan, found)
    for path in alone:
        step.emit(Large(path))
    scratch = Scratch(plan.root, None if plan.uncopied is None else [*plan.uncopied, *alone])
    for directory in directories:
        _make_directory(scratch, directory.path)
    with staging(scratch.root) as folder, contextlib.closing(Landing(scratch, folder)) as landing:
        step.run([_Arriving(same, landing, step).begin for same in twins(files)])
    for directory in directories:
        if directory.attributes is not UNKNOWN:
            _make_directory(scratch, directory.path, directory.attributes)


def large(plan: InputsPlan, found: Sequence[Sequence[Arrival]]) -> list[str]:
    """The files that are not copied into containers, though they lie where others are: the largest, so that the others
    have no more than MOST_COPIED bytes together. One whose size is not told may be large. Each has a mount of its own,
    so there are at most MANY."""
    if plan.uncopied is None or plan.copies_all:
        return []
    uncopied, room = Trees(plan.uncopied), MOST_COPIED
    files = {first.path: first.size for first, *_ in found if not first.is_directory and first.path not in uncopied}
    alone = []
    for path, size in sorted(files.items(), key=lambda file: (file[1] is None, file[1])):
        room -= MOST_COPIED + 1 if size is None else size
        if room < 0:
            alone.append(path)
    return alone[-MANY:]


def _arrivals(given: Input, step: Step) -> list[Arrival]:
    path = posixpath.normpath("/" + given.path.lstrip("/"))
    if given.content or not given.url:
        content = given.content or ""
        return [Arrival(path, False, "", content, len(content.encode()))]
    declared = Kind(given.type.value) if given.type else None
    url = given.url
    try:
        scheme = step.schemes.of(url)
        found = step.with_retries(lambda: scheme.find(url, declared))
        if found.kind is Kind.FILE:
            return [Arrival(path, False, url, None, found.size, found.attributes)]
        entries = step.with_retries(lambda: list(scheme.entries(url)))
    except TransferError as error:
        raise _failed(given.url, error) from error
    below = [Arrival(path, True, url, attributes=found.attributes)]
    for entry in entries:
        where = posixpath.normpath(posixpath.join(path, entry.relative))
        if entry.relative.startswith("/") or ".." in entry.relative.split("/"):
            raise TransferError(f"input {redact(url)}: the store lists {entry.relative!r}, which lies outside of it")
        child = scheme.child(url, entry.relative)
        below.append(Arrival(where, entry.is_directory, child, None, entry.size, entry.attributes))
    return below


def _failed(url: str, error: TransferError) -> TransferError:
    return TransferError(sentence("input", url, error))


def merge(found: Sequence[Sequence[Arrival]]) -> tuple[list[Arrival], list[Arrival]]:
    """The directories and the files that remain when later inputs win, in order of path.

    Raises TransferError where one path would have to be both.
    """
    files: dict[str, Arrival] = {}
    directories: dict[str, Arrival] = {}
    for arrivals in found:
        for arrival in arrivals:
            (directories if arrival.is_directory else files)[arrival.path] = arrival
    needed = dict(directories)
    for arrival in (*files.values(), *directories.values()):
        above = posixpath.dirname(arrival.path)
        while above != "/" and above not in needed:
            needed[above] = arrival
            above = posixpath.dirname(above)
    for path in sorted(files.keys() & needed.keys()):
        first, second = (printable(redact(a.url) or a.path) for a in (files[path], needed[path]))
        raise TransferError(
            f"inputs {first} and {second} collide: {printable(path)} would be both a file and a directory; "
            "give one of them another path"
        )
    return [directories[path] for path in sorted(directories)], [files[path] for path in sorted(files)]


def _make_directory(scratch: Scratch, path: str, attributes: Attributes = UNKNOWN) -> None:
    try:
        fd = scratch.make_directory(path)
        try:
            with contextlib.suppress(PermissionError):  # of a folder that the kubelet has made, to mount it
                attributes.set_time(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise TransferError(
            f"input directory {printable(path)}: {from_file(error, 'in the scratch').answer}"
        ) from error


class _Arriving:
    """Arrivals of the same bytes: fetched once, copied for each further path."""

    def __init__(self, twins: Sequence[Arrival], landing: Landing, step: Step) -> None:
        self.first, *self.others = twins
        self._landing = landing
        self._step = step
        self._hidden = ""
        self._fd = -1

    def begin(self) -> None:
        """The job that fetches it, or begins to. Raises TransferError (a whole sentence), Stopped."""
        with _told(self.first):
            self._fd, self._hidden = self._landing.new()
        if self.first.content is None:
            _, _, url, _, size, known = self.first
            words = partial(_told, self.first)
            Download(url, size, known, self._fd, self._step, self.done, self.ended, words).run()
            return
        try:
            with _told(self.first):
                Sink(self._fd, self._step.meter, expected=self.first.size).write(self.first.content.encode())
            self.done(UNKNOWN)
        finally:
            self.ended()

    def done(self, attributes: Attributes) -> None:
        for arrival in self.others:
            with _told(arrival):
                fd, hidden = self._landing.new()
                try:
                    sink = Sink(fd, self._step.meter, expected=arrival.size)
                    sink.total = os.fstat(self._fd).st_size
                    copy(self._fd, sink)
                    self._place(arrival, fd, hidden, attributes)
                finally:
                    os.close(fd)
        with _told(self.first):
            self._place(self.first, self._fd, self._hidden, attributes)

    def _place(self, arrival: Arrival, fd: int, hidden: str, attributes: Attributes) -> None:
        self._landing.place(fd, hidden, arrival.path, attributes)
        self._step.meter.add(0, files=1)

    def ended(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def _told(arrival: Arrival) -> Iterator[None]:
    """Makes what goes wrong with an arrival a whole sentence."""
    try:
        yield
    except TransferError as error:
        raise _failed(arrival.url or arrival.path, error) from error
    except OSError as error:
        failure = from_file(error, f"writing {printable(arrival.path)}")
        raise _failed(arrival.url or arrival.path, failure) from error


def twins(files: Sequence[Arrival]) -> list[list[Arrival]]:
    """The files in order, those of one URL together."""
    together: dict[str, list[Arrival]] = {}
    for n, arrival in enumerate(files):
        together.setdefault(arrival.url or f"content {n}", []).append(arrival)
    return list(together.values())
