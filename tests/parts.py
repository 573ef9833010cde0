"""The parts of the suite: what each needs that has to be built, and which tests go one after the other in one process.

Most tests wait more than they work, so several processes (pytest-xdist) run them beside each other. What one process
does in order is a group; the groups are handed out in the order of `rank`. All of this follows from a test's node id.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

TESTS: Final = Path(__file__).parent
T = TypeVar("T")

LONGEST: Final = ("disrupted", "test_kubernetes_storm", "podman", "docker", "oldest", "restricted")
"""Groups that begin first, by a part of their names, since nothing should wait for them at the end."""

OUTAGES: Final = "test_kubernetes_outages.py"
"""Half of the tests that may break a node have one of their own: all in one row would be the last to end."""

TOGETHER: Final = ("test_kubernetes_resources",)
"""Modules whose tests share something of a cluster that all see, and so go one after the other."""

SERVERS: Final = ("versitygw", "gcs", "azurite")
CLUSTER: Final = ("newest", "image")
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "unit": (),
    "api": ("postgres", "nginx"),
    "store": ("postgres",),
    "people": ("nginx",),
    "shim": ("shim", "busybox"),
    "pod": ("shim", "busybox"),
    "chart": ("helm", "helm4"),
    "cli": ("shim", "podman", "busybox"),
    "oidc": ("oidc-provider",),
    "dex": ("dex",),
    "filer": ("nginx", "sshd", "vsftpd", *SERVERS),
    "whole": ("shim", "podman", "busybox", *SERVERS),
    "podman": ("shim", "podman", "busybox", "versitygw"),
    "docker": ("shim", "dockerd", "busybox", "versitygw"),
    "local": ("shim", "podman", "dockerd", "busybox"),
    "cluster": ("postgres", "nginx", "helm", "helm4", *SERVERS, *CLUSTER),
    "kubernetes": ("nginx", *SERVERS, *CLUSTER),
    "restricted": CLUSTER,
    "disrupted": CLUSTER,
    "oldest": ("oldest", "image"),
}
"""What scripts/ensure has to bring for each part."""

WORKING: Final = ["unit", "api", "store", "people", "oidc", "dex", "shim", "pod", "chart", "cli", "filer", "whole"]
"""Parts whose tests keep a processor busy; those of clusters and engines wait most of their time."""

BUILT: Final = ("versitygw", "gcs", "helm", "helm4", "newest", "image", "oldest", "dex")
"""What takes minutes to build, in the order of scripts/build."""


class Part(NamedTuple):
    """`name`: a key of NEEDS. `group`: of the tests that run one after the other."""

    name: str
    group: str


def part(nodeid: str) -> Part:
    """The part that a test belongs to."""
    path, _, test = nodeid.partition("::")
    folder = path.split("/")[1]
    if folder not in ("engines", "cluster"):
        return Part(folder, path)
    if folder == "cluster":
        return Part(folder, nodeid)
    found = re.search(r"\[(?:.*-)?(podman|docker|kubernetes|pod|restricted|disrupted|oldest)(?:-.*)?\]$", test)
    name = found[1] if found else "local"
    name = "kubernetes" if name == "pod" else name
    if name == "kubernetes" and not any(f"/{module}." in path for module in TOGETHER):
        return Part(name, nodeid)
    alone = name in ("kubernetes", "restricted") or path.endswith(OUTAGES)
    return Part(name, f"{path} {name}" if alone else name)


def rank(nodeid: str) -> int:
    """Tests of lower rank begin earlier: those of the longest groups first."""
    found = part(nodeid)
    return next(
        (n for n, name in enumerate(LONGEST) if found.name not in WORKING and name in found.group), len(LONGEST)
    )


def built_by(nodeid: str) -> int:
    """How many steps of scripts/build a test has to wait for."""
    needs = NEEDS[part(nodeid).name]
    return max((n for n, what in enumerate(BUILT, 1) if what in needs), default=0)


def in_turn(items: list[T], part_of: Callable[[T], Part]) -> list[T]:
    """Groups in their order, but those of clusters and engines, which wait, in turn with those that work."""
    groups: dict[Part, list[T]] = {}
    for item in items:
        groups.setdefault(part_of(item), []).append(item)
    waits = [group for found, group in groups.items() if found.name not in WORKING]
    works = [group for found, group in groups.items() if found.name in WORKING]
    pairs = itertools.zip_longest(waits, works)
    return [item for pair in pairs for group in pair for item in group or []]
