"""What the watches and the API have shown of a task, and what the server makes of that.

One struct, whichever way the task is run: with a taskmaster (assess.py) or in one pod (assess_task_pod.py).
"""

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from tesk.clock import now
from tesk.kubernetes import names, pod_status
from tesk.kubernetes import record as records
from tesk.kubernetes.objects import ConfigMap, Job, Pod
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_pod import unpack_earlier
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life import log as logs
from tesk.life.log import CANCELED_EARLY, noted
from tesk.life.status import TaskStatus
from tesk.places.kubernetes.mode import Mode
from tesk.tes import State, TaskLog

_logs = msgspec.json.Decoder(list[TaskLog]).decode


class ObservedTask(Struct):
    """What the watches have shown of a task, and what the API has answered about it."""

    job: Job | None = None
    was_made: bool = False
    """There is a Job or a pod of the whole task, or was one."""
    mode: Mode | None = None
    """None where nothing of the task has been seen, nor made."""
    mode_line: str = ""
    """What its log says of the mode."""
    record: Record | None = None
    """The last record that was read or reported, whether or not the ConfigMap or pod is still there."""
    has_configmap: bool = False
    unreadable: str = ""
    """What is wrong with the record in the ConfigMap, or with what a pod knows of earlier attempts."""
    is_record_final: bool = False
    """The record was read once more after the end of what runs the task, so it will not say any more."""
    pods: dict[str, Pod] = {}
    delay: str = ""
    """Why the Job or pod could not be made yet, or the Job has no taskmaster at work."""
    refused: str = ""
    """Why the task will never run, or not any more."""
    crash: str = ""
    """How the taskmaster ended last."""
    trouble: pod_status.Trouble | None = None
    """What keeps the leading pod from starting."""
    trouble_since: float = 0.0
    event_trouble: pod_status.Trouble | None = None
    """What keeps the pod of the whole task from starting, by its events or its claim's."""
    event_trouble_since: float = 0.0
    attempt: int = 1
    """Which pod of the whole task counts: the newest."""
    last_pod: Pod | None = None
    """How that pod was last seen, also when it is gone."""
    earlier: tuple[TaskLog, ...] = ()
    """The logs of the attempts before its own."""
    is_told: bool = False
    """It has reported to this server."""
    may_have_secrets: bool = True
    """Of a task that runs in one pod: its Secrets have not been deleted for certain."""
    lost: str = ""
    """Why it counts as lost though it is still there."""
    since: dict[str, float] = {}
    """Since when it is "deleted", and since when each of its executors, by their containers' names, has ended."""

    @property
    def is_gone(self) -> bool:
        return self.job is None and not self.has_configmap and not self.pods

    @property
    def leading_pod(self) -> Pod | None:
        """The pod that the server itself has caused: the whole task's, or the newest of the taskmaster's Job."""
        if self.last_pod is not None:
            return self.pods.get(self.last_pod.metadata.name)
        found = [pod for pod in self.pods.values() if pod.metadata.labels.get(names.ROLE) == names.TASKMASTER]
        return max(found, key=lambda pod: pod.metadata.creation_timestamp or "", default=None)

    def set_job(self, job: Job | None) -> None:
        self.job, self.was_made, self.mode = job, True, "taskmaster"
        if job is not None:
            self.mode_line = job.metadata.annotations.get(names.MODE_LINE, "")

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
        role = pod.metadata.labels.get(names.ROLE) if pod is not None else names.TASKMASTER
        if pod is not None and role == names.TASK_POD:
            self._set_task_pod(pod, moment)
        if role in (names.TASKMASTER, names.TASK_POD):
            self._set_trouble(moment)

    def _set_task_pod(self, pod: Pod, moment: float) -> None:
        """A pod of the whole task. One of a further attempt begins with what is known of those before it."""
        attempt = names.attempt_of_task_pod(pod.metadata.name)
        if attempt < self.attempt:
            return
        if attempt > self.attempt:
            self.record, self.is_record_final, self.is_told, self.lost, self.since = None, False, False, "", {}
            self.event_trouble = None
        if self.last_pod is None or attempt > self.attempt:
            notes = pod.metadata.annotations
            self.mode, self.was_made, self.mode_line = "pod", True, notes.get(names.MODE_LINE, "")
            try:
                self.earlier = unpack_earlier(notes[names.EARLIER]) if names.EARLIER in notes else ()
            except ValueError as error:
                self.unreadable = f"pod {pod.metadata.name}: {error}"
        self.attempt, self.last_pod = attempt, pod
        if pod.metadata.deletion_timestamp:
            self.since.setdefault("deleted", moment)
        for status in pod.status.container_statuses:
            if status.state.terminated is not None:
                self.since.setdefault(status.name, moment)

    def set_event_trouble(self, found: pod_status.Trouble | None, moment: float) -> None:
        before = self.event_trouble
        if found is None or before is None or found.kind != before.kind:
            self.event_trouble_since = moment
        self.event_trouble = found

    def set_record(self, record: Record) -> None:
        """What the runner of the newest pod has said. An end stays the end."""
        if self.record is None or not self.record.state.is_terminal:
            self.record = record

    def _set_trouble(self, moment: float) -> None:
        """Takes in what the leading pod says of itself."""
        pod = self.leading_pod
        self.crash = _crash(pod) or self.crash
        found = pod_status.trouble(pod) if pod is not None else None
        before = self.trouble
        if found is None or before is None or found.kind != before.kind:
            self.trouble_since = moment
        elif found.kind == "image":
            found = replace(found, words=pod_status.clearer(before.words, found.words))
        self.trouble = found


class Limit(Struct, frozen=True):
    """When waiting for the leading pod is given up, as a monotonic time, and why."""

    at: float
    reason: str
    is_loss: bool = False
    """Then the pod counts as lost: there may be another attempt. Else the task ends."""


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
    leading_node: str | None
    """Where the leading pod runs or has run, if that is known; None when none has run yet."""
    waits_for_pod: bool
    """The leading pod is missing, or does not run yet or any more, or has told nothing."""
    needs_record_read: bool
    """What runs the task is over, and the record does not say how the task ended: what is known of it may be late."""
    limit: Limit | None
    """None where the leading pod is not waited for, or without limit."""
    retry: str = ""
    """Why the attempt is lost, where there may be another."""
    is_silent: bool = False
    """The pod of the whole task runs, and has told nothing to this server."""


def shown(task: ObservedTask, status: TaskStatus) -> TaskStatus:
    """The status as users see it: with the attempts before, and with the line about the mode."""
    if task.mode_line:
        lines = [] if status.log.system_logs is UNSET else status.log.system_logs
        log = replace(status.log, system_logs=[task.mode_line, *lines])
        status = replace(status, log=log)
    return replace(status, earlier=(*task.earlier, *status.earlier)) if task.earlier else status


def may_retry(task: ObservedTask, settings: TaskSettings) -> bool:
    """True when another pod may follow that of the present attempt, should that be lost. Not where nobody knows how
    many there have been."""
    return (task.last_pod is not None or task.record is not None) and task.attempt <= settings.retries


def recall(task: ObservedTask, stored: bytes) -> None:
    """Takes over what the store has of a task that ran in one pod, and of which the cluster has nothing any more.
    Before the line about the mode stand the warnings that the store itself puts there."""
    logs = _logs(stored)
    if not logs or not (lines := logs[0].system_logs) or names.IN_ONE_POD not in lines:
        return
    first = replace(logs[0], system_logs=lines[lines.index(names.IN_ONE_POD) :])
    *earlier, last = first, *logs[1:]
    shown_lines = last.system_logs or [names.IN_ONE_POD]
    last = replace(last, system_logs=shown_lines[1:] or UNSET)
    task.mode, task.mode_line, task.attempt = "pod", names.IN_ONE_POD, len(logs)
    task.earlier, task.record = tuple(earlier), Record(State.INITIALIZING, [Attempt(last)])


def attempt_log(task: ObservedTask, why: str) -> TaskLog:
    """The log of an attempt that is lost and followed by another."""
    log = TaskLog() if task.record is None else records.status(replace(task.record, waiting="")).log
    ended = noted(replace(log, end_time=now()), f"error: {why}; trying again")
    return shown(replace(task, earlier=()), TaskStatus(State.SYSTEM_ERROR, ended)).log


def cancelled(record: Record | None, output: tuple[str, str] = ("", "")) -> TaskStatus:
    """A cancelled task: what had ended, and what the executor that was stopped had written."""
    if record is None:
        return TaskStatus(State.CANCELED, TaskLog(system_logs=[CANCELED_EARLY]))
    status = running(replace(record, waiting=""), output)
    ended = logs.cancelled(status.log, has_ended=record.state.is_terminal)
    return TaskStatus(State.CANCELED, ended, status.earlier)


def running(record: Record, output: tuple[str, str]) -> TaskStatus:
    """The task with its running executor, and what that has written so far."""
    status = records.status(record)
    if record.now.started is UNSET or record.state.is_terminal:
        return status
    return replace(status, log=logs.running(status.log, record.now.started, *output))


def failed(record: Record | None, reason: str) -> TaskStatus:
    """A system error that nobody in the cluster can tell of."""
    if record is None:
        return TaskStatus(State.SYSTEM_ERROR, TaskLog(end_time=now(), system_logs=[f"error: {reason}"]))
    status = records.status(replace(record, waiting=""))
    log = replace(status.log, end_time=now())
    return TaskStatus(State.SYSTEM_ERROR, noted(log, f"error: {reason}"), status.earlier)


def _crash(pod: Pod | None) -> str:
    """How the taskmaster's container failed last, if its pod says so."""
    status = pod_status.container(pod, names.TASKMASTER_CONTAINER) if pod is not None else None
    end = status and (status.state.terminated or status.last_state.terminated)
    if not status or not end or not end.exit_code:
        return ""
    return f"it ended with code {end.exit_code}, {end.reason or 'no reason given'}{pod_status.last_words(end)}"


def trouble_limit(trouble: pod_status.Trouble | None, since: float, settings: TaskSettings, words: str) -> Limit | None:
    """When a leading pod that cannot start is given up; None for never. `words`: what users are told of its trouble."""
    if trouble is None:
        return None
    if trouble.hopeless:
        return Limit(since, words)
    limit_s: float = getattr(settings, pod_status.LIMITS.get(trouble.kind, ""), 0.0)
    if not limit_s:
        return None
    return Limit(since + limit_s, words + pod_status.given_up(trouble.kind, limit_s))
