"""The kinds of storage behind one small protocol, chosen by the scheme of a URL.

Each module is imported when the first URL of its kind comes along: a task that stages one file over FTP never pays
for TLS or for an object store's library.
"""

import enum
import importlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from tesk.filer.attributes import UNKNOWN, Attributes
from tesk.filer.bounds import Listed
from tesk.filer.errors import TransferError
from tesk.filer.memory import Memory
from tesk.filer.plan import FilerSettings
from tesk.filer.reach import Reach
from tesk.filer.retry import persist
from tesk.filer.streams import Meter, Sink, Source

T = TypeVar("T")

_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")

_AZURE_HOST: Final = re.compile(
    r"^https://[a-z0-9]{3,24}\.(z\d\d\.)?blob\.(core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)|storage\.azure\.net)(:443)?/",
    re.IGNORECASE,
)

MODULES: Final = {
    "": "tesk.filer.schemes.file.scheme",
    "az": "tesk.filer.schemes.az.scheme",
    "drs": "tesk.filer.schemes.drs.scheme",
    "file": "tesk.filer.schemes.file.scheme",
    "ftp": "tesk.filer.schemes.ftp.scheme",
    "ftps": "tesk.filer.schemes.ftp.scheme",
    "gs": "tesk.filer.schemes.gs.scheme",
    "http": "tesk.filer.schemes.http.scheme",
    "https": "tesk.filer.schemes.http.scheme",
    "s3": "tesk.filer.schemes.s3.scheme",
    "sftp": "tesk.filer.schemes.sftp.scheme",
}


class Kind(enum.Enum):
    FILE = "FILE"
    DIRECTORY = "DIRECTORY"


class Found(NamedTuple):
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

    def find(self, url: str, declared: Kind | None) -> Found:
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
class Ranged(Scheme, Protocol):
    """A scheme whose store gives parts of a file: large ones come in parallel, cut ones go on where they were."""

    def fetch_part(self, url: str, sink: Sink) -> None:
        """Writes the bytes from `sink.position` up to `sink.end`. Raises Changed unless they are `sink.version`."""


class Schemes:
    """The schemes opened for one step."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[str, Scheme] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> Scheme:
        """The scheme that serves `url`. Raises TransferError for an unknown one."""
        match = _SCHEME.match(url)
        name = match.group(1).lower() if match else ""
        if name not in MODULES or (not match and not url.startswith("/")):
            known = ", ".join(sorted(filter(None, MODULES)))
            raise TransferError(f"unsupported URL scheme {name!r}", f"use one of {known}, or an absolute path", tries=0)
        module = MODULES["az" if _AZURE_HOST.match(url) else name]
        with self._lock:
            if module not in self._open:
                self._open[module] = importlib.import_module(module).open_scheme(self._context)
            return self._open[module]

    def close(self) -> None:
        for scheme in self._open.values():
            scheme.close()
