"""What a taskmaster has done and learnt, as it stands in the task's ConfigMap.

It is written before anything is built on it: a taskmaster that starts again reads it and goes on, and the server reads
it to know the task's state. Nothing in it is a wish; everything in it has happened.
"""

import zlib

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tesk.kubernetes import names
from tesk.life.facts import Facts, Role, TaskStep
from tesk.life.log import cut_outputs
from tesk.life.log_bound import fit
from tesk.life.status import TaskId, TaskStatus
from tesk.tes import FileTypes, State, TaskLog

FULL: int = 900_000
"""Bytes that a record may have: a ConfigMap holds 1 MiB with all its keys."""
UNPACKED: int = 4 * 1024 * 1024
"""The same before it is compressed: the server unpacks every record at each change, whatever a program made of it."""
SHORTER: tuple[int, ...] = (32768, 8192, 2048, 512, 0)
"""How much of each stream of an executor may be kept where not all can be."""


class Attempt(Facts):
    """One attempt at running the task."""

    pods: dict[str, str] = msgspec.field(default_factory=dict)
    """The uids of the pods that were asked for, by their names; "" while no answer is on record."""
    node: str = ""
    """Where the scratch volume is."""


class Record(Struct):
    """The task as its taskmaster knows it. `waiting` says what it waits for just now, if that may take long; `types`
    what inputs and outputs turned out to be."""

    state: State
    attempts: list[Attempt]
    waiting: str = ""
    types: FileTypes = FileTypes()

    @property
    def now(self) -> Attempt:
        return self.attempts[-1]


def pod(record: Record, task_id: TaskId, role: Role, executor: int = 0) -> str:
    """The name of the pod in which a step of the present attempt runs: the first, or one that took its place."""
    now, step = record.now, TaskStep(role, executor)
    n = executor if role == names.EXECUTOR_ROLE else None
    start = 1 + (n in now.own_workdir) + now.replacements.get(step.name, 0)
    return names.pod(task_id, role, len(record.attempts), executor=n, start=start)


def bound(record: Record, most_bytes: int) -> bool:
    """Keeps so many bytes of output, whatever the number of attempts. False where that leaves less of some."""
    every = [each for attempt in record.attempts for each in attempt.log.logs]
    fitted = fit(every, most_bytes)
    left = iter(fitted)
    for attempt in record.attempts:
        attempt.log.logs[:] = [next(left) for _ in attempt.log.logs]
    return fitted == every


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def pack(record: Record, most_bytes: int = FULL) -> bytes:
    """The record for the ConfigMap, or for what else has room for so many bytes. One that is too large keeps less of
    its lists, if it must, and as much of the executors' output as there is room for then; it says so in its system
    logs. It may be larger than that all the same, where what remains is."""
    data, excess = _squeezed(record, most_bytes)
    if excess <= 1:
        return data
    shown = max(max(len(each.log.outputs), len(_lines(each.log))) for each in record.attempts)
    while shown:
        data, excess = _squeezed(_shortened(record, shown, 0), most_bytes)
        if excess <= 1:
            break
        shown = int(shown / excess * 0.9)
    for characters in SHORTER:
        data, excess = _squeezed(_shortened(record, shown, characters), most_bytes)
        if excess <= 1:
            break
    return data


def unpack(data: bytes) -> Record:
    """The record in a ConfigMap. Raises ValueError for bytes that are none, or that are more than a record may be."""
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(data, UNPACKED + 1)
        if len(found) > UNPACKED:
            raise ValueError(f"a taskmaster's record that unpacks to more than {UNPACKED} bytes")
        if not inflate.eof:
            raise ValueError("not a taskmaster's record: its end is missing")
        return _decode(found)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"not a taskmaster's record: {error}") from None


def status(record: Record) -> TaskStatus:
    """What the server reports of it."""
    *earlier, last = (_log(attempt.log) for attempt in record.attempts)
    if record.waiting and not record.state.is_terminal:
        lines = [] if last.system_logs is UNSET else list(last.system_logs)
        last = msgspec.structs.replace(last, system_logs=[*lines, f"waiting: {record.waiting}"])
    return TaskStatus(record.state, last, tuple(earlier), record.types)


def _log(log: TaskLog) -> TaskLog:
    return msgspec.structs.replace(log)


def _squeezed(record: Record, most_bytes: int) -> tuple[bytes, float]:
    """The record as it is kept, and how many times too large that is: up to 1 it fits."""
    plain = _encode(record)
    data = zlib.compress(plain, 6)
    return data, max(len(data) / most_bytes, len(plain) / UNPACKED)


def _shortened(record: Record, shown: int, characters: int) -> Record:
    """The record with the first outputs, the last lines and the ends of the executors' output alone."""
    replace = msgspec.structs.replace
    attempts = []
    for attempt in record.attempts:
        log, lines, notes = attempt.log, _lines(attempt.log), []
        logs = [replace(each, stdout=_end(each.stdout, characters), stderr=_end(each.stderr, characters))
                for each in log.logs]  # fmt: skip
        if logs != log.logs:
            notes.append(f"warning: the log is too long to be kept: {characters} characters of each output are")
        if len(lines) > shown:
            notes.append(f"warning: {len(lines)} lines were noted; they are too many to be kept, {shown} are shown")
        if len(log.outputs) > shown:
            notes.append(cut_outputs(len(log.outputs), shown))
        lines = [*notes, *lines[len(lines) - min(shown, len(lines)) :]]
        log = replace(log, logs=logs, outputs=log.outputs[:shown], system_logs=lines or log.system_logs)
        attempts.append(replace(attempt, log=log))
    return replace(record, attempts=attempts)


def _lines(log: TaskLog) -> list[str]:
    return [] if log.system_logs is UNSET else log.system_logs


def _end(text: str | UnsetType, size: int) -> str | UnsetType:
    return text if text is UNSET else text[max(0, len(text) - size) :]
