"""How much a foreign server, or a tree that a task has made, may have the filer read, hold and visit: every bound.

What is counted is told in the error: which bound was met, and by what. They are far above what real stores and tasks
have, and low enough that eight listings at once fit into the memory of a filer.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from tesk.filer.errors import TransferError

MAX_ENTRIES: Final = 1_000_000
"""Files and directories that the listings of one step hold together, and paths that one pattern looks at."""
MAX_NAMES_BYTES: Final = 256 * 1024 * 1024
"""The length of their paths together."""
MAX_BUNDLE_ENTRIES: Final = 100_000
"""Entries of one DRS bundle: each may cost a request."""
MAX_DEPTH: Final = 200
"""Directories, or bundles, one inside another."""
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
"""One answer that is held whole: a listing or a page of it, a document, an index page."""
MAX_DOCUMENTS_BYTES: Final = 32 * 1024 * 1024
"""Documents of DRS servers that are kept, so as not to be asked for again."""
MAX_PAGES: Final = 10_000
"""Pages of one listing. The stores give a thousand entries on each, but may give none."""
MAX_XML_DEPTH: Final = 100
MAX_XML_ELEMENTS: Final = 10_000
"""Elements of one XML document outside of its entries, or in one of them."""
MAX_HEAD_BYTES: Final = 256 * 1024
"""The head of one HTTP answer with whatever comes before it, or one reply of an FTP server, the greeting among them."""
MAX_TRAILER_LINES: Final = 100
"""Lines behind the last chunk of an HTTP answer."""
MAX_TOKEN_BYTES: Final = 1024 * 1024
"""The answer of a token endpoint."""
MAX_SIZE_DIGITS: Final = 19
"""Digits of the size of a file."""


class Listing:
    """Counts the entries of one listing; `what` is who lists them, for errors."""

    def __init__(self, step: "Listings", what: str, most: int) -> None:
        self._step = step
        self._what = what
        self._most = most
        self.entries = 0
        self.names_bytes = 0

    def add(self, path: str | bytes) -> None:
        """One entry more. Raises TransferError for one too many."""
        self.entries += 1
        self.names_bytes += len(path)
        if self.entries > self._most:
            raise TransferError(f"{self._what} lists more than {self._most:,} entries", "name what is needed")
        self._step.add(1, len(path), self._what)


class Listings:
    """What the listings of one step hold together. Any thread may list."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries = 0
        self._names_bytes = 0

    @contextlib.contextmanager
    def listing(self, what: str, most: int = MAX_ENTRIES) -> Iterator[Listing]:
        """Counts one listing. One that fails does not count any more, for it is begun anew."""
        listing = Listing(self, what, most)
        try:
            yield listing
        except BaseException:
            with self._lock:
                self._entries -= listing.entries
                self._names_bytes -= listing.names_bytes
            raise

    def add(self, entries: int, names_bytes: int, what: str) -> None:
        with self._lock:
            self._entries += entries
            self._names_bytes += names_bytes
            if self._entries <= MAX_ENTRIES and self._names_bytes <= MAX_NAMES_BYTES:
                return
            too_many = self._entries > MAX_ENTRIES
        bound = f"{MAX_ENTRIES:,} entries" if too_many else f"{MAX_NAMES_BYTES:,} bytes of names"
        raise TransferError(
            f"{what} lists so much that there are more than {bound} in all", "name what is needed, or use fewer tasks"
        )


def check_depth(depth: int, path: str) -> None:
    """Raises TransferError for what lies too deep."""
    if depth > MAX_DEPTH:
        raise TransferError(f"{path[:200]!r} is nested deeper than {MAX_DEPTH}", "check for link loops")


def pages(peer: str) -> Iterator[int]:
    """Counts the pages of one listing. Raises TransferError when `peer` lists on and on."""
    yield from range(MAX_PAGES)
    raise TransferError(f"{peer} lists on {MAX_PAGES:,} pages and more", "check the store")


def size_of(text: str) -> int | None:
    """A size as stores write it; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_SIZE_DIGITS else None
