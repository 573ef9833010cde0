"""What the processes beside a task's executors take: their memory in their pods, and how long they start."""

import asyncio
import contextlib
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

ROLES = {"taskmaster": ["--help"], "reporter": ["--help"], "filer": ["--pod"]}
"""Each with arguments that end it once everything has been imported."""
LOOK_EVERY_S = 0.005
RUNS = 15


@contextlib.asynccontextmanager
async def peaks(cluster: str) -> AsyncIterator[dict[str, float]]:
    """Looks meanwhile at a cluster's processes on this machine: the most MiB that one of each role has had."""
    found = dict.fromkeys(ROLES, 0.0)

    async def repeat() -> None:
        while True:
            await asyncio.to_thread(_look, cluster, found)
            await asyncio.sleep(LOOK_EVERY_S)

    looking = asyncio.create_task(repeat())
    yield found
    looking.cancel()


def _look(cluster: str, found: dict[str, float]) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            role = words[words.index(b"tesk") + 1].decode()
            if role in found and f"/tesk-{cluster}/" in (folder / "cgroup").read_text():
                found[role] = max(found[role], _peak_mib(folder))


def _peak_mib(folder: Path) -> float:
    status = (folder / "status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def start_ms(role: str) -> float:
    """CPU time of a start with all imports, as they are on this machine, in ms."""
    return median(_cpu_s([sys.executable, "-m", "tesk", role, *ROLES[role]]) for _ in range(RUNS)) * 1000


def _cpu_s(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
