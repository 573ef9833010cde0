"""How fast the API is: `scripts/bench api [--quick] [--only NAME]... [--database NAME]...`

Everything is a ratio to a bare prototype (bench.proto) measured in turn with tesk on the same machine, so that it
means the same anywhere. Parts: creates, slow-disk (5 ms more for each fsync), gets, lists, start.
"""

import argparse
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.api_figures import Figures, interleaved
from bench.api_load import Lists, creates_per_s, gets_per_s, wait_for_quiet
from bench.api_seed import seed_prototype, seed_tesk
from bench.api_servers import Running, prototype, tesk, tesk_serve
from tests.servers.postgres import postgres

CREATES_LIMIT = LISTS_LIMIT = 0.8
GETS_LIMIT = 1.3
FLAT_LIMIT = 1.5
FILTER_LIMIT_MS = 3.0
FILTER_ROUNDS = 7
START_LIMIT_S = 0.5
MEMORY_LIMIT_MIB = 60.0
DELAY_US = 5000
DATABASES = ("sqlite", "postgresql")


class Scale(NamedTuple):
    """How long to measure. `tasks`: the sizes among which lists are measured, rising."""

    rounds: int
    seconds: float
    requests: int
    tasks: tuple[int, ...]


FULL = Scale(rounds=3, seconds=6, requests=200, tasks=(1_000, 100_000, 1_000_000))
QUICK = Scale(rounds=3, seconds=1, requests=30, tasks=(1_000, 20_000))

Query = list[tuple[str, str]]
PAGES: dict[str, Query] = {
    "MINIMAL": [],
    "BASIC": [("view", "BASIC")],
    "by state": [("state", "COMPLETE")],
    "by tag": [("tag_key", "run"), ("tag_value", "r-17")],
}
"""Pages of 256 that the prototype has too."""


def tags(*pairs: str) -> Query:
    query = []
    for pair in pairs:
        key, _, value = pair.partition("=")
        query += [("tag_key", key), ("tag_value", value)]
    return query


FILTERS: dict[str, Query] = {
    "state: none": [("state", "PAUSED")],
    "state: 100": [("state", "QUEUED")],
    "state: oldest": [("state", "CANCELED")],
    "state: one in 50": [("state", "EXECUTOR_ERROR")],
    "state: most": [("state", "COMPLETE")],
    "tag: none": tags("run=other"),
    "tag: few": tags("few=yes"),
    "tag: half": tags("half=1"),
    "tag: all": tags("run=r-17"),
    "key: none": tags("other="),
    "key: few": tags("few="),
    "key: all": tags("run="),
    "key: all, each its own value": tags("number="),
    "two tags: all and few": tags("run=r-17", "few=yes"),
    "two tags: all and all": tags("run=r-17", "step=align"),
    "two tags: all and none": tags("run=r-17", "step=other"),
    "state and tag: most and few": [("state", "COMPLETE"), *tags("few=yes")],
    "state and tag: most and all": [("state", "COMPLETE"), *tags("run=r-17")],
    "state and tag: 100 and all": [("state", "QUEUED"), *tags("run=r-17")],
    "state and tag: none and all": [("state", "PAUSED"), *tags("run=r-17")],
    "state and tag: oldest and all": [("state", "CANCELED"), *tags("run=r-17")],
    "two tags: exclusive halves": tags("half=0", "odd=yes"),
    "two tags: half and one in 50, exclusive": tags("half=1", "fiftieth=yes"),
    "two tags: half and one in 50": tags("half=0", "fiftieth=yes"),
    "two tags: older half and half": tags("age=old", "half=1"),
    "tag and key: half and one in 50, exclusive": tags("half=1", "fiftieth="),
    "four tags and keys: all and half": tags("run=r-17", "step=", "half=1", "number="),
    "state and tag: one in 50 and half, exclusive": [("state", "EXECUTOR_ERROR"), *tags("half=0")],
    "state and tag: one in 50 and half": [("state", "EXECUTOR_ERROR"), *tags("half=1")],
    "state and tag: one in 50 and one in 50, exclusive": [("state", "EXECUTOR_ERROR"), *tags("fiftieth=yes")],
    "state and tag: most and half": [("state", "COMPLETE"), *tags("half=1")],
    "state and tags: most and exclusive halves": [("state", "COMPLETE"), *tags("half=0", "odd=yes")],
    "state and tag: oldest and half": [("state", "CANCELED"), *tags("half=1")],
    "state and tag: oldest and newer half": [("state", "CANCELED"), *tags("age=new")],
    "name: none": [("name_prefix", "other")],
    "name: one": [("name_prefix", "seldom-8")],
    "name: seldom": [("name_prefix", "seldom-")],
    "name: one in 50": [("name_prefix", "fiftieth-")],
    "name: newer half": [("name_prefix", "new-")],
    "name: older half": [("name_prefix", "old-")],
    "name: oldest hundredth": [("name_prefix", "old-sample-000")],
    "name and state: older half and most": [("name_prefix", "old-"), ("state", "COMPLETE")],
    "name and state: older half and 100": [("name_prefix", "old-"), ("state", "QUEUED")],
    "name and tag: newer half and all": [("name_prefix", "new-"), *tags("run=r-17")],
    "name and tag: older half and few": [("name_prefix", "old-"), *tags("few=yes")],
    "name and tag: newer and older half": [("name_prefix", "new-"), *tags("age=old")],
    "name and tag: one in 50 and half, exclusive": [("name_prefix", "fiftieth-"), *tags("half=0")],
    "name and state: one in 50 and one in 50, exclusive": [("name_prefix", "fiftieth-"), ("state", "EXECUTOR_ERROR")],
    "name, state and tags": [("name_prefix", "old-"), ("state", "COMPLETE"), *tags("half=0", "odd=yes")],
}


class Bench(NamedTuple):
    figures: Figures
    scale: Scale
    folder: Path

    @contextlib.contextmanager
    def databases(self, kind: str, library: Path | None = None, *, durable: bool = True) -> Iterator[tuple[str, str]]:
        """Where tesk and where the prototype keep their tasks: empty databases of one kind."""
        if kind == "sqlite":
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            try:
                yield f"sqlite:///{folder / 'tesk.db'}", str(folder / "prototype.db")
            finally:
                shutil.rmtree(folder)
            return
        settings = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
        with postgres(durable=durable, settings=settings, preload=str(library or "")) as server:
            yield server.new_database(), server.new_database()

    def creates(self, kind: str, connections: tuple[int, ...], name: str, library: Path | None = None) -> None:
        slow = {"LD_PRELOAD": str(library), "FSYNC_DELAY_US": str(DELAY_US)} if library and kind == "sqlite" else None
        with (
            self.databases(kind, library) as (url, database),
            prototype(database, slow) as floor,
            tesk(url, slow) as server,
        ):
            for count in connections:
                wait_for_quiet()
                measures = [_creates(each, count, self.scale.seconds) for each in (floor, server)]
                base, rate = interleaved(self.scale.rounds, measures)
                label = f"{name} {kind}, {count} connections"
                self.figures.at_least(label, f"{rate:,.0f}/s", rate / base, CREATES_LIMIT)
            self._memory(server, f"{name} {kind}")

    def slow_disk(self, kind: str) -> None:
        self.creates(kind, (64,), "create, 5 ms more per fsync,", _library(self.folder))

    def gets(self, kind: str) -> None:
        with self.databases(kind, durable=False) as (url, database):
            seed_prototype(database, self.scale.tasks[1])
            seed_tesk(url, self.scale.tasks[1])
            with prototype(database) as floor, tesk(url) as server:
                listed = [_ids(each, self.folder / f"{each.name}.ids") for each in (floor, server)]
                for view in ("MINIMAL", "BASIC", "FULL"):
                    for count in (1, 64):
                        measures = [
                            _gets(each, ids, view, count, self.scale.seconds)
                            for each, ids in zip((floor, server), listed, strict=True)
                        ]
                        base, rate = interleaved(self.scale.rounds, measures)
                        label = f"get {view} {kind}, {count} connections"
                        self.figures.at_least(label, f"{rate:,.0f}/s", rate / base, GETS_LIMIT if count > 1 else None)

    def lists(self, kind: str) -> None:
        smallest: dict[str, float] = {}
        for count in self.scale.tasks:
            with self.databases(kind, durable=False) as (url, database):
                seed_prototype(database, count)
                seed_tesk(url, count)
                with prototype(database) as floor, tesk(url) as server, Lists(floor) as base, Lists(server) as lists:
                    self._pages(f"{kind}, {count:,} tasks", count // 2, base, lists, smallest)
                    self._filters(f"{kind}, {count:,} tasks", lists)
                    self._memory(server, f"list {kind}, {count:,} tasks")

    def _pages(self, where: str, deep: int, base: Lists, lists: Lists, smallest: dict[str, float]) -> None:
        pages = {name: (query, query) for name, query in PAGES.items()}
        pages["deep"] = base.after(deep), lists.after(deep)
        for name, queries in pages.items():
            full = [[*query, ("page_size", "256")] for query in queries]
            measures = [
                _page(each, query, self.scale.requests) for each, query in zip((base, lists), full, strict=True)
            ]
            floor, ms = interleaved(self.scale.rounds, measures)
            self.figures.at_least(f"page {name} {where}", f"{ms:.2f} ms", floor / ms, LISTS_LIMIT)
            first = smallest.setdefault(name, ms)
            if first is not ms:
                self.figures.at_most(
                    f"page {name} {where}, over the first", f"{ms:.2f} ms", ms / first, FLAT_LIMIT, ms / first
                )

    def _filters(self, where: str, lists: Lists) -> None:
        """Medians of many short rounds, each through all filters: a busy moment of the machine is in few of any one."""
        full = [[*query, ("page_size", "256")] for query in FILTERS.values()]
        rounds = [[lists.median_ms(query, self.scale.requests // 10) for query in full] for _ in range(FILTER_ROUNDS)]
        for name, taken in zip(FILTERS, zip(*rounds, strict=True), strict=True):
            ms = median(taken)
            self.figures.at_most(f"{name}; {where}", f"{ms:.2f} ms", None, FILTER_LIMIT_MS, ms)

    def start(self, _: str) -> None:
        times, memory = [], []
        for n in range(max(self.scale.rounds, 3)):
            with tesk_serve(self.folder / f"start-{n}") as server:
                times.append(server.started_s)
                wait_for_quiet()
                memory.append(server.memory_mib()[0])
        took, resident = median(times), median(memory)
        self.figures.at_most("start to first answer", f"{took:.2f} s", None, START_LIMIT_S, took)
        self.figures.at_most("idle memory", f"{resident:.0f} MiB", None, MEMORY_LIMIT_MIB, resident)

    def _memory(self, server: Running, name: str) -> None:
        resident, own = server.memory_mib()
        self.figures.plain(f"memory after {name}", f"{resident:.0f} MiB")
        self.figures.plain(f"memory after {name}, without files", f"{own:.0f} MiB")


def _creates(server: Running, connections: int, seconds: float) -> Callable[[], float]:
    return lambda: creates_per_s(server, connections, seconds)


def _gets(server: Running, ids: Path, view: str, connections: int, seconds: float) -> Callable[[], float]:
    return lambda: gets_per_s(server, ids, view, connections, seconds)


def _page(lists: Lists, query: Query, times: int) -> Callable[[], float]:
    return lambda: lists.median_ms(query, times)


def _ids(server: Running, path: Path) -> Path:
    with Lists(server) as lists:
        path.write_text("".join(f"{task_id}\n" for task_id in lists.ids(10_000)))
    return path


def _library(folder: Path) -> Path:
    made = folder / "fsync.so"
    if not made.exists():
        source = Path(__file__).parent / "api_fsync.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True, timeout=60)
        folder.chmod(0o755)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench api", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes, few tasks: to see that it works")
    parser.add_argument("--only", action="append", choices=["creates", "slow-disk", "gets", "lists", "start"])
    parser.add_argument("--database", action="append", choices=DATABASES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tesk-bench-") as folder:
        bench = Bench(Figures(), QUICK if given.quick else FULL, Path(folder))
        parts: dict[str, Callable[[str], None]] = {
            "creates": lambda kind: bench.creates(kind, (1, 16, 64), "create"),
            "slow-disk": bench.slow_disk,
            "gets": bench.gets,
            "lists": bench.lists,
        }
        only = given.only or [*parts, "start"]
        if "start" in only:
            bench.start("")
        for name, part in parts.items():
            for kind in given.database or DATABASES if name in only else ():
                part(kind)
    bench.figures.end()


if __name__ == "__main__":
    main()
