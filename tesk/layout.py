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
from typing import Final

from msgspec import Struct

from tesk.tes import WILDCARDS, FileType, Input, Task

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


class Trees:
    """Paths none of which lies below another, in the order of `by_component`; each stands for all that is below it."""

    def __init__(self, tops: tuple[str, ...]) -> None:
        self.tops = tops

    def __contains__(self, path: str) -> bool:
        """True for one of the paths and for what lies below one."""
        n = bisect_right(self.tops, by_component(path), key=by_component)
        return n > 0 and _is_below(path, self.tops[n - 1])

    def is_above(self, path: str) -> bool:
        """True when one of the paths lies below this one."""
        above = path.rstrip("/") + "/"
        n = bisect_left(self.tops, by_component(above), key=by_component)
        return n < len(self.tops) and self.tops[n].startswith(above)

    def children(self, path: str) -> set[str]:
        """The names in a directory that lead to these paths."""
        above = path.rstrip("/") + "/"
        names = set()
        n = bisect_left(self.tops, by_component(above), key=by_component)
        while n < len(self.tops) and self.tops[n].startswith(above):
            names.add(name := self.tops[n][len(above) :].partition("/")[0])
            n = bisect_left(self.tops, by_component(above + name) + "\1", n, key=by_component)
        return names


class Layout(Struct, frozen=True):
    """How a task's paths reach its containers; all are absolute container paths, normalised and in order.

    `mounts`: directories mounted from the scratch volume. `files`: single files (or staged directories) mounted.
    `directories`: to be made on the scratch volume, writable by all. `touched`: files to be made, empty.
    `copied_in`: merged into the container before an executor. `copied_out`: outputs, perhaps with wildcards, copied
    out after each executor and in before the next.
    """

    mounts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()
    copied_in: tuple[str, ...] = ()
    copied_out: tuple[str, ...] = ()

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
    def uncopied(self) -> list[str] | None:
        """Where some paths are copied, those that are not, with what is below them; None where none is copied."""
        return [*self.mounts, *self.files] if self.has_copies else None

    def covers(self, path: str) -> bool:
        """True when the path lies in what is mounted."""
        return normal(path) in Trees(self.mounts) or normal(path) in Trees(self.files)


def normal(path: str) -> str:
    """The path without doubled or trailing slashes and dots."""
    return "/" + posixpath.normpath(path).strip("/")


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
    parents = [*_input_directories(task), *map(_parent, _output_paths(task)), *map(_parent, _stdio(task))]
    homes = _topmost(volumes | {directory for directory in parents if not is_protected(directory)})
    mounts = _merged(homes)
    mounted = Trees(mounts)

    inputs = {path for given in task.inputs or () if (path := normal(given.path)) not in mounted}
    directories_in = {normal(given.path) for given in task.inputs or () if _is_directory(given)}
    copied_in = {path for path in inputs & directories_in if is_protected(path)}
    touched = {path for path in _stdio(task, written=True) if path not in mounted} - inputs
    files = _topmost((inputs - copied_in) | touched)
    alone = Trees(files)
    copied_out = {path for path in _output_paths(task) if path not in mounted and path not in alone}
    workdirs = {normal(executor.workdir) for executor in task.executors if executor.workdir}
    wanted = {*homes, *volumes, *workdirs, *map(_parent, [*_output_paths(task), *_stdio(task)])}
    directories = {path for path in wanted if path in mounted} | set(mounts)
    if copied_in or copied_out:
        directories.add(COPIES)
    return Layout(mounts, files, *map(_in_order, (directories, touched, copied_in, copied_out)))


def _parent(path: str) -> str:
    return posixpath.dirname(path)


def _in_order(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=by_component))


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _input_directories(task: Task) -> Iterator[str]:
    for given in task.inputs or ():
        path = normal(given.path)
        yield path if _is_directory(given) else _parent(path)


def _is_directory(given: Input) -> bool:
    return given.type is FileType.DIRECTORY or (given.type is None and given.path.endswith("/"))


def _output_paths(task: Task) -> Iterator[str]:
    """Output paths; one with wildcards in a directory ends at that directory's first entry."""
    for output in task.outputs or ():
        path = normal(output.path)
        match = WILDCARDS.search(path)
        if match is None:
            yield path
        else:
            end = path.find("/", match.end())
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
