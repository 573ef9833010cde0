"""What a taskmaster has done and learnt, as it stands in the task's ConfigMap.

It is written before anything is built on it: a taskmaster that starts again reads it and goes on, and the server reads
it to know the task's state. Nothing in it is a wish; everything in it has happened.
"""

import zlib
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tesk.engines.base import TaskId, TaskStatus
from tesk.engines.kubernetes import names
from tesk.tes import State, TaskLog

FULL: int = 900_000
"""Bytes that a record may have: a ConfigMap holds 1 MiB with all its keys."""


class Attempt(Struct):
    """One attempt at running the task. `pods` maps the names of the pods that were made to their uids.

    `node`: where the scratch volume is. `staged`, `pushed`: the inputs are there, the outputs have arrived.
    `unborn`: by step ("inputs", "executor 0"), how many pods its node could not begin, so that others took their place.
    `homeless`: executors whose working directory neither the image nor the scratch volume has, so that it must be a
    volume of its own. `overdue`: those that were ended for their time limit. `started`: the start of the executor
    that runs now.
    """

    log: TaskLog
    pods: dict[str, str] = {}
    node: str = ""
    staged: bool = False
    pushed: bool = False
    unborn: dict[str, int] = {}
    homeless: list[int] = []
    overdue: list[int] = []
    started: str | UnsetType = UNSET


class Record(Struct):
    """The task as its taskmaster knows it. `waiting` says what it waits for just now, if that may take long."""

    state: State
    attempts: list[Attempt]
    waiting: str = ""

    @property
    def now(self) -> Attempt:
        return self.attempts[-1]


def pod(record: Record, task_id: TaskId, role: str, executor: int | None = None) -> str:
    """The name of the pod in which a step of the present attempt runs: the first, or one that took its place."""
    now = record.now
    start = 1 + (executor in now.homeless) + now.unborn.get(step(role, executor), 0)
    return names.pod(task_id, role, len(record.attempts), executor=executor, start=start)


def step(role: str, executor: int | None = None) -> str:
    """What a step is called: inputs, executor 0, outputs."""
    return role if executor is None else f"{role} {executor}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def pack(record: Record) -> bytes:
    """The record for the ConfigMap. One that is too large keeps less of the executors' output, and says so."""
    data = zlib.compress(_encode(record), 6)
    keep = 32768
    while len(data) > FULL and keep:
        record = msgspec.convert(msgspec.to_builtins(record), Record)
        for attempt in record.attempts:
            for entry in attempt.log.logs:
                entry.stdout, entry.stderr = _end(entry.stdout, keep), _end(entry.stderr, keep)
        data = zlib.compress(_encode(record), 6)
        keep //= 2
    return data


def unpack(data: bytes) -> Record:
    """The record in a ConfigMap. Raises ValueError for bytes that are none."""
    try:
        return _decode(zlib.decompress(data))
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"not a taskmaster's record: {error}") from None


def status(record: Record) -> TaskStatus:
    """What the server reports of it."""
    *earlier, last = (_log(attempt.log) for attempt in record.attempts)
    if record.waiting and not record.state.is_terminal:
        lines = [] if last.system_logs is UNSET else list(last.system_logs)
        last = msgspec.structs.replace(last, system_logs=[*lines, f"waiting: {record.waiting}"])
    return TaskStatus(record.state, last, tuple(earlier))


def _log(log: TaskLog) -> TaskLog:
    return msgspec.structs.replace(log)


def _end(text: Any, size: int) -> Any:
    return text[-size:] if isinstance(text, str) else text
