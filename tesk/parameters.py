"""Backend parameters (tesResources.backend_parameters): which there are, what their values mean (pure).

A server has those that work on every engine and take nothing from others, and what its operator allows besides.
"""

import contextlib
import re
from collections.abc import Collection, Mapping
from typing import Final

from tesk.tes import Resources, Task

ENTRYPOINT: Final = "entrypoint"
SHM_SIZE: Final = "shm_size"
GPU: Final = "gpu"
TIMEOUT: Final = "executor_timeout_s"
ALWAYS: Final = frozenset({ENTRYPOINT, SHM_SIZE})
"""Never asked of the operator: the image's own program runs anyway, and shared memory is a part of the task's."""
LOCAL: Final = frozenset({GPU, TIMEOUT})
"""What an operator of the local engine may allow; on a cluster there are more."""

_NAME: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_OBJECT: Final = (re.compile(rf"(?!.{{254}})(?:{_NAME}(?:\.{_NAME})*)?"), "the name of a Kubernetes object")
_SIZE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([kmgt]?)(?:i?b)?", re.IGNORECASE)
MEANT: Final = {
    ENTRYPOINT: (re.compile("image"), "the word image"),
    SHM_SIZE: (re.compile(rf"(?=[0-9.]*[1-9]){_SIZE.pattern}", re.IGNORECASE), "a size such as 512m or 2g, above 0"),
    TIMEOUT: (re.compile(r"(?=[0-9.]*[1-9])[0-9]{1,9}(?:\.[0-9]{1,9})?"), "a number of seconds above 0"),
    GPU: (re.compile(r"[1-9][0-9]{0,5}"), "a whole number above 0"),
    "priority_class": _OBJECT,
    "runtime_class": _OBJECT,
    "service_account": _OBJECT,
}
"""What a backend parameter has to be: a pattern, and its name. An empty name counts as not given."""


def given(task: Task, allowed: Collection[str]) -> dict[str, str]:
    """The task's backend parameters by the names that a server knows: clients may write them in any case."""
    known = {name.lower(): name for name in (*ALWAYS, *allowed)}
    found = (task.resources or Resources()).backend_parameters or {}
    return {known.get(key.lower(), key): value for key, value in found.items() if value}


def gpus(resources: Resources) -> int:
    """How many GPUs a task asks for, where the server lets it."""
    found = resources.backend_parameters or {}
    text = next((value for key, value in found.items() if value and key.lower() == GPU), "")
    return int(text) if MEANT[GPU][0].fullmatch(text) else 0


def size_bytes(text: str) -> int:
    """A size as `docker run --shm-size` takes it: bytes, or with k, m, g or t behind, which are powers of 1024."""
    match = _SIZE.fullmatch(text)
    assert match
    return max(1, int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")))


def time_limit_s(parameters: Mapping[str, str], default_s: float) -> float:
    """Seconds that each executor may run; 0 for ever."""
    with contextlib.suppress(ValueError):
        return float(parameters.get(TIMEOUT, ""))
    return default_s


def shared_memory_bytes(parameters: Mapping[str, str], memory_bytes: int) -> int:
    """The size of /dev/shm: what the task asks for, else all of the memory that it asks for; 0: the engine's own.

    What lies there counts as memory of the program, so that it needs no bound of its own.
    """
    return size_bytes(parameters[SHM_SIZE]) if SHM_SIZE in parameters else memory_bytes
