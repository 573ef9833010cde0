"""What the one pod of a whole task says of it (pure).

The runner's record says nearly everything, and it has been told or stands in the pod's log. What it cannot say: that
the runner has not begun, was taken away, or waits for an executor that has no program to give a turn to.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from tesk.kubernetes import names, pod_status
from tesk.kubernetes import record as records
from tesk.kubernetes.bounds import quantity
from tesk.kubernetes.objects import Container, Pod, Terminated
from tesk.kubernetes.record import Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life import log as logs
from tesk.life.outcome import KILLED
from tesk.life.status import TaskStatus
from tesk.places.kubernetes.observed import Assessment, Limit, ObservedTask, failed, may_retry, trouble_limit
from tesk.tes import State, TaskLog

KILL_S: Final = 30.0
"""A pod that is to end and does not, so long after its grace, has a node that is away."""
UNTOLD_S: Final = 60.0
"""So long after its end an executor whose runner has said nothing of it has never had its turn."""


def assess_task_pod(task: ObservedTask, settings: TaskSettings) -> Assessment:
    """Depends on the arguments only, so it does not matter which changes were seen."""
    record, pod = task.record, task.leading_pod
    is_over = record is not None and record.state.is_terminal
    is_settled = is_over or bool(task.refused)
    is_running = pod is not None and pod_status.runs(pod)
    has_ended = pod is not None and _runner_has_ended(pod)
    needs_read = has_ended and not is_settled and not task.is_record_final
    lost = "" if is_settled or needs_read else _loss(task, pod, has_ended=has_ended)
    is_retried = bool(lost) and may_retry(task, settings)
    goes_on = pod is not None and not is_settled and not lost and not has_ended
    waits_for = _waits_for(task, pod)
    runner = pod_status.container(pod, names.RUNNER_CONTAINER) if pod is not None else None
    has_runner = runner is not None and runner.state.waiting is None
    return Assessment(
        status=None if is_retried else _status(task, pod, waits_for, lost),
        waits_for=waits_for,
        has_room=pod is not None and bool(pod.spec.node_name),
        has_begun=is_over or is_running or has_ended,
        leading_node=pod.spec.node_name if pod is not None and has_runner else None,
        waits_for_pod=goes_on and not is_running,
        needs_record_read=needs_read,
        limit=_limit(task, pod, settings) if goes_on and pod is not None else None,
        retry=lost if is_retried else "",
        is_silent=goes_on and has_runner and not task.is_told,
    )


def _runner_has_ended(pod: Pod) -> bool:
    return pod_status.terminated(pod, names.RUNNER_CONTAINER) is not None or pod_status.has_ended(pod)


def _status(task: ObservedTask, pod: Pod | None, waits_for: str, lost: str) -> TaskStatus | None:
    record = task.record
    if record is not None and record.state.is_terminal:
        return None if _awaits_cause(record, pod) else records.status(_with_causes(record, pod))
    if reason := task.refused or lost:
        return failed(record, reason)
    if record is not None:
        return records.status(replace(record, waiting=waits_for or record.waiting))
    if pod is not None and pod_status.runs(pod):
        return None
    if pod is None and not waits_for:
        return None
    state = State.INITIALIZING if task.earlier or (pod is not None and pod.spec.node_name) else State.QUEUED
    return TaskStatus(state, TaskLog(system_logs=[f"waiting: {waits_for}"] if waits_for else UNSET))


def _waits_for(task: ObservedTask, pod: Pod | None) -> str:
    """What the pod waits for by its status, by its events, or why it could not be made."""
    if pod is None:
        return task.delay
    trouble, _ = _trouble(task, pod)
    if trouble is None:
        return ""
    n = names.number_of_executor(trouble.container)
    return trouble.words if n is None else f"executor {n}: {trouble.words}"


def _trouble(task: ObservedTask, pod: Pod) -> tuple[pod_status.Trouble | None, float]:
    """What keeps the pod from starting, and since when. Of a volume its events say more than its status."""
    if pod_status.runs(pod):
        return None, 0.0
    if task.event_trouble is not None and (task.trouble is None or task.trouble.kind == "volume"):
        return task.event_trouble, task.event_trouble_since
    return task.trouble, task.trouble_since


def _loss(task: ObservedTask, pod: Pod | None, *, has_ended: bool) -> str:
    """Why the attempt is lost; empty where it is not. A pod that is being deleted may still say how it went."""
    if pod is None and task.last_pod is not None:
        return pod_status.gone(task.last_pod.metadata.name, task.last_pod)
    if pod is None:
        return "its pod was deleted by somebody else" if task.was_made else ""
    if has_ended:
        return pod_status.loss(pod) or pod_status.broken(pod, names.RUNNER_CONTAINER)
    return task.lost


def _limit(task: ObservedTask, pod: Pod, settings: TaskSettings) -> Limit | None:
    """When the pod is given up that is there and whose runner has not ended."""
    if pod.metadata.deletion_timestamp:
        words = pod_status.loss(pod) or f"pod {pod.metadata.name} was deleted by somebody else"
        return Limit(task.since.get("deleted", 0.0) + settings.grace_s + KILL_S, words, is_loss=True)
    for n, end in _ended(pod):
        if task.record is None or n >= len(task.record.now.log.logs):
            name = f"executor {n} ({_spec(pod, n).image})"
            if why := pod_status.never_ran(end):
                passing = pod_status.never_begun(pod, names.executor_container(n))
                return Limit(0.0, f"{name}: it cannot be started: {why}", is_loss=passing is not None)
            words = f"{name}: its container ended untold, with code {end.exit_code}{pod_status.last_words(end)}"
            return Limit(task.since.get(names.executor_container(n), 0.0) + UNTOLD_S, words)
    if pod_status.runs(pod):
        return None
    return trouble_limit(*_trouble(task, pod), settings, _waits_for(task, pod))


def _ended(pod: Pod) -> Iterator[tuple[int, Terminated]]:
    """The executors whose containers have ended, in order."""
    for n in range(len(pod.spec.containers)):
        if (end := pod_status.terminated(pod, names.executor_container(n))) is not None:
            yield n, end


def _awaits_cause(record: Record, pod: Pod | None) -> bool:
    """True while the kubelet has not said yet why the last executor was killed."""
    entries = record.now.log.logs
    if pod is None or pod.metadata.deletion_timestamp or not entries or entries[-1].exit_code != KILLED:
        return False
    n = len(entries) - 1
    status = pod_status.container(pod, names.executor_container(n))
    return status is not None and status.state.running is not None and not _says_out_of_memory(record.now.log, n)


def _with_causes(record: Record, pod: Pod | None) -> Record:
    """The record with what only the kubelet knows: that an executor was killed whole for want of memory."""
    log = record.now.log
    for n, end in _ended(pod) if pod is not None else ():
        was_killed = n < len(log.logs) and log.logs[n].exit_code == KILLED and end.reason == "OOMKilled"
        if pod is not None and was_killed and not _says_out_of_memory(log, n):
            spec = _spec(pod, n)
            limit = spec.resources.limits.get("memory", "0")
            log = logs.noted(log, logs.out_of_memory(n, spec.image, KILLED, float(quantity(limit)) / 1024**2))
    if log is record.now.log:
        return record
    return replace(record, attempts=[*record.attempts[:-1], msgspec.structs.replace(record.now, log=log)])


def _says_out_of_memory(log: TaskLog, n: int) -> bool:
    return any(f"executor {n} (" in line and "out of memory" in line for line in log.system_logs or ())


def _spec(pod: Pod, n: int) -> Container:
    """The container of an executor as it was asked for."""
    name = names.executor_container(n)
    return next((each for each in pod.spec.containers if each.name == name), Container(name))
