"""Where each path of a task lies on the scratch volume and how it gets into a container (pure, no I/O).

The scratch root mirrors the containers' paths, so the only question is what is mounted from it. Directories that
hold the task's files are mounted, the topmost of nested ones once. What an image has stays visible: a directory in
which one has something is mounted only where the task itself names it, as a volume or a DIRECTORY. Else the files in it
are copied into the container before and out after each executor, as if they were the image's own: they can be replaced
and renamed. Where the container's user may not write, an input is mounted alone; the program could not replace it there
anyway.

Of some directories it is certain what images have there, by their names. About the others (`doubtful`) the images are
asked once for each task, and `layout` is given the answers: whoever lays out later comes to the same.

What is mounted may be changed by the user's program, and the next container is given the same folder by its path. So
nothing that is mounted lies below something else that is: a program can rename whatever it finds inside a mount, but
never the folder that the mount comes from. Copies have a folder of their own for the same reason.

A task may have tens of thousands of paths, so nothing here compares each with each.
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
"""Names that no image has: those of temporary files and of mounts, and with a UUID or a hash, which engines make."""
COPIES: Final = "/.tesk/files"
"""Where copied paths lie: container path P at this + P, in containers and on the scratch volume alike."""
MANY: Final = 100
"""More mounts than this with a parent in common become one mount of the parent."""
MOST_TAKEN: Final = 1000
"""More words than these have no room among a program's arguments."""
MOST_ASKED: Final = 100_000
"""Characters of the directories, and those above them, that images are asked about: more are taken for theirs."""


class Found(Struct):
    """What shows only when a task begins.

    `occupied`: the directories asked about in which some image has something, each with whether the users of all
    containers can write there. `alone`: inputs that are too large to be copied.
    """

    occupied: dict[str, bool] = {}
    alone: list[str] = []


NOTHING: Final = Found()
Answers = Mapping[str, int]
"""What one image has at some paths, as the shim tells it: the sum of THERE, NOT_EMPTY and WRITABLE that apply."""
THERE: Final = 1
NOT_EMPTY: Final = 2
"""Anything but an empty directory."""
WRITABLE: Final = 4
"""A directory in which the container's user can make files."""


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

    def copies(self, *, last: bool) -> list[str]:
        """What the shim of an executor copies, in its words. Unless it is the `last` one, inputs are copied out too:
        the next executor finds them as this one has left them."""
        shared = () if last or len(self.copied_in) > MANY else self.copied_in
        kept = {path for path in shared if not is_protected(path) and not WILDCARDS.search(path)}
        brought = _merged(tuple(path for path in self.copied_in if path not in kept), lambda _: True)
        if len(brought) > MANY:
            brought = ("/.",)
        return [f"i{path}" for path in brought] + [f"o{path}" for path in _in_order({*self.copied_out, *kept})]

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
    """True for a directory in which every image has something, by its name; what lies above one is protected too."""
    return bool(ALONE.fullmatch(directory) or TREES.fullmatch(directory))


def is_certain(directory: str) -> bool:
    """True for a directory of which nobody needs to ask what images have there."""
    return bool(TREES.fullmatch(directory) or OWN.search(directory))


def doubtful(task: Task) -> tuple[str, ...]:
    """The directories of which `layout` has to know whether the images of the task have something there, in order."""
    return _Folders(task).asked


class _Folders:
    """The directories that hold a task's files.

    `named`: those that the task wants to have whole. `asked`: those about which the images are asked. `crowded`: those
    with so many files that no container has room for a mount of each.
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
        """The directory that is asked about for this one: itself, or the nearest that it has in common with many."""
        return next((above for above in _above(directory) if above in self._crowds), directory)


def ways(directory: str) -> list[str]:
    """The directory and those above it, from the root on."""
    return [*_above(directory)][::-1]


def to_look_at(asked: Iterable[str]) -> list[str]:
    """The paths at which the shim has to look to know of these directories, in order."""
    return [*_in_order({path for directory in asked for path in ways(directory)})]


def read_answer(paths: Sequence[str], digits: str) -> dict[str, int]:
    """What the shim has written about these paths: a digit for each. Nothing where it could not be run."""
    return {path: int(digit) for path, digit in zip(paths, digits.strip(), strict=False) if digit in "01234567"}


def occupied(asked: Iterable[str], images: Sequence[Answers]) -> dict[str, bool]:
    """What `layout` has to know, by the answers of each image."""
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
    """What is known of directories by their names and by the images' answers."""

    def __init__(self, folders: _Folders, found: Mapping[str, bool]) -> None:
        self._stand_in, self._found, self._crowded = folders.stand_in, found, folders.crowded
        self._empty = set(folders.asked) - found.keys()

    def is_free(self, directory: str) -> bool:
        """True when the directory may be mounted whole: no image has anything there, or there is no other way, since
        its many files can neither be copied there nor each have a mount."""
        if is_protected(directory) or is_certain(directory):
            return not is_protected(directory)
        asked = self._stand_in(directory)
        has_no_other_way = asked in self._crowded and self._found.get(asked) is False
        return is_certain(asked) or asked in self._empty or has_no_other_way

    def is_writable(self, directory: str) -> bool:
        """True when an image has something in the directory and the users of all containers can write there."""
        return self._found.get(self._stand_in(directory), False)


def _above(directory: str) -> Iterator[str]:
    """The directory and those above it, the nearest first."""
    yield directory
    while directory != "/":
        yield (directory := _parent(directory))


def _crowds(directories: Iterable[str]) -> set[str]:
    """The directories in which more than MANY of the given ones lie; for those above, such a crowd counts as one."""
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


def _merged(
    mounts: tuple[str, ...], may_be_mounted: Callable[[str], bool] = lambda parent: not is_protected(parent)
) -> tuple[str, ...]:
    """The mounts, where many have a parent in common the parent instead, if that may be; the lowest such one.

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
            if len(kept) - begin > MANY and may_be_mounted(parent):
                kept[begin:] = [parent]
        if kept and (not open_ or open_[-1][0] != common):
            open_.append((common, begin))
        kept.append(mount)
    return tuple(kept[:-1])
