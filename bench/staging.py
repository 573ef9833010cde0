"""How fast the filer moves data: `scripts/bench staging [--quick] [--store NAME]...`

One object of 1 GB and 2,000 of 100 kB go both ways, in turn with the best tool of each store, between the same folders
and the same real server. Every run is a process of its own from start to end, so that the interpreter's start counts.
A figure is the median wall time; behind it are the CPU seconds and the peak memory of tesk and of the other.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench.api_figures import Figures
from bench.staging_stores import CASES, CURL, LARGE_UP, SMALL_UP, STORES, Case, Store, cached
from tesk.filer.plan import FilerSettings, InputsPlan, OutputsPlan, Plan
from tesk.tes import FileType, Input, Output

MEMORY_LIMIT_MIB = 150.0
BLOCK = 8 * 1024 * 1024


class Run(NamedTuple):
    """One process: wall and CPU seconds, peak memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


class Sizes(NamedTuple):
    large_bytes: int
    small_count: int
    small_bytes: int = 100_000


def timed(command: list[str], environment: dict[str, str], stdin: bytes = b"") -> Run:
    """Runs a command to its end; a failed one ends the benchmark."""
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as said:
        text.write(stdin)
        text.seek(0)
        actions = [(os.POSIX_SPAWN_DUP2, text.fileno(), 0), (os.POSIX_SPAWN_DUP2, said.fileno(), 1)]
        actions.append((os.POSIX_SPAWN_DUP2, said.fileno(), 2))
        began = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, {**os.environ, **environment}, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall_s = time.perf_counter() - began
        if status:
            said.seek(0)
            sys.exit(f"{' '.join(command)[:300]} failed:\n{said.read().decode(errors='replace')[-2000:]}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def filer(plan: Plan, environment: dict[str, str]) -> Run:
    step = "inputs" if isinstance(plan, InputsPlan) else "outputs"
    return timed([sys.executable, "-m", "tesk", "filer", step], environment, msgspec.json.encode(plan))


def median_run(runs: Sequence[Run]) -> Run:
    return Run(*(median(column) for column in zip(*runs, strict=True)))


def make(folder: Path, sizes: Sizes) -> None:
    """The files to be moved: `large`, and `small/…`. Bytes that nothing can compress."""
    (folder / "small").mkdir(parents=True)
    with (folder / "large").open("wb") as file:
        left = sizes.large_bytes
        while left:
            left -= file.write(os.urandom(min(BLOCK, left)))
    for n in range(sizes.small_count):
        (folder / "small" / f"{n:05}").write_bytes(os.urandom(sizes.small_bytes))


def same(one: Path, other: Path) -> bool:
    """Whether two files or folders hold the same bytes."""
    if one.is_dir():
        names = sorted(os.listdir(one))
        return names == sorted(os.listdir(other)) and all(same(one / name, other / name) for name in names)
    with one.open("rb") as a, other.open("rb") as b:
        return all(block == b.read(BLOCK) for block in iter(lambda: a.read(BLOCK), b"")) and not b.read(1)


class Bench:
    """`data` holds the files; `served` is what the server of a store serves; `here` is where inputs arrive."""

    def __init__(self, folder: Path, sizes: Sizes, rounds: int, figures: Figures) -> None:
        self.data = folder / "data"
        self.served = folder / "served"
        self.here = folder / "here"
        self._rounds = rounds
        self._figures = figures
        make(self.data, sizes)

    def _empty(self, *folders: Path) -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def store(self, store: Store) -> None:
        shutil.rmtree(self.served, ignore_errors=True)
        self.served.mkdir()
        with store.serve(self.served) as (url, environment):
            for case in CASES:
                if case in store.commands:
                    self._case(store, case, url, environment)

    def _case(self, store: Store, case: Case, url: str, environment: dict[str, str]) -> None:
        name = "large" if case.is_large else "small"
        bucket = self.served / "bench"
        settings = FilerSettings(file_roots=(str(self.served),))
        kind = FileType.FILE if case.is_large else FileType.DIRECTORY
        plan: Plan
        if case.is_down:
            source, target = bucket / name, self.here / name
            plan = InputsPlan(str(self.here), [Input(f"/{name}", url=f"{url}/{name}", type=kind)], settings=settings)
            if not case.is_large and not store.lists:
                each = [Input(f"/small/{n}", url=f"{url}/small/{n}") for n in sorted(os.listdir(self.data / "small"))]
                plan = InputsPlan(str(self.here), each, settings=settings)
        else:
            source, target = self.data / name, bucket / name
            plan = OutputsPlan(str(self.data), [Output(f"/{name}", f"{url}/{name}", type=kind)], settings=settings)
        self._empty(bucket)
        if case.is_down:
            up = LARGE_UP if case.is_large else SMALL_UP
            timed(store.commands.get(up, CURL[up])(url, self.data, self.here), environment)
        ours: list[Run] = []
        others: list[Run] = []
        emptied = [self.here, self.here / "small"] if case.is_down else [bucket]
        for _ in range(self._rounds):
            self._empty(*emptied)
            others.append(timed(store.commands[case](url, self.data, self.here), environment))
            self._empty(*emptied)
            ours.append(filer(plan, environment))
            if not same(self.data / name, target):
                sys.exit(f"{store.name}: {source} did not arrive at {target} as it was")
        self._tell(store, case, median_run(ours), median_run(others))

    def _tell(self, store: Store, case: Case, ours: Run, other: Run) -> None:
        what = f"{store.name}: {case.name}, against {store.tool}"
        limit = store.limits.get(case)
        ratio = ours.wall_s / other.wall_s
        value = f"{ours.wall_s:.2f} s"
        if limit is None:
            self._figures.plain(f"{what}: {ratio:.2f}", value)
        else:
            self._figures.at_most(what, value, ratio, limit)
        costs = f"{ours.cpu_s:.1f} s, {other.cpu_s:.1f} s"
        self._figures.plain("    CPU: tesk, the other", costs)
        self._figures.memory_at_most(f"    peak (the other: {other.peak_mib:.0f} MiB)", ours.peak_mib, MEMORY_LIMIT_MIB)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench staging", description=__doc__)
    parser.add_argument("--store", action="append", choices=[*STORES], help="which store; all by default")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, fewer rounds")
    parser.add_argument("--rounds", type=int, help="runs of each")
    options = parser.parse_args()
    sizes, rounds = (Sizes(100_000_000, 200), 2) if options.quick else (Sizes(1_000_000_000, 2000), 5)
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="tesk-bench-", dir=cached("bench")) as name:
        bench = Bench(Path(name), sizes, options.rounds or rounds, figures)
        for store in options.store or STORES:
            bench.store(STORES[store])
    figures.end()


if __name__ == "__main__":
    main()
