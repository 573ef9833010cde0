"""The protocol that every storage scheme implements, and the values that pass through it.

A scheme is a package of `tesk.filer.schemes`, declared in `tesk.schemes`. It is imported when the first URL of its kind
comes along: a task that stages one file over FTP never pays for TLS or for an object store's library.
"""

import contextlib
import enum
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from tesk import schemes
from tesk.filer.access import judge
from tesk.filer.attributes import UNKNOWN, Attributes
from tesk.filer.bounds import Listings
from tesk.filer.errors import TransferError
from tesk.filer.memory import Memory
from tesk.filer.plan import FilerSettings
from tesk.filer.reach import Reach
from tesk.filer.retry import with_retries
from tesk.filer.streams import Meter, Sink, Source

T = TypeVar("T")


class Kind(enum.Enum):
    FILE = "FILE"
    DIRECTORY = "DIRECTORY"


class FileInfo(NamedTuple):
    """What is at a URL: file or directory, the size of a file, and the attributes, as far as the store tells them."""

    kind: Kind
    size: int | None = None
    attributes: Attributes = UNKNOWN


class Entry(NamedTuple):
    """One file or directory below another: the path relative to the upper one (no leading slash), the size if known."""

    relative: str
    is_directory: bool
    size: int | None = None
    attributes: Attributes = UNKNOWN


class Context(NamedTuple):
    """What a scheme needs to know of the step it works for."""

    settings: FilerSettings
    meter: Meter
    warn: Callable[[str], None]
    reach: Reach = Reach()
    memory: Memory = Memory()
    on_passing_error: Callable[[TransferError], None] = lambda _: None
    listings: Listings = Listings()

    def retry_part(self, call: Callable[[], T], moved: Callable[[], int] = lambda: 0) -> T:
        """Repeats one part of a transfer as a whole one is repeated; when the part fails, the whole is not repeated.

        `on_passing_error` is called with each passing error. Raises TransferError, Stopped.
        """
        try:
            return with_retries(call, self.settings.retries, self.meter.stop, moved, self.on_passing_error)
        except TransferError as error:
            error.passing = False
            raise


class Scheme(Protocol):
    """One kind of storage. Several threads call it at the same time; each method raises TransferError or Stopped.

    A call makes one try. After a passing error the caller repeats the call, with a restarted Sink or Source.
    Connections are made by `Context.reach`, which knows where tasks may not go.
    """

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        """What is at the URL. Where the protocol cannot tell file from directory, what was declared."""

    def entries(self, url: str) -> Iterator[Entry]:
        """Everything below a directory, at any depth, counted by `Context.listings`."""

    def child(self, url: str, relative: str) -> str:
        """The URL of what lies at `relative` below the directory `url`, escaped as the scheme wants it."""

    def fetch(self, url: str, sink: Sink) -> None:
        """Writes the whole file to `sink`.

        What the store says of the bytes goes to `sink.checksums`; they are compared once the file is whole. What it
        says of the file goes to `sink.attributes`, which hold what `find` or `entries` told of it. A scheme
        that also has `fetch_part` calls `sink.offer` before it writes, and writes no further than `sink.end`.
        """

    def push(self, source: Source, url: str) -> None:
        """Writes `source` to the file `url`, and makes the parent directories, where the store has directories.

        Where the store keeps attributes, the file gets `source.attributes`.
        """

    def make_directory(self, url: str) -> None:
        """Makes an empty directory, where the store has directories."""

    def close(self) -> None:
        """Ends every connection, also those in use."""


@runtime_checkable
class Ranged(Protocol):
    """A scheme whose store gives parts of a file: supports parallel and resumed downloads."""

    def fetch(self, url: str, sink: Sink) -> None:
        """As a Scheme does."""

    def fetch_part(self, url: str, sink: Sink) -> None:
        """Writes the bytes from `sink.position` up to `sink.end`. Raises Changed unless they are `sink.version`."""


class Schemes:
    """The schemes opened for one step."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._judge = judge(context.settings.access)
        self._open: dict[str, Scheme] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> Scheme:
        """The scheme that serves `url`. Raises TransferError for an unknown one and for what is closed to the task."""
        declared = schemes.serving(url)
        if declared is None:
            known = ", ".join(sorted(schemes.READABLE))
            name = schemes.name_of(url)
            raise TransferError(f"unsupported URL scheme {name!r}", f"use one of {known}, or an absolute path", tries=0)
        if refusal := self._judge.decide(url).refusal:
            raise TransferError(refusal, tries=0)
        with self._lock:
            if declared.package not in self._open:
                self._open[declared.package] = _module(declared, "scheme").open_scheme(self._context)
            return self._open[declared.package]

    def close(self) -> None:
        for scheme in self._open.values():
            scheme.close()


def with_credentials(environ: Mapping[str, str]) -> list[str]:
    """`s3://` and the like, as far as the environment has a key, a file or an identity for them. Asks nobody."""
    found = []
    for declared in schemes.DECLARATIONS:
        with contextlib.suppress(TransferError):  # what is named cannot be used; each transfer says why
            if declared.identity and _module(declared, declared.identity).is_configured(environ):
                found += [f"{name}://" for name in declared.ports]
    return found


def _module(declared: schemes.Declaration, name: str) -> Any:
    return importlib.import_module(f"tesk.filer.schemes.{declared.package}.{name}")
