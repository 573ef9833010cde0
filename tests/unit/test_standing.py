"""The log of a task that runs or was cancelled."""

from typing import Any

import msgspec
from msgspec import UNSET

from tesk.kubernetes.record import Attempt, Record
from tesk.life.status import TaskStatus
from tesk.places.kubernetes.standing import cancelled, running
from tesk.tes import ExecutorLog, State, TaskLog

AT = "2026-01-01T00:00:00.000Z"


def record(state: State, **changes: Any) -> Record:
    attempt = Attempt(TaskLog(logs=[ExecutorLog(0, AT, AT, "first", "")], start_time=AT), started=AT)
    return Record(state, [attempt], **changes)


def told(status: TaskStatus | None) -> tuple[State, list[str]]:
    assert status is not None
    return status.state, [] if status.log.system_logs is UNSET else status.log.system_logs


def test_a_cancelled_task_shows_what_its_executor_had_written() -> None:
    status = cancelled(record(State.RUNNING, waiting="x"), ("so far", "err"))
    first, second = status.log.logs
    assert (first.exit_code, second.exit_code, second.stdout, second.stderr) == (0, 143, "so far", "err")
    assert second.end_time is not UNSET
    assert told(status) == (State.CANCELED, ["canceled by the user"])


def test_a_task_cancelled_before_it_began_says_so() -> None:
    assert told(cancelled(None)) == (State.CANCELED, ["canceled by the user before it started"])


def test_a_task_cancelled_after_its_end_keeps_its_log_and_says_what_its_state_comes_from() -> None:
    ended = record(State.COMPLETE)
    status, log = cancelled(ended), running(ended, ("", "")).log
    assert msgspec.structs.replace(status.log, system_logs=log.system_logs) == log
    assert told(status) == (State.CANCELED, ["canceled by the user"])


def test_a_running_executor_has_no_exit_code_yet() -> None:
    entry = running(record(State.RUNNING), ("so far", "")).log.logs[1]
    assert (entry.exit_code, entry.end_time, entry.stdout) == (-1, UNSET, "so far")
