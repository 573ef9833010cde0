"""What every kind of storage does: one small protocol, and what passes through it.

The schemes behind it are the packages of `tesk.filer.schemes`; the registry of them is `tesk.schemes`.
"""

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from tesk.filer.attributes import UNKNOWN, Attributes
from tesk.filer.bounds import Listed
from tesk.filer.errors import TransferError
from tesk.filer.memory import Memory
from tesk.filer.plan import FilerSettings
from tesk.filer.reach import Reach
from tesk.filer.retry import persist
from tesk.filer.streams import Meter, Sink, Source

T = TypeVar("T")


class Kind(enum.Enum):
    FILE = "FILE"
    DIRECTORY = "DIRECTORY"


class FileInfo(NamedTuple):
    """What is at a URL; for a file its size, and of either its attributes, if the store tells."""

    kind: Kind
    size: int | None = None
    attributes: Attributes = UNKNOWN


class Entry(NamedTuple):
    """Something below a directory: its path relative to it (no leading slash), its size if the store tells."""

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
    heed: Callable[[TransferError], None] = lambda _: None
    listed: Listed = Listed()

    def exhaust(self, call: Callable[[], T], moved: Callable[[], int] = lambda: 0) -> T:
        """The result of a part of a transfer, tried again as the whole would be, which is not tried again for it.

        `heed` hears of what passes, such as a store that pushes back. Raises TransferError, Stopped.
        """
        try:
            return persist(call, self.settings.retries, self.meter.stop, moved, self.heed)
        except TransferError as error:
            error.passing = False
            raise


class Scheme(Protocol):
    """One kind of storage. Threads call it at once; each method raises TransferError or Stopped.

    A call makes one try: the caller repeats what failed with a passing error, on a restarted Sink or Source.
    Connections are made by `Context.reach`, which knows where tasks may not go.
    """

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        """What is there. Where the protocol cannot tell, what was declared."""

    def entries(self, url: str) -> Iterator[Entry]:
        """All that is below a directory, at any depth, counted by `Context.listed`."""

    def child(self, url: str, relative: str) -> str:
        """The URL of what lies at `relative` below the directory `url`, escaped as the scheme wants it."""

    def fetch(self, url: str, sink: Sink) -> None:
        """Writes the whole file to `sink`.

        What the store says of the bytes goes to `sink.checksums`; they are compared once the file is whole. What it
        says of the file goes to `sink.attributes`, which hold what `find` or `entries` told of it. A scheme
        that also has `fetch_part` calls `sink.offer` before it writes, and writes no further than `sink.end`.
        """

    def push(self, source: Source, url: str) -> None:
        """Makes `url` a file with what `source` holds; makes its parents where the store has such.

        Where the store has them, the file gets `source.attributes` too.
        """

    def make_directory(self, url: str) -> None:
        """Makes an empty directory, where the store has such."""

    def close(self) -> None:
        """Ends every connection, also those in use."""


@runtime_checkable
class Ranged(Protocol):
    """A scheme whose store gives parts of a file: supports parallel and resumed downloads."""

    def fetch(self, url: str, sink: Sink) -> None:
        """As a Scheme does."""

    def fetch_part(self, url: str, sink: Sink) -> None:
        """Writes the bytes from `sink.position` up to `sink.end`. Raises Changed unless they are `sink.version`."""
