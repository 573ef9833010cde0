"""The most that one task may ask for, by the operator's settings: more is refused before anything is stored."""

from collections.abc import Iterator

from msgspec import Struct

from tesk.settings import Settings
from tesk.tes import InvalidTask, Task


class Maxima(Struct, frozen=True):
    """Cores and GiB; 0 is without limit."""

    cpu_cores: float = 0.0
    ram_gb: float = 0.0
    disk_gb: float = 0.0


def maxima(settings: Settings) -> Maxima:
    return Maxima(settings.max_cpu_cores, settings.max_ram_gb, settings.max_disk_gb)


def check(task: Task, most: Maxima) -> None:
    """Raises InvalidTask for a task that asks for too much."""
    for name, asked, limit in _asked(task, most):
        if asked and limit and asked > limit:
            raise InvalidTask(f"resources.{name}", f"{asked:g} is more than the {limit:g} that this server allows")


def _asked(task: Task, most: Maxima) -> Iterator[tuple[str, float | None, float]]:
    if (resources := task.resources) is not None:
        yield "cpu_cores", resources.cpu_cores, most.cpu_cores
        yield "ram_gb", resources.ram_gb, most.ram_gb
        yield "disk_gb", resources.disk_gb, most.disk_gb
