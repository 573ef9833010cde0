"""What a task's objects on the cluster say of it (pure): one pass over them answers all that the server asks.

The taskmaster's record says nearly everything. What it cannot say is that there is no taskmaster: not yet, since the
cluster has no room or refuses it, or no more, since it failed for good or somebody deleted it.
"""

import msgspec
from msgspec import UNSET, Struct

from tesk.clock import now
from tesk.kubernetes import names, pod_status
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import is_quota
from tesk.kubernetes.objects import Condition, ConfigMap, Job, Pod
from tesk.kubernetes.record import Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life import log as logs
from tesk.life.log import CANCELED_EARLY, noted
from tesk.life.status import TaskStatus
from tesk.tes import State, TaskLog


class ObservedTask(Struct):
    """What the watches have shown of a task, and what the API has answered about it."""

    job: Job | None = None
    had_job: bool = False
    """There is a Job, or was one."""
    record: Record | None = None
    """The last record that was read, whether or not the ConfigMap is still there."""
    has_configmap: bool = False
    unreadable: str = ""
    """What is wrong with the record in the ConfigMap."""
    is_record_final: bool = False
    """The record was read once more after the Job's end, so it will not say any more."""
    pods: dict[str, Pod] = {}
    delay: str = ""
    """Why the Job could not be made yet, or has no taskmaster at work."""
    refused: str = ""
    """Why the task will never have a taskmaster."""
    crash: str = ""
    """How the taskmaster ended last."""
    trouble: pod_status.Trouble | None = None
    """What keeps the taskmaster's pod from starting."""
    trouble_since: float = 0.0

    @property
    def is_gone(self) -> bool:
        return self.job is None and not self.has_configmap and not self.pods

    @property
    def taskmaster(self) -> Pod | None:
        """The newest pod of the taskmaster's Job."""
        found = [pod for pod in self.pods.values() if pod.metadata.labels.get(names.ROLE) == names.TASKMASTER]
        return max(found, key=lambda pod: pod.metadata.creation_timestamp or "", default=None)

    def set_job(self, job: Job | None) -> None:
        self.job, self.had_job = job, True

    def set_configmap(self, found: ConfigMap | None) -> None:
        """What a record has said stays known when it is gone: its taskmaster makes it again. An end stays the end: what
        the watch tells may be older than what was read since."""
        self.has_configmap = found is not None
        if found is None:
            return
        try:
            record = records.unpack(found.binary_data.get(names.RECORD_KEY, b""))
        except ValueError as error:
            self.unreadable = f"ConfigMap {found.metadata.name}: {error}"
            return
        self.unreadable = ""
        if self.record is None or not self.record.state.is_terminal:
            self.record = record

    def set_pod(self, name: str, pod: Pod | None, moment: float) -> None:
        """The pod is so, or gone, at that monotonic time."""
        if pod is None:
            self.pods.pop(name, None)
        else:
            self.pods[name] = pod
        if pod is None or pod.metadata.labels.get(names.ROLE) == names.TASKMASTER:
            self._set_trouble(moment)

    def _set_trouble(self, moment: float) -> None:
        """Takes in what the taskmaster's pod says of itself."""
        pod = self.taskmaster
        self.crash = _crash(pod) or self.crash
        found = pod_status.trouble(pod) if pod is not None else None
        before = self.trouble
        if found is None or before is None or found.kind != before.kind:
            self.trouble_since = moment
        elif found.kind == "image":
            found = msgspec.structs.replace(found, words=pod_status.clearer(before.words, found.words))
        self.trouble = found


class Limit(Struct, frozen=True):
    """When waiting for the taskmaster's pod is given up, as a monotonic time, and why."""

    at: float
    reason: str


class Assessment(Struct, frozen=True):
    """What is so of a task now."""

    status: TaskStatus | None
    """What the server reports; None while nothing is known."""
    waits_for: str
    """In words; empty for nothing."""
    has_room: bool
    """The cluster has taken in what runs the task: the task waits for nothing that others may hold."""
    has_begun: bool
    """A filer or an executor runs, or has run."""
    taskmaster_node: str | None
    """Where the taskmaster runs or has run, if that is known; None when none has run yet."""
    lacks_taskmaster: bool
    """The Job has no taskmaster that runs, or none that has told anything."""
    needs_record_read: bool
    """The Job is over, and the record does not say how the task ended: the watch of records may be late."""
    limit: Limit | None
    """None where the taskmaster's pod is not waited for, or without limit."""


def assess(task: ObservedTask, settings: TaskSettings) -> Assessment:
    """Depends on the arguments only, so it does not matter which changes were seen."""
    record, taskmaster = task.record, task.taskmaster
    works = [pod for pod in task.pods.values() if pod.metadata.labels.get(names.ROLE) != names.TASKMASTER]
    is_over = record is not None and record.state.is_terminal
    is_running = taskmaster is not None and pod_status.runs(taskmaster)
    lacks_taskmaster = task.job is not None and not is_over and (record is None or not is_running)
    waits_for = _waits_for(task, taskmaster, lacks_taskmaster)
    end = _job_end(task)
    node = taskmaster.spec.node_name if taskmaster is not None else ""
    is_held = record is not None and is_quota(record.waiting)
    return Assessment(
        status=_status(task, end, waits_for, has_node=any(pod.spec.node_name for pod in works)),
        waits_for=waits_for,
        has_room=bool(works) and not is_held and all(pod.spec.node_name for pod in task.pods.values()),
        has_begun=is_over or any(pod_status.runs(pod) or pod_status.is_over(pod) for pod in works),
        taskmaster_node=node if record is not None or is_running else None,
        lacks_taskmaster=lacks_taskmaster,
        needs_record_read=end is not None and not (task.is_record_final or is_over or task.refused),
        limit=_limit(task, settings) if lacks_taskmaster and not task.refused else None,
    )


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


def _status(task: ObservedTask, end: Condition | None, waits_for: str, *, has_node: bool) -> TaskStatus | None:
    """`has_node`: a pod beside the taskmaster's has been given a node, so its image or its inputs are being fetched."""
    record = task.record
    if record is not None and record.state.is_terminal:
        return records.status(record)
    if task.refused:
        return _failed(record, task.refused)
    if task.job is None and task.had_job:
        return _failed(record, "its Job was deleted by somebody else")
    if task.is_record_final and end is not None:
        return _failed(record, _without_end(task, end))
    if record is not None:
        state = State.INITIALIZING if record.state is State.QUEUED and has_node else record.state
        return records.status(msgspec.structs.replace(record, state=state, waiting=waits_for))
    if task.job is None and not waits_for:
        return None
    return TaskStatus(State.QUEUED, TaskLog(system_logs=[f"waiting: {waits_for}"] if waits_for else UNSET))


def _waits_for(task: ObservedTask, taskmaster: Pod | None, lacks_taskmaster: bool) -> str:
    """Where no taskmaster is at work, by what the cluster says, else by the task's record."""
    if task.trouble is not None:
        return f"the taskmaster: {task.trouble.words}"
    status = pod_status.container(taskmaster, names.TASKMASTER_CONTAINER) if taskmaster else None
    if task.crash and status is not None and status.state.running is None:
        return f"the taskmaster is started again ({task.crash})"
    if task.record is not None and task.record.waiting:
        return task.record.waiting
    return task.delay if task.record is None or lacks_taskmaster else ""


def _limit(task: ObservedTask, settings: TaskSettings) -> Limit | None:
    trouble = task.trouble
    if trouble is None:
        return None
    words = f"the taskmaster: {trouble.words}"
    if trouble.hopeless:
        return Limit(task.trouble_since, words)
    limit_s: float = getattr(settings, pod_status.LIMITS[trouble.kind])
    if not limit_s:
        return None
    return Limit(task.trouble_since + limit_s, words + pod_status.given_up(trouble.kind, limit_s))


def _job_end(task: ObservedTask) -> Condition | None:
    """How the Job ended; None while it has not."""
    conditions = task.job.status.conditions if task.job is not None else ()
    return next((each for each in conditions if each.type in ("Complete", "Failed") and each.status == "True"), None)


def _without_end(task: ObservedTask, end: Condition) -> str:
    """Why a task ends whose Job is over and whose record does not say how."""
    if end.type == "Failed":
        last = f" ({task.crash})" if task.crash else ""
        return f"its taskmaster failed: {end.message or end.reason}{last}"
    if task.unreadable:
        return f"its taskmaster has ended, and its record cannot be read: {task.unreadable}"
    said = f"says {task.record.state.name}" if task.has_configmap and task.record is not None else "is gone"
    return f"its taskmaster has ended, and the ConfigMap with its record {said}: somebody else changed or deleted it"


def _failed(record: Record | None, reason: str) -> TaskStatus:
    """A system error that no taskmaster can tell of."""
    if record is None:
        return TaskStatus(State.SYSTEM_ERROR, TaskLog(end_time=now(), system_logs=[f"error: {reason}"]))
    status = records.status(msgspec.structs.replace(record, waiting=""))
    log = msgspec.structs.replace(status.log, end_time=now())
    return TaskStatus(State.SYSTEM_ERROR, noted(log, f"error: {reason}"), status.earlier)


def _crash(pod: Pod | None) -> str:
    """How the taskmaster's container failed last, if its pod says so."""
    status = pod_status.container(pod, names.TASKMASTER_CONTAINER) if pod is not None else None
    end = status and (status.state.terminated or status.last_state.terminated)
    if not status or not end or not end.exit_code:
        return ""
    return f"it ended with code {end.exit_code}, {end.reason or 'no reason given'}{pod_status.last_words(end)}"
