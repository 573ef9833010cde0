"""The task's document on its way from the server to the pods: compressed, in as many Secrets as it takes.

A Secret holds 1 MiB; a request body, with its inputs' content, may be several.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from tesk.kubernetes import names
from tesk.kubernetes.task_settings import TaskSettings
from tesk.tes import Task, decode, encode

PART_BYTES: Final = 900_000


def pack(task: Task) -> list[bytes]:
    """The document in parts, at least one."""
    data = zlib.compress(encode(task), 6)
    return [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]


def unpack(parts: Iterable[bytes]) -> Task:
    """The task again. Raises ValueError for parts that are none."""
    try:
        return decode(zlib.decompress(b"".join(parts)))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"the task's document cannot be read: {error}") from None


def read(folder: Path) -> tuple[Task, TaskSettings, str]:
    """(task, the operator's settings, the token) from the folder that mirrors the Secrets, one subfolder for each."""
    parts: list[bytes] = []
    while (part := folder / str(len(parts)) / names.DOCUMENT_KEY).exists():
        parts.append(part.read_bytes())
    cluster = msgspec.json.decode((folder / "0" / names.CLUSTER_KEY).read_bytes(), type=TaskSettings)
    return unpack(parts), cluster, (folder / "0" / names.TOKEN_KEY).read_text().strip()


def count(folder: Path) -> int:
    """The number of Secrets in the folder; Kubernetes keeps entries of its own there too."""
    return sum(1 for entry in folder.iterdir() if entry.name.isdigit())
