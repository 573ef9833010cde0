"""Where a task stands, by all that the server sees of it (pure): the state and log that it reports.

The taskmaster's record says nearly everything. What it cannot say is that there is no taskmaster: not yet, since the
cluster has no room or refuses it, or no more, since it failed for good or somebody deleted it.
"""

import msgspec
from msgspec import UNSET, Struct

from tesk.clock import now
from tesk.kubernetes import names, pod_status
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import is_quota
from tesk.kubernetes.objects import Condition, Event, Job, Pod
from tesk.kubernetes.record import Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life import log as logs
from tesk.life.log import CANCELED_EARLY, noted
from tesk.life.status import TaskStatus
from tesk.tes import State, TaskLog


class Known(Struct):
    """All that is known of one task. `job_seen`: there has been a Job. `recorded`: there is a ConfigMap with a record.

    `waiting`: why it could not be made yet, or has no pod. `refused`: why it never will. `crash`: the taskmaster's
    last end. `trouble`, `trouble_at`: what keeps its pod from starting, and since when. `unreadable`: what is wrong
    with its record. `is_final`: the record was read once more after the Job's end, so it will not say any more.
    """

    job: Job | None = None
    job_seen: bool = False
    record: Record | None = None
    recorded: bool = False
    pods: dict[str, Pod] = {}
    waiting: str = ""
    refused: str = ""
    crash: str = ""
    trouble: pod_status.Trouble | None = None
    trouble_at: float = 0.0
    unreadable: str = ""
    is_final: bool = False

    @property
    def is_gone(self) -> bool:
        return self.job is None and not self.recorded and not self.pods

    @property
    def taskmaster(self) -> Pod | None:
        """The newest pod of the taskmaster's Job."""
        found = [pod for pod in self.pods.values() if pod.metadata.labels.get(names.ROLE) == names.TASKMASTER]
        return max(found, key=lambda pod: pod.metadata.creation_timestamp or "", default=None)

    def look(self, moment: float) -> None:
        """Takes in what the taskmaster's pod says of itself."""
        pod = self.taskmaster
        self.crash = _crash(pod) or self.crash
        found = pod_status.trouble(pod) if pod is not None else None
        before = self.trouble
        if found is None or before is None or found.kind != before.kind:
            self.trouble_at = moment
        elif found.kind == "image":
            found = msgspec.structs.replace(found, words=pod_status.clearer(before.words, found.words))
        self.trouble = found


def standing(known: Known) -> TaskStatus | None:
    """What is so now; None while nothing is known."""
    record = known.record
    if record is not None and record.state.is_terminal:
        return records.status(record)
    if known.refused:
        return failed(record, known.refused)
    if known.job is None and known.job_seen:
        return failed(record, "its Job was deleted by somebody else")
    if known.is_final and (end := _job_end(known)) is not None:
        return failed(record, _without_end(known, end))
    waiting = waits_for(known)
    if record is not None:
        state = State.INITIALIZING if record.state is State.QUEUED and _has_node(known) else record.state
        return records.status(msgspec.structs.replace(record, state=state, waiting=waiting))
    if known.job is None and not waiting:
        return None
    return TaskStatus(State.QUEUED, TaskLog(system_logs=[f"waiting: {waiting}"] if waiting else UNSET))


def lacks_end(known: Known) -> bool:
    """True when the Job is over and the record, as far as it has been seen, does not say how the task ended: the watch
    of records may be late, so the record is to be read once more."""
    has_end = known.record is not None and known.record.state.is_terminal
    return not (known.is_final or has_end or known.refused) and _job_end(known) is not None


def _job_end(known: Known) -> Condition | None:
    """How the Job ended; None while it has not."""
    conditions = known.job.status.conditions if known.job is not None else ()
    return next((each for each in conditions if each.type in ("Complete", "Failed") and each.status == "True"), None)


def _without_end(known: Known, end: Condition) -> str:
    """Why a task ends whose Job is over and whose record does not say how."""
    if end.type == "Failed":
        last = f" ({known.crash})" if known.crash else ""
        return f"its taskmaster failed: {end.message or end.reason}{last}"
    if known.unreadable:
        return f"its taskmaster has ended, and its record cannot be read: {known.unreadable}"
    said = f"says {known.record.state.name}" if known.recorded and known.record is not None else "is gone"
    return f"its taskmaster has ended, and the ConfigMap with its record {said}: somebody else changed or deleted it"


def has_room(known: Known) -> bool:
    """True once the cluster has taken in what runs the task, so that it waits for nothing that others may hold."""
    held = known.record is not None and is_quota(known.record.waiting)
    return bool(_works(known)) and not held and all(pod.spec.node_name for pod in known.pods.values())


def _has_node(known: Known) -> bool:
    """True when a pod beside the taskmaster's has been given a node: its image, or its inputs, are being fetched."""
    return any(pod.spec.node_name for pod in _works(known))


def _works(known: Known) -> list[Pod]:
    return [pod for pod in known.pods.values() if pod.metadata.labels.get(names.ROLE) != names.TASKMASTER]


def has_taskmaster(known: Known) -> bool:
    """True once its taskmaster runs, or has run."""
    return known.record is not None or ((pod := known.taskmaster) is not None and pod_status.runs(pod))


def lacks_taskmaster(known: Known) -> bool:
    """True while the task's Job has no taskmaster that runs, or none that has told anything."""
    if known.job is None or (known.record is not None and known.record.state.is_terminal):
        return False
    pod = known.taskmaster
    return known.record is None or pod is None or not pod_status.runs(pod)


def has_begun(known: Known) -> bool:
    """True once a filer or an executor runs, or has run."""
    is_over = known.record is not None and known.record.state.is_terminal
    return is_over or any(pod_status.runs(pod) or pod_status.is_over(pod) for pod in _works(known))


def waits_for(known: Known) -> str:
    """What a task waits for: where no taskmaster is at work, by what the cluster says, else by its record; empty for
    nothing."""
    if known.trouble is not None:
        return f"the taskmaster: {known.trouble.words}"
    pod = known.taskmaster
    status = pod_status.container(pod, names.TASKMASTER_CONTAINER) if pod else None
    if known.crash and status is not None and status.state.running is None:
        return f"the taskmaster is started again ({known.crash})"
    if known.record is not None and known.record.waiting:
        return known.record.waiting
    return known.waiting if known.record is None or lacks_taskmaster(known) else ""


def hopeless(known: Known, limits: TaskSettings, moment: float) -> str | None:
    """Why waiting longer for the taskmaster's pod cannot help, or has been waited for long enough."""
    trouble = known.trouble
    if trouble is None:
        return None
    limit_s: float = getattr(limits, pod_status.LIMITS[trouble.kind])
    if trouble.hopeless:
        return f"the taskmaster: {trouble.words}"
    if limit_s and moment - known.trouble_at >= limit_s:
        return f"the taskmaster: {trouble.words}{pod_status.given_up(trouble.kind, limit_s)}"
    return None


def newest(events: list[Event]) -> Event | None:
    """The last of some events."""
    return max(events, key=lambda event: event.last_timestamp or event.event_time or "", default=None)


def failed(record: Record | None, reason: str) -> TaskStatus:
    """A system error that no taskmaster can tell of."""
    if record is None:
        return TaskStatus(State.SYSTEM_ERROR, TaskLog(end_time=now(), system_logs=[f"error: {reason}"]))
    status = records.status(msgspec.structs.replace(record, waiting=""))
    log = msgspec.structs.replace(status.log, end_time=now())
    return TaskStatus(State.SYSTEM_ERROR, noted(log, f"error: {reason}"), status.earlier)


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


def _crash(pod: Pod | None) -> str:
    """How the taskmaster's container failed last, if its pod says so."""
    status = pod_status.container(pod, names.TASKMASTER_CONTAINER) if pod is not None else None
    end = status and (status.state.terminated or status.last_state.terminated)
    if not status or not end or not end.exit_code:
        return ""
    return f"it ended with code {end.exit_code}, {end.reason or 'no reason given'}{pod_status.last_words(end)}"
