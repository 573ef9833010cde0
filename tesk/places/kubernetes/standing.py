"""The log of a task that runs or was cancelled, with what its executor had written (pure)."""

import msgspec
from msgspec import UNSET

from tesk.kubernetes import record as records
from tesk.kubernetes.record import Record
from tesk.life import log as logs
from tesk.life.log import CANCELED_EARLY
from tesk.life.status import TaskStatus
from tesk.tes import State, TaskLog


def cancelled(record: Record | None, output: tuple[str, str] = ("", "")) -> TaskStatus:
    """A cancelled task: what had ended, and what the executor that was stopped had written."""
    if record is None:
        return TaskStatus(State.CANCELED, TaskLog(system_logs=[CANCELED_EARLY]))
    status = running(msgspec.structs.replace(record, waiting=""), output)
    ended = logs.cancelled(status.log, has_ended=record.state.is_terminal)
    return TaskStatus(State.CANCELED, ended, status.earlier)


def running(record: Record, output: tuple[str, str]) -> TaskStatus:
    """The task with its running executor, and what that has written so far."""
    status = records.status(record)
    if record.now.started is UNSET or record.state.is_terminal:
        return status
    return msgspec.structs.replace(status, log=logs.running(status.log, record.now.started, *output))
