"""Checks what a task asks for: no more than the operator's settings allow, and backend parameters with valid values.

A task that asks for something else is refused before it is stored.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from tesk.parameters import MEANT
from tesk.settings import Settings
from tesk.tes import InvalidTask, Task

NODE_SELECTOR: Final = "node_selector."
LABEL: Final = (re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"), "the value of a Kubernetes label")


class Maxima(Struct, frozen=True):
    """The most that a task may ask for; 0 is no limit."""

    cpu_cores: float = 0.0
    ram_gb: float = 0.0
    disk_gb: float = 0.0
    files: int = 0


def maxima(settings: Settings) -> Maxima:
    return Maxima(settings.max_cpu_cores, settings.max_ram_gb, settings.max_disk_gb, settings.max_files)


def check(task: Task, most: Maxima) -> None:
    """Raises InvalidTask for a task that asks for too much, or for a backend parameter with an invalid value."""
    for name, value in ((task.resources and task.resources.backend_parameters) or {}).items():
        pattern, meant = LABEL if name.lower().startswith(NODE_SELECTOR) else MEANT.get(name.lower(), (None, ""))
        if pattern and not pattern.fullmatch(value or ""):
            raise InvalidTask(f"resources.backend_parameters.{name}", f"{(value or '')[:100]!r} is not {meant}")
    for field, setting, asked, limit in _asked(task, most):
        if asked and limit and asked > limit:
            words = f"{asked:.15g} is more than the {limit:.15g} that this server allows (setting {setting})"
            raise InvalidTask(field, words)


def _asked(task: Task, most: Maxima) -> Iterator[tuple[str, str, float | None, float]]:
    """Field, setting, what is asked for, and the limit."""
    if (resources := task.resources) is not None:
        yield "resources.cpu_cores", "max_cpu_cores", resources.cpu_cores, most.cpu_cores
        yield "resources.ram_gb", "max_ram_gb", resources.ram_gb, most.ram_gb
        yield "resources.disk_gb", "max_disk_gb", resources.disk_gb, most.disk_gb
    yield "inputs", "max_files", len(task.inputs or ()), most.files
    yield "outputs", "max_files", len(task.outputs or ()), most.files
