"""Reference data in executors: which volumes a caller's tasks get, and what may not be in their way (pure).

A task gets all volumes that its caller may use, each at its own path. No mount lies below another, since a program can
rename what is in a folder that it may write to (tesk.layout). So a volume shares no path with the task's own files, nor
with the folders that are mounted for them.
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from tesk.identity import Identity
from tesk.layout import Trees, layout
from tesk.rules import VolumeRule, is_open_to
from tesk.tes import WILDCARDS, Problem, Task, named_paths, normal

UNMOUNTABLE: Final = Trees(["/.tesk", "/dev", "/proc", "/sys"])
_SEPARATORS: Final = re.compile(r'[,:"\r\n\0]')
CLAIM: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def open_to(volumes: Mapping[str, VolumeRule], identity: Identity) -> dict[str, VolumeRule]:
    """The volumes that the caller may use."""
    return {name: rule for name, rule in volumes.items() if is_open_to(identity, rule.users, rule.groups)}


def problems(volumes: Mapping[str, VolumeRule], *, is_cluster: bool) -> Iterator[str]:
    """What is wrong with the volumes on such an engine, in words."""
    for name, rule in volumes.items():
        key = f"volumes.{name}"
        if not rule.path.startswith("/") or rule.path in ("/", "//") or normal(rule.path) != rule.path:
            yield f"{key}: path: {rule.path!r} is not an absolute path, or not written in its shortest form"
        elif rule.path in UNMOUNTABLE:
            yield f"{key}: path: nothing can be mounted at {rule.path}"
        if odd := _SEPARATORS.search(rule.path + rule.folder):
            yield f"{key}: {odd[0]!r} cannot be part of its path or folder: some engines read it as more than that"
        if is_cluster and (rule.folder or not CLAIM.fullmatch(rule.claim)):
            yield f"{key}: on a cluster a volume has a claim, and no folder"
        if not is_cluster and (rule.claim or not rule.folder.startswith("/")):
            yield f"{key}: on the local engine a volume has a folder, which is an absolute path, and no claim"
    paths = sorted((rule.path, name) for name, rule in volumes.items())
    for n, (path, name) in enumerate(paths):
        for above, other in paths[:n]:
            if _covers(above, path):
                yield f"volumes.{name}: its path {path} is the path of volumes.{other}, or lies below that ({above})"


def in_the_way(task: Task, volumes: Collection[VolumeRule]) -> Problem | None:
    """The first field with a path that is a volume's, or lies above or below one, and why that cannot be.

    Where images have a say in the layout, the layout that mounts most is what counts.
    """
    if not volumes:
        return None
    tops, paths = Trees(rule.path for rule in volumes), []
    for field, path in named_paths(task):
        wildcard = WILDCARDS.search(path)
        paths.append((field, normal(posixpath.dirname(path[: wildcard.end()]) if wildcard else path)))
    for field, path in paths:
        is_workdir = field.endswith(".workdir")  # nothing is mounted for a working directory alone
        if path in tops or (not is_workdir and tops.is_above(path)):
            return field, _words(path, volumes)
    for mount in layout(task).mounts:
        if tops.is_above(mount):
            return next(field for field, path in paths if _covers(mount, path)), _words(mount, volumes)
    return None


def _words(path: str, volumes: Collection[VolumeRule]) -> str:
    volume = next(rule.path for rule in volumes if _covers(rule.path, path) or _covers(path, rule.path))
    where = "is" if path == volume else "lies below" if _covers(volume, path) else "holds"
    return f"{path!r} {where} {volume!r}, where this server mounts reference data, read-only; choose another folder"


def _covers(top: str, path: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
