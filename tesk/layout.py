"""Where each path of a task lies on the scratch volume and how it gets into a container (pure, no I/O).

The scratch root mirrors the containers' paths, so the only question is what is mounted from it. Directories that
hold the task's files are mounted, the topmost of nested ones once. Directories that an image is likely to need are
never hidden: there a file is mounted alone, and what cannot be mounted (an output that must not exist yet, a
directory merged into one of the image's) is copied in before and out after each executor.

What is mounted may be changed by the user's program, and the next container is given the same folder by its path. So
nothing that is mounted lies below something else that is: a program can rename whatever it finds inside a mount, but
never the folder that the mount comes from. Copies have a folder of their own for the same reason.

A task may have tens of thousands of paths, so nothing here compares each with each.
"""

import posixpath
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

from msgspec import Struct

from tesk.patterns import globs
from tesk.tes import WILDCARDS, FileType, Input, Task, normal

TREES: Final = re.compile(
    r"/(bin|sbin|lib[^/]*|usr|etc|opt|boot|dev|proc|sys|run|nix|snap|\.tesk"
    r"|var/(lib/(dpkg|apt|rpm|apk|pacman)|run|www)|root/\.[^/]+|home/[^/]+/\.[^/]+)(/.*)?"
)
KERNEL: Final = ("/dev/", "/proc/", "/sys/")
ALONE: Final = re.compile(r"/|/(root|srv|mnt|media)|/(home|var)(/[^/]+)?")
COPIES: Final = "/.tesk/files"
"""Where copied paths lie: container path P at this + P, in containers and on the scratch volume alike."""
MANY: Final = 100
"""More mounts than this with a parent in common become one mount of the parent."""
MOST_TAKEN: Final = 1000
"""More words than these have no room among a program's arguments."""


class Trees:
    """Paths none of which lies below another; each stands for all that is below it."""

    def __init__(self, tops: Iterable[str]) -> None:
        self._tops = _in_order(tops)
        self._keys = list(map(by_component, self._tops))

    def __contains__(self, path: str) -> bool:
        """True for one of the paths and for what lies below one."""
        n = bisect_right(self._keys, by_component(path))
        return n > 0 and _is_below(path, self._tops[n - 1])

    def is_above(self, path: str) -> bool:
        """True when one of the paths lies below this one."""
        return self._first_below(by_component(path.rstrip("/") + "/")) is not None

    def children(self, path: str) -> set[str]:
        """The names in a directory that lead to these paths."""
        above = by_component(path.rstrip("/") + "/")
        names = set()
        n = self._first_below(above)
        while n is not None:
            names.add(name := self._keys[n][len(above) :].partition("\0")[0])
            n = self._first_below(above, bisect_left(self._keys, above + name + "\1", n))
        return names

    def _first_below(self, above: str, begin: int = 0) -> int | None:
        n = bisect_left(self._keys, above, begin)
        return n if n < len(self._keys) and self._keys[n].startswith(above) else None


class Layout(Struct, frozen=True, dict=True):
    """How a task's paths reach its containers; all are absolute container paths, normalised and in order.

    `mounts`: directories mounted from the scratch volume. `files`: single files (or staged directories) mounted.
    `directories`: to be made on the scratch volume, writable by all. `touched`: files to be made, empty.
    `copied_in`: merged into the container before an executor. `copied_out`: outputs, perhaps with wildcards, copied
    out after each executor and in before the next. `inputs`: those, the topmost of nested ones, that become the last
    executor's own.
    """

    mounts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()
    copied_in: tuple[str, ...] = ()
    copied_out: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when the task needs no scratch volume."""
        return not self.bound

    @property
    def bound(self) -> tuple[str, ...]:
        """All that is mounted from the scratch volume: each lies at the same path there and in the containers."""
        return (*((COPIES,) if self.has_copies else ()), *self.mounts, *self.files)

    @property
    def has_copies(self) -> bool:
        return bool(self.copied_in or self.copied_out)

    @property
    def taken(self) -> list[str]:
        """What the shim of the last executor takes, in its words."""
        return [f"t{path}" for path in self.inputs]

    @property
    def uncopied(self) -> list[str] | None:
        """Where some paths are copied, those that are not, with what is below them; None where none is copied."""
        return [*self.mounts, *self.files] if self.has_copies else None

    def covers(self, path: str) -> bool:
        """True when the path lies in what is mounted."""
        return normal(path) in self._mounted

    @cached_property
    def _mounted(self) -> Trees:
        return Trees([*self.mounts, *self.files])


def by_component(path: str) -> str:
    """The key that puts what lies below a path right behind it: "/a", "/a/b", "/a-b"."""
    return path.replace("/", "\0")


def is_protected(directory: str) -> bool:
    """True for a directory in which an image keeps things of its own, so that nothing may be mounted over it.

    What lies above one is protected too.
    """
    return bool(ALONE.fullmatch(directory) or TREES.fullmatch(directory))


def layout(task: Task) -> Layout:
    """The layout of a task whose paths have been validated (tes.parse)."""
    volumes = {normal(volume) for volume in task.volumes or ()}
    inputs = {normal(given.path): _is_directory(given) for given in task.inputs or ()}
    outputs = set(_output_paths(task))
    stdio, written = set(_stdio(task)), set(_stdio(task, written=True))

    parents = {path if is_directory else _parent(path) for path, is_directory in inputs.items()}
    parents |= set(map(_parent, outputs | stdio))
    homes = _topmost(volumes | {directory for directory in parents if not is_protected(directory)})
    mounts = _merged(homes)
    mounted = Trees(mounts)

    copied_in = {path for path in inputs if inputs[path] and path not in mounted and is_protected(path)}
    loose = {path for path in inputs.keys() | written if path not in mounted}
    files = _topmost(loose - copied_in)
    alone = Trees(files)
    copied_out = {path for path in outputs if path not in mounted and path not in alone}

    workdirs = {normal(executor.workdir) for executor in task.executors if executor.workdir}
    wanted = {*homes, *volumes, *workdirs, *map(_parent, outputs | stdio)}
    directories = {path for path in wanted if path in mounted or path in alone} | set(mounts)
    if copied_in or copied_out:
        directories.add(COPIES)
    touched = {path for path in loose - inputs.keys() if path in written}
    mounts = tuple(mount for mount in mounts if mount not in alone)
    own = _merged(_topmost(inputs))
    own = own if len(own) <= MOST_TAKEN else ()
    return Layout(mounts, files, *map(_in_order, (directories, touched, copied_in, copied_out, own)))


def _parent(path: str) -> str:
    return posixpath.dirname(path)


def _in_order(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=by_component))


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _is_directory(given: Input) -> bool:
    return given.type is FileType.DIRECTORY or (given.type is None and given.path.endswith("/"))


def _output_paths(task: Task) -> Iterator[str]:
    """Output paths; one with wildcards in a directory ends at that directory's first entry."""
    for output in task.outputs or ():
        for path in globs(normal(output.path)):
            match = WILDCARDS.search(path)
            end = path.find("/", match.end()) if match else -1
            yield path if end < 0 else path[:end]


def _stdio(task: Task, *, written: bool = False) -> Iterator[str]:
    for executor in task.executors:
        for path in (executor.stdout, executor.stderr, None if written else executor.stdin):
            if path and not path.startswith(KERNEL):
                yield normal(path)


def _topmost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths without those that lie below another, in order."""
    kept: list[str] = []
    for path in _in_order(paths):
        if not kept or not _is_below(path, kept[-1]):
            kept.append(path)
    return tuple(kept)


def _merged(mounts: tuple[str, ...]) -> tuple[str, ...]:
    """The mounts, where many have a parent in common the parent instead, unless it is protected; the lowest such one.

    Engines give each of thousands of files a folder of its own, and no container has room for as many mounts. Few are
    left alone, so that what the image has beside them stays visible.

    `open_` holds the common parents of the mounts up to here, each below the one before, with the number of entries
    of `kept` that come before its own: a single pass closes each once.
    """
    kept: list[str] = []
    open_: list[tuple[str, int]] = []
    for mount in (*mounts, "/"):
        common = posixpath.commonpath([kept[-1], mount]) if kept else mount
        begin = len(kept) - 1
        while open_ and len(open_[-1][0]) > len(common):
            parent, begin = open_.pop()
            if len(kept) - begin > MANY and not is_protected(parent):
                kept[begin:] = [parent]
        if kept and (not open_ or open_[-1][0] != common):
            open_.append((common, begin))
        kept.append(mount)
    return tuple(kept[:-1])
