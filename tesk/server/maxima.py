"""What one task may ask for: at most what the operator's settings say, and numbers where numbers are meant.

Anything else is refused before anything is stored.
"""

import math
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from tesk.settings import Settings
from tesk.tes import InvalidTask, Task

NUMBERS: Final = {"executor_timeout_s": "a number of seconds", "gpu": "a whole number"}
"""Backend parameters that are numbers above 0, and what they are called."""


class Maxima(Struct, frozen=True):
    """Cores and GiB; 0 is without limit."""

    cpu_cores: float = 0.0
    ram_gb: float = 0.0
    disk_gb: float = 0.0


def maxima(settings: Settings) -> Maxima:
    return Maxima(settings.max_cpu_cores, settings.max_ram_gb, settings.max_disk_gb)


def check(task: Task, most: Maxima) -> None:
    """Raises InvalidTask for a task that asks for too much, or for nothing that could be had."""
    for name, value in ((task.resources and task.resources.backend_parameters) or {}).items():
        wanted = NUMBERS.get(name.lower())
        if wanted and not _is_number(value or "", whole=name.lower() == "gpu"):
            raise InvalidTask(f"resources.backend_parameters.{name}", f"{value!r} is not {wanted} above 0")
    for name, asked, limit in _asked(task, most):
        if asked and limit and asked > limit:
            raise InvalidTask(f"resources.{name}", f"{asked:g} is more than the {limit:g} that this server allows")


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        return False
    return number > 0 and math.isfinite(number)


def _asked(task: Task, most: Maxima) -> Iterator[tuple[str, float | None, float]]:
    if (resources := task.resources) is not None:
        yield "cpu_cores", resources.cpu_cores, most.cpu_cores
        yield "ram_gb", resources.ram_gb, most.ram_gb
        yield "disk_gb", resources.disk_gb, most.disk_gb
