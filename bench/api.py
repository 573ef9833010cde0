"""How fast the API is: `scripts/bench api [--quick] [--only NAME]... [--database NAME]...`

Everything is a ratio to a bare prototype (bench.proto) measured in turn with tesk on the same machine, so that it
means the same anywhere. Parts: creates, slow-disk (5 ms more for each fsync), gets, lists, start; and sign-in, whose
ratio is to tesk itself without a way in.
"""

import argparse
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.api_figures import Figures, interleaved
from bench.api_lists import Filled, ListFigures
from bench.api_load import Lists, creates_per_s, gets_per_s, pages_per_s, wait_for_quiet
from bench.api_seed import seed_prototype, seed_tesk, user
from bench.api_servers import ADMIN, Running, bare, prototype, tesk, tesk_serve, tesk_with_users
from tests.servers.postgres import postgres

CREATES_LIMIT = 0.8
GETS_LIMIT = 1.3
SIGN_IN_LIMIT = 0.9
PEOPLE = {"a user": user(77), "a member of a group": user(177)}
"""Who asks for lists beside the admin, who sees all tasks: somebody with one of 1,000, and with one in 15."""
START_LIMIT = 2.5
START_ROUNDS = 7
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
        """The smallest store stays open beside each larger one, so that both are asked in turn."""
        with contextlib.ExitStack() as opened:
            first: Filled | None = None
            for count in self.scale.tasks:
                with contextlib.ExitStack() as own:
                    filled = (own if first else opened).enter_context(self._filled(kind, count))
                    first = first or filled
                    lists = ListFigures(self.figures, f"{kind}, {count:,} tasks", filled, first)
                    lists.pages(self.scale.rounds * self.scale.requests)
                    lists.filters(self.scale.requests // 10)
                    if count == self.scale.tasks[-1]:
                        lists.filters_of_people(self.scale.requests // 10)
                    self._memory(filled.server, f"list {kind}, {count:,} tasks")

    @contextlib.contextmanager
    def _filled(self, kind: str, count: int) -> Iterator[Filled]:
        with self.databases(kind, durable=False) as (url, database):
            seed_prototype(database, count)
            seed_tesk(url, count)
            with (
                prototype(database) as floor,
                tesk_with_users(url, self.folder) as server,
                contextlib.ExitStack() as kept,
            ):
                people = {who: kept.enter_context(Lists(server.signed_in(name))) for who, name in PEOPLE.items()}
                base, lists = (kept.enter_context(Lists(each)) for each in (floor, server.signed_in(ADMIN)))
                yield Filled(count, server, lists, base, people)

    def sign_in(self, kind: str) -> None:
        """Creates, gets and pages of a user who signs in, in turn with those of a server that asks nobody to."""
        with (
            self.databases(kind) as (url, other),
            tesk(url) as plain,
            tesk_with_users(other if "://" in other else f"sqlite:///{other}", self.folder) as signed,
        ):
            rates: dict[str, Callable[[Running, int], float]] = {
                "create": lambda server, count: creates_per_s(server, count, self.scale.seconds),
                "get": lambda server, count: gets_per_s(
                    server, listed[server.name], "MINIMAL", count, self.scale.seconds
                ),
                "page": lambda server, count: pages_per_s(server, count, self.scale.seconds),
            }
            listed: dict[str, Path] = {}
            for name, rate in rates.items():
                for count in (1, 16, 64):
                    wait_for_quiet()
                    measures = [partial(rate, server, count) for server in (plain, signed)]
                    base, found = interleaved(self.scale.rounds, measures)
                    label = f"signed in: {name} {kind}, {count} connections"
                    self.figures.at_least(label, f"{found:,.0f}/s", found / base, SIGN_IN_LIMIT)
                listed = listed or {each.name: _ids(each, self.folder / f"{each.name}.own") for each in (plain, signed)}

    def start(self, _: str) -> None:
        """Against the interpreter with the same server library, which starts to answer as well and does no more."""
        times: list[tuple[float, float]] = []
        memory: list[float] = []
        for n in range(START_ROUNDS):
            with bare() as floor, tesk_serve(self.folder / f"start-{n}") as server:
                times.append((floor.started_s, server.started_s))
                wait_for_quiet()
                memory.append(server.memory_mib()[0])
        base, took = (median(column) for column in zip(*times, strict=True))
        self.figures.plain("uvicorn alone, start to first answer", f"{base:.2f} s")
        self.figures.at_most("start to first answer", f"{took:.2f} s", took / base, START_LIMIT)
        self.figures.memory_at_most("idle memory", median(memory), MEMORY_LIMIT_MIB)

    def _memory(self, server: Running, name: str) -> None:
        resident, own = server.memory_mib()
        self.figures.plain(f"memory after {name}", f"{resident:.0f} MiB")
        self.figures.plain(f"memory after {name}, without files", f"{own:.0f} MiB")


def _creates(server: Running, connections: int, seconds: float) -> Callable[[], float]:
    return lambda: creates_per_s(server, connections, seconds)


def _gets(server: Running, ids: Path, view: str, connections: int, seconds: float) -> Callable[[], float]:
    return lambda: gets_per_s(server, ids, view, connections, seconds)


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
    parser.add_argument(
        "--only", action="append", choices=["creates", "slow-disk", "gets", "lists", "sign-in", "start"]
    )
    parser.add_argument("--database", action="append", choices=DATABASES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tesk-bench-") as folder:
        bench = Bench(Figures(), QUICK if given.quick else FULL, Path(folder))
        parts: dict[str, Callable[[str], None]] = {
            "creates": lambda kind: bench.creates(kind, (1, 16, 64), "create"),
            "slow-disk": bench.slow_disk,
            "gets": bench.gets,
            "lists": bench.lists,
            "sign-in": bench.sign_in,
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
