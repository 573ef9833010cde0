"""Paths inside a tree that its users may have filled with traps: symlinks to elsewhere, loops, fifos.

A path is first resolved to a canonical one (no symlink left), then opened as tesk.beneath does, following nothing:
whoever swaps a component in between gets an error, never a file outside the tree. For a task's scratch,
links are read as its containers read them, absolute ones from the tree's root (openat2 RESOLVE_IN_ROOT, which
seccomp profiles often withhold). For shared folders they are read as the host reads them and must stay inside.
"""

import errno
import itertools
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from tesk.beneath import DIRECTORY, LOOK, kind, open_beneath, open_file
from tesk.filer import bounds
from tesk.filer.attributes import UNKNOWN, Attributes, of_status
from tesk.filer.bounds import Listing
from tesk.filer.errors import TransferError, printable
from tesk.layout import COPIES, Trees

MAX_LINKS: Final = 40


class Tree(Protocol):
    """A tree of files with its own reading of symlinks."""

    def resolve(self, path: str) -> str:
        """The canonical path of what exists at `path`. Raises OSError (ENOENT, ELOOP, EACCES)."""

    def open(self, canonical: str, flags: int) -> int:
        """A descriptor of a canonical path, for LOOK or DIRECTORY. Raises OSError."""

    def open_file(self, canonical: str) -> int:
        """A descriptor to read a canonical path. Raises OSError, and NotAFile for what is no regular file."""

    def names(self, canonical: str) -> list[str]:
        """What a directory holds, in order. Raises OSError, TransferError where that is too much."""


class Scratch:
    """A task's scratch volume: container path P lies at `root` + P.

    `uncopied`: the paths for which this is so where others are copied; those lie below `root` + COPIES. What the
    containers have above such a path is theirs and plain directories here.
    """

    def __init__(self, root: str, uncopied: Sequence[str] | None = None) -> None:
        above, name = os.path.split(os.path.abspath(root))
        self.root = os.path.join(os.path.realpath(above), name)
        self._uncopied = None if uncopied is None else Trees(uncopied)

    def where(self, path: str) -> str:
        """Where below the root a container path lies."""
        return path if self._uncopied is None or path in self._uncopied else COPIES + path

    def resolve(self, path: str, *, missing_ok: bool = False) -> str:
        """As Tree; with `missing_ok` the components from the first missing one on are taken as they are."""
        todo = [part for part in reversed(path.split("/")) if part]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                del done[-1:]
                continue
            here = "/" + "/".join([*done, part])
            if self._uncopied is not None and self._uncopied.is_above(here):
                done.append(part)
                continue
            try:
                target = os.readlink(self.root + self.where(here))
            except FileNotFoundError:
                if not missing_ok:
                    raise
                return "/" + "/".join([*done, part, *(p for p in reversed(todo) if p != ".")])
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                done.clear()
            todo.extend(p for p in reversed(target.split("/")) if p)
        return "/" + "/".join(done)

    def open(self, canonical: str, flags: int) -> int:
        return open_beneath(self.root, self.where(canonical), flags)

    def open_file(self, canonical: str) -> int:
        return open_file(self.root, self.where(canonical))

    def names(self, canonical: str) -> list[str]:
        found = _listed(self.open(canonical, DIRECTORY), canonical)
        return sorted(found if self._uncopied is None else {*found, *self._uncopied.children(canonical)})

    def open_parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the directory of `path`, made with its parents (0777) if need be, and the last name."""
        parent, name = self.resolve(posixpath.dirname(path), missing_ok=True), posixpath.basename(path)
        where = posixpath.dirname(self.where(posixpath.join(parent, name)))
        return open_beneath(self.root, where, DIRECTORY, make_mode=0o777), name

    def make_directory(self, path: str) -> int:
        """A descriptor of the directory, made with its parents (0777) if need be."""
        where = self.where(self.resolve(path, missing_ok=True))
        return open_beneath(self.root, where, DIRECTORY, make_mode=0o777)


class Shared:
    """Folders of the host that tasks may use; everything else is outside."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = [os.path.realpath(os.path.expanduser(root)) for root in roots]

    def resolve(self, path: str) -> str:
        # First the check, then the look: an error must not tell whether something exists outside.
        self.root_of(os.path.realpath(path), path)
        real = os.path.realpath(path, strict=True)
        self.root_of(real, path)
        return real

    def root_of(self, real: str, path: str) -> str:
        """The root that holds a canonical path. Raises TransferError when none does."""
        for root in self.roots:
            if real == root or real.startswith(root.rstrip("/") + "/"):
                return root
        raise TransferError(
            f"{printable(path)} is outside the folders that tasks may use",
            "use one of them, or have the folder added to file_roots",
        )

    def open(self, canonical: str, flags: int) -> int:
        root = self.root_of(canonical, canonical)
        return open_beneath(root, canonical[len(root) :], flags)

    def open_file(self, canonical: str) -> int:
        root = self.root_of(canonical, canonical)
        return open_file(root, canonical[len(root) :])

    def names(self, canonical: str) -> list[str]:
        return sorted(_listed(self.open(canonical, DIRECTORY), canonical))

    def open_parent(self, path: str) -> tuple[int, str]:
        """As Scratch.open_parent, with the permissions that the process' umask gives."""
        parent = os.path.realpath(posixpath.dirname(path))
        root = self.root_of(parent, path)
        return open_beneath(root, parent[len(root) :], DIRECTORY, make_mode=0), posixpath.basename(path)


class Node(NamedTuple):
    """Something in a walked tree: its path relative to the top ("" is the top itself), and where it really is."""

    relative: str
    canonical: str
    is_directory: bool
    size: int
    attributes: Attributes = UNKNOWN


Warn = Callable[[str], None]


def look(tree: Tree, path: str) -> tuple[str, os.stat_result]:
    """The canonical path and the status of what `path` leads to. Raises OSError."""
    canonical = tree.resolve(path)
    fd = tree.open(canonical, LOOK)
    try:
        return canonical, os.fstat(fd)
    finally:
        os.close(fd)


def _listed(fd: int, path: str) -> list[str]:
    """What an open directory holds; it is closed. Raises OSError, TransferError where that is too much."""
    try:
        with os.scandir(fd) as entries:
            found = [entry.name for entry in itertools.islice(entries, bounds.MAX_ENTRIES + 1)]
    finally:
        os.close(fd)
    if len(found) > bounds.MAX_ENTRIES:
        raise TransferError(f"{printable(path)} holds more than {bounds.MAX_ENTRIES:,} entries", "use folders")
    return found


class _Chain(NamedTuple):
    """A directory on the way down, and those above it."""

    relative: str
    canonical: str
    above: "_Chain | None"
    links: int
    attributes: Attributes = UNKNOWN

    def loops(self) -> bool:
        here = self.above
        while here is not None:
            if here.canonical == self.canonical:
                return True
            here = here.above
        return False


def walk(tree: Tree, top: str, warn: Warn, listing: Listing) -> Iterator[Node]:
    """Every file below `top`, and every directory before what is in it, `top` first; symlinks are followed.

    What is neither file nor directory, leads outside or loops is left out with a warning. Each name that is
    looked at is counted. Raises OSError, TransferError.
    """
    pending = [_Chain("", tree.resolve(top), None, 0)]
    while pending:
        here = pending.pop()
        yield Node(here.relative, here.canonical, True, 0, here.attributes)
        for name in tree.names(here.canonical):
            listing.add(f"{here.relative}/{name}")
            shown = printable(posixpath.join(top, here.relative, name))
            try:
                below = _enter(tree, here, name)
                status = look(tree, below.canonical)[1]
            except (OSError, TransferError) as error:
                reason = error.answer if isinstance(error, TransferError) else str(error.strerror).lower()
                warn(f"{shown} was left out: {reason}")
                continue
            if stat.S_ISREG(status.st_mode):
                yield Node(below.relative, below.canonical, False, status.st_size, of_status(status))
            elif not stat.S_ISDIR(status.st_mode):
                warn(f"{shown} was left out: it is {kind(status.st_mode)}")
            elif below.links > MAX_LINKS or (below.links and below.loops()):
                warn(f"{shown} was left out: its links loop")
            else:
                pending.append(below._replace(attributes=of_status(status)))


def _enter(tree: Tree, here: _Chain, name: str) -> _Chain:
    path = posixpath.join(here.canonical, name)
    canonical = tree.resolve(path)
    return _Chain(posixpath.join(here.relative, name), canonical, here, here.links + (canonical != path))
