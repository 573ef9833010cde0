"""Where each path of a task lies on the scratch volume and how it gets into a container (pure, no I/O).

The scratch root mirrors the containers' paths, so the only question is what is mounted from it. Directories that
hold the task's files are mounted, the topmost of nested ones once. Directories that an image is likely to need are
never hidden: there a file is mounted alone, and what cannot be mounted (an output that must not exist yet, a
directory merged into one of the image's) is copied in before and out after each executor.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from tesk.tes import WILDCARDS, FileType, Input, Task, normal

TREES: Final = re.compile(
    r"/(bin|sbin|lib[^/]*|usr|etc|opt|boot|dev|proc|sys|run|nix|snap|\.tesk"
    r"|var/(lib/(dpkg|apt|rpm|apk|pacman)|run|www)|root/\.[^/]+|home/[^/]+/\.[^/]+)(/.*)?"
)
KERNEL: Final = ("/dev/", "/proc/", "/sys/")
ALONE: Final = re.compile(r"/|/(root|srv|mnt|media)|/(home|var)(/[^/]+)?")


class Layout(Struct, frozen=True):
    """How a task's paths reach its containers; all are absolute container paths, normalised and sorted.

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
        return not (self.mounts or self.files or self.copied_in or self.copied_out)

    def covers(self, path: str) -> bool:
        """True when the path lies in what is mounted."""
        return _covered(normal(path), self.mounts) or normal(path) in self.files


def is_protected(directory: str) -> bool:
    """True for a directory in which an image keeps things of its own, so that nothing may be mounted over it."""
    return bool(ALONE.fullmatch(directory) or TREES.fullmatch(directory))


def layout(task: Task) -> Layout:
    """The layout of a task whose paths have been validated (tes.parse)."""
    volumes = {normal(volume) for volume in task.volumes or ()}
    parents = [*_input_directories(task), *map(_parent, _output_paths(task)), *map(_parent, _stdio(task))]
    mounts = _topmost(volumes | {directory for directory in parents if not is_protected(directory)})

    def loose(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({path for path in paths if not _covered(path, mounts)}))

    inputs = loose(normal(given.path) for given in task.inputs or ())
    directories_in = {normal(given.path) for given in task.inputs or () if _is_directory(given)}
    copied_in = tuple(path for path in inputs if path in directories_in and is_protected(path))
    touched = loose(path for path in _stdio(task, written=True) if path not in inputs)
    files = tuple(sorted({*inputs, *touched} - {*copied_in}))
    copied_out = tuple(path for path in loose(_output_paths(task)) if path not in files)
    workdirs = {normal(executor.workdir) for executor in task.executors if executor.workdir}
    wanted = {*mounts, *volumes, *map(_parent, [*_output_paths(task), *_stdio(task), *touched])}
    wanted |= {workdir for workdir in workdirs if _covered(workdir, mounts)}
    directories = tuple(sorted(path for path in wanted if path != "/"))
    return Layout(mounts, files, directories, touched, copied_in, copied_out)


def _parent(path: str) -> str:
    return posixpath.dirname(path)


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


def _covered(path: str, mounts: Iterable[str]) -> bool:
    return any(path == mount or path.startswith(mount + "/") for mount in mounts)


def _topmost(directories: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for directory in sorted(directories):
        if not kept or not _covered(directory, kept):
            kept.append(directory)
    return tuple(kept)
