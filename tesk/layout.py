"""Where each path of a task lies on the scratch volume and how it gets into a container (pure, no I/O).

The scratch volume has the same paths as the containers, so the only question is which of them are mounted. Directories
that hold the task's files are mounted; of nested directories only the topmost. What an image has stays visible: where
an image has something in a directory, the directory is mounted only if the task itself names it, as a volume or a
DIRECTORY. Otherwise the files in it are copied into the container before each executor and out after it, as if they
were the image's own: a program can replace and rename them. Where the container's user cannot write, an input file is
mounted alone: the program could not replace it there anyway.

The names of some directories tell what images have there. For the others (`doubtful`) the shim looks into the images
once for each task, and `layout` gets the answers. So every later layout of the task is the same.

A user's program may change what is mounted, and the next container gets the same folder by its path. So no mount lies
below another mount: a program can rename everything inside a mount, but never the folder that the mount comes from.
Copies have a folder of their own for the same reason.

A task may have tens of thousands of paths, so no function here compares every path with every other.
"""

import itertools
import posixpath
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
ALONE: Final = re.compile(r"/|/(root|srv)|/(home|var)(/[^/]+)?")
OWN: Final = re.compile(r"^/(tmp|var/tmp)(/|$)|^/(mnt|media)/|(?![0-9]{8})[0-9a-f]{8}", re.IGNORECASE)
"""Directories that no image has: for temporary files, for mounts, and with a UUID or a hash, as engines make them."""
COPIES: Final = "/.tesk/files"
"""The folder of copies, in containers and on the scratch volume: container path P lies at this path + P."""
MANY: Final = 100
"""More mounts than this in one directory become one mount of the directory."""
MOST_TAKEN: Final = 1000
"""More paths than this have no room among a program's arguments."""
MOST_ASKED: Final = 100_000
"""Characters of all paths that the shim looks at. Directories beyond them count as having something of the image."""


class Found(Struct):
    """What is known only when a task begins."""

    occupied: dict[str, bool] = {}
    """The doubtful directories in which some image has something; True where the users of all containers can write."""
    alone: list[str] = []
    """Inputs that are too large to be copied."""


NOTHING: Final = Found()
Answers = Mapping[str, int]
"""What the shim found in one image, by path: the sum of those of THERE, NOT_EMPTY and WRITABLE that are true."""
THERE: Final = 1
NOT_EMPTY: Final = 2
"""Anything but an empty directory."""
WRITABLE: Final = 4
"""A directory in which the container's user can make files."""


class Trees:
    """A set of paths, none below another. Each stands for itself and all that lies below it."""

    def __init__(self, tops: Iterable[str]) -> None:
        self._tops = _in_order(tops)
        self._keys = list(map(by_component, self._tops))

    def __contains__(self, path: str) -> bool:
        """True for each of the paths and for every path below one."""
        n = bisect_right(self._keys, by_component(path))
        return n > 0 and _is_below(path, self._tops[n - 1])

    def is_above(self, path: str) -> bool:
        """True when one of the set's paths lies below `path`."""
        return self._first_below(by_component(path.rstrip("/") + "/")) is not None

    def children(self, path: str) -> set[str]:
        """The names in the directory `path` that lead to paths of the set."""
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
    """How a task's paths get into its containers; all are absolute container paths, normalised and in order."""

    mounts: tuple[str, ...] = ()
    """Directories that are mounted from the scratch volume."""
    files: tuple[str, ...] = ()
    """Single files, or staged directories, that are mounted."""
    directories: tuple[str, ...] = ()
    """Directories to be made on the scratch volume, writable by all."""
    touched: tuple[str, ...] = ()
    """Empty files to be made."""
    copied_in: tuple[str, ...] = ()
    """Paths that are merged into the container before an executor."""
    copied_out: tuple[str, ...] = ()
    """Outputs, some with wildcards, that are copied out after each executor and in before the next."""
    inputs: tuple[str, ...] = ()
    """Inputs, of nested ones only the topmost, that the shim hands over to the user of the last executor."""

    @property
    def is_empty(self) -> bool:
        """True when the task needs no scratch volume."""
        return not self.bound

    @property
    def bound(self) -> tuple[str, ...]:
        """All that is mounted from the scratch volume, each at the same path there and in the containers."""
        return (*((COPIES,) if self.has_copies else ()), *self.mounts, *self.files)

    @property
    def has_copies(self) -> bool:
        return bool(self.copied_in or self.copied_out)

    @property
    def taken(self) -> list[str]:
        """The shim's arguments for the inputs that it hands over to the last executor's user."""
        return [f"t{path}" for path in self.inputs]

    @property
    def uncopied(self) -> list[str] | None:
        """The paths that are not copied, each with all below it; None where no path is copied."""
        return [*self.mounts, *self.files] if self.has_copies else None

    def copies(self, *, last: bool) -> list[str]:
        """The shim's arguments for what it copies. Except for the `last` executor, inputs are copied out too: the next
        executor finds them as this one has left them."""
        shared = () if last or len(self.copied_in) > MANY else self.copied_in
        kept = {path for path in shared if not is_protected(path) and not WILDCARDS.search(path)}
        brought = _merged(tuple(path for path in self.copied_in if path not in kept), lambda _: True)
        if len(brought) > MANY:
            brought = ("/.",)
        return [f"i{path}" for path in brought] + [f"o{path}" for path in _in_order({*self.copied_out, *kept})]

    def covers(self, path: str) -> bool:
        """True when the path is mounted, or lies below a mount."""
        return normal(path) in self._mounted

    @cached_property
    def _mounted(self) -> Trees:
        return Trees([*self.mounts, *self.files])


def by_component(path: str) -> str:
    """A sort key that puts the paths below a path right after it: "/a", "/a/b", "/a-b"."""
    return path.replace("/", "\0")


def is_protected(directory: str) -> bool:
    """True for a directory in which, by its name, every image has something, and for every directory above one."""
    return bool(ALONE.fullmatch(directory) or TREES.fullmatch(directory))


def is_certain(directory: str) -> bool:
    """True for a directory whose name tells what images have there."""
    return bool(TREES.fullmatch(directory) or OWN.search(directory))


def doubtful(task: Task) -> tuple[str, ...]:
    """The directories for which `layout` needs to know whether an image of the task has something there, in order."""
    return _Folders(task).asked


class _Folders:
    """The directories that hold a task's files.

    `named`: directories that the task wants whole. `asked`: directories at which the shim looks in the images.
    `crowded`: directories with so many files that a container has no room for a mount of each.
    """

    def __init__(self, task: Task) -> None:
        self.volumes = {normal(volume) for volume in task.volumes or ()}
        self.inputs = {normal(given.path): _is_directory(given) for given in task.inputs or ()}
        self.outputs = set(_output_paths(task))
        self.stdio, self.written = set(_stdio(task)), set(_stdio(task, written=True))
        self.parents = {path if is_directory else _parent(path) for path, is_directory in self.inputs.items()}
        self.parents |= set(map(_parent, self.outputs | self.stdio))
        made = {normal(output.path) for output in task.outputs or () if output.type is FileType.DIRECTORY}
        whole = {path for path, is_directory in self.inputs.items() if is_directory} | (self.parents & made)
        self.named = self.volumes | {path for path in whole if not is_protected(path)}
        self._crowds = _crowds(self.parents | self.volumes)
        files = Counter(_parent(path) for path, is_directory in self.inputs.items() if not is_directory)
        self.crowded = self._crowds | {path for path, count in files.items() if count > MANY}
        unsure = {path for path in self.parents | self._crowds if path in files or not is_protected(path)}
        candidates = {self.stand_in(path) for path in unsure - self.named}
        asked = _in_order(each for each in candidates if not is_certain(each))
        words = itertools.accumulate(len(each) * each.count("/") for each in asked)
        self.asked = tuple(each for each, sum_ in zip(asked, words, strict=True) if sum_ <= MOST_ASKED)

    def stand_in(self, directory: str) -> str:
        """The directory whose answer counts for this one: itself, or the nearest above that is common to many."""
        return next((above for above in _above(directory) if above in self._crowds), directory)


def ways(directory: str) -> list[str]:
    """The directory and all above it, from the root down."""
    return [*_above(directory)][::-1]


def to_look_at(asked: Iterable[str]) -> list[str]:
    """The paths at which the shim has to look, to know what is in these directories, in order."""
    return [*_in_order({path for directory in asked for path in ways(directory)})]


def read_answer(paths: Sequence[str], digits: str) -> dict[str, int]:
    """The shim's answer: one digit for each path. Empty where the shim could not run."""
    return {path: int(digit) for path, digit in zip(paths, digits.strip(), strict=False) if digit in "01234567"}


def occupied(asked: Iterable[str], images: Sequence[Answers]) -> dict[str, bool]:
    """Found.occupied, from the answers of each image."""
    found = {}
    for directory in asked:
        if is_protected(directory) or any(answers.get(directory, 0) & NOT_EMPTY for answers in images):
            found[directory] = all(_nearest(directory, answers) & WRITABLE for answers in images)
    return found


def _nearest(directory: str, answers: Answers) -> int:
    return next((answer for above in _above(directory) if (answer := answers.get(above, 0))), 0)


def layout(task: Task, found: Found = NOTHING) -> Layout:
    """The layout of a task whose paths have been validated (tes.parse)."""
    folders = _Folders(task)
    known = _Known(folders, found.occupied)
    volumes, inputs, outputs = folders.volumes, folders.inputs, folders.outputs

    homes = _topmost(folders.named | {directory for directory in folders.parents if known.is_free(directory)})
    mounts = _merged(homes, known.is_free)
    mounted = Trees(mounts)

    loose = {path for path in inputs.keys() | folders.written if path not in mounted}
    small = inputs.keys() & loose - set(found.alone)
    copied_in = {path for path in small if inputs[path] or known.is_writable(_parent(path))}
    files = _topmost(loose - (copied_in - folders.written))
    alone = Trees(files)
    copied_in = {path for path in copied_in if path not in alone}
    copied_out = {path for path in outputs if path not in mounted and path not in alone}

    workdirs = {normal(executor.workdir) for executor in task.executors if executor.workdir}
    wanted = {*homes, *volumes, *workdirs, *map(_parent, outputs | folders.stdio)}
    directories = {path for path in wanted if path in mounted or path in alone} | set(mounts)
    if copied_in or copied_out:
        directories.add(COPIES)
    touched = {path for path in loose - inputs.keys() if path in folders.written}
    mounts = tuple(mount for mount in mounts if mount not in alone)
    own = _merged(_topmost(inputs))
    own = own if len(own) <= MOST_TAKEN else ()
    return Layout(mounts, files, *map(_in_order, (directories, touched, copied_in, copied_out, own)))


class _Known:
    """What names and the images' answers tell about directories."""

    def __init__(self, folders: _Folders, found: Mapping[str, bool]) -> None:
        self._stand_in, self._found, self._crowded = folders.stand_in, found, folders.crowded
        self._empty = set(folders.asked) - found.keys()

    def is_free(self, directory: str) -> bool:
        """True when the directory may be mounted whole: no image has anything there, or its many files can neither be
        copied there nor have a mount each."""
        if is_protected(directory) or is_certain(directory):
            return not is_protected(directory)
        asked = self._stand_in(directory)
        has_no_other_way = asked in self._crowded and self._found.get(asked) is False
        return is_certain(asked) or asked in self._empty or has_no_other_way

    def is_writable(self, directory: str) -> bool:
        """True when an image has something in the directory and the users of all containers can write there."""
        return self._found.get(self._stand_in(directory), False)


def _above(directory: str) -> Iterator[str]:
    """The directory and all above it, nearest first."""
    yield directory
    while directory != "/":
        yield (directory := _parent(directory))


def _crowds(directories: Iterable[str]) -> set[str]:
    """The directories with more than MANY of the given ones below; further up, such a crowd counts as one directory."""
    counts = Counter(directories)
    for above in {above for directory in counts for above in _above(directory)}:
        counts.setdefault(above, 0)
    crowds = set()
    for directory in sorted(counts, key=lambda path: path.count("/") if path != "/" else 0, reverse=True):
        if counts[directory] > MANY:
            crowds.add(directory)
        if directory != "/":
            counts[_parent(directory)] += 1 if directory in crowds else counts[directory]
    return crowds


def _parent(path: str) -> str:
    return posixpath.dirname(path)


def _in_order(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=by_component))


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _is_directory(given: Input) -> bool:
    return given.type is FileType.DIRECTORY or (given.type is None and given.path.endswith("/"))


def _output_paths(task: Task) -> Iterator[str]:
    """Output paths. A path with a wildcard in a directory's name ends with that directory."""
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
    """The paths that lie below no other, in order."""
    kept: list[str] = []
    for path in _in_order(paths):
        if not kept or not _is_below(path, kept[-1]):
            kept.append(path)
    return tuple(kept)


def _merged(
    mounts: tuple[str, ...], may_be_mounted: Callable[[str], bool] = lambda parent: not is_protected(parent)
) -> tuple[str, ...]:
    """The mounts; but one mount of the lowest common parent in place of more than MANY mounts, if it may be mounted.

    Workflow engines give each of thousands of files a folder of its own, and no container can have so many mounts. A
    few mounts are left as they are, so that what the image has beside them stays visible.

    `open_` holds the common parents of the mounts so far, each below the one before it, with the number of entries of
    `kept` before its own entries. One pass closes each of them once.
    """
    kept: list[str] = []
    open_: list[tuple[str, int]] = []
    for mount in (*mounts, "/"):
        common = posixpath.commonpath([kept[-1], mount]) if kept else mount
        begin = len(kept) - 1
        while open_ and len(open_[-1][0]) > len(common):
            parent, begin = open_.pop()
            if len(kept) - begin > MANY and may_be_mounted(parent):
                kept[begin:] = [parent]
        if kept and (not open_ or open_[-1][0] != common):
            open_.append((common, begin))
        kept.append(mount)
    return tuple(kept[:-1])
