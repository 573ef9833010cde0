"""What a task's objects on the cluster say of it (pure): one pass over them answers all that the server asks.

The taskmaster's record says nearly everything. What it cannot say is that there is no taskmaster: not yet, since the
cluster has no room or refuses it, or no more, since it failed for good or somebody deleted it. A task that runs in one
pod has no taskmaster (assess_task_pod.py).
"""

import msgspec
from msgspec import UNSET

from tesk.kubernetes import names, pod_status
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import is_quota
from tesk.kubernetes.objects import Condition, Pod
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskStatus
from tesk.places.kubernetes.assess_task_pod import assess_task_pod
from tesk.places.kubernetes.observed import Assessment, ObservedTask, failed, shown, trouble_limit
from tesk.tes import State, TaskLog


def assess(task: ObservedTask, settings: TaskSettings) -> Assessment:
    """Depends on the arguments only, so it does not matter which changes were seen."""
    found = assess_task_pod(task, settings) if task.mode == "pod" else _assess_with_taskmaster(task, settings)
    if found.status is None:
        return found
    return msgspec.structs.replace(found, status=shown(task, found.status))


def _assess_with_taskmaster(task: ObservedTask, settings: TaskSettings) -> Assessment:
    record, taskmaster = task.record, task.leading_pod
    works = [pod for pod in task.pods.values() if pod.metadata.labels.get(names.ROLE) != names.TASKMASTER]
    is_over = record is not None and record.state.is_terminal
    is_running = taskmaster is not None and pod_status.runs(taskmaster)
    waits_for_pod = task.job is not None and not is_over and (record is None or not is_running)
    waits_for = _waits_for(task, taskmaster, waits_for_pod)
    end = _job_end(task)
    node = taskmaster.spec.node_name if taskmaster is not None else ""
    is_held = record is not None and is_quota(record.waiting)
    return Assessment(
        status=_status(task, end, waits_for, has_node=any(pod.spec.node_name for pod in works)),
        waits_for=waits_for,
        has_room=bool(works) and not is_held and all(pod.spec.node_name for pod in task.pods.values()),
        has_begun=is_over or any(pod_status.runs(pod) or pod_status.is_over(pod) for pod in works),
        leading_node=node if record is not None or is_running else None,
        waits_for_pod=waits_for_pod,
        needs_record_read=end is not None and not (task.is_record_final or is_over or task.refused),
        limit=(
            trouble_limit(task.trouble, task.trouble_since, settings, waits_for)
            if waits_for_pod and not task.refused
            else None
        ),
    )


def _status(task: ObservedTask, end: Condition | None, waits_for: str, *, has_node: bool) -> TaskStatus | None:
    """`has_node`: a pod beside the taskmaster's has been given a node, so its image or its inputs are being fetched."""
    record = task.record
    if record is not None and record.state.is_terminal:
        return records.status(record)
    if task.refused:
        return failed(record, task.refused)
    if task.job is None and task.was_made:
        return failed(record, "its Job was deleted by somebody else")
    if task.is_record_final and end is not None:
        return failed(record, _without_end(task, end))
    if record is not None:
        state = State.INITIALIZING if record.state is State.QUEUED and has_node else record.state
        return records.status(msgspec.structs.replace(record, state=state, waiting=waits_for))
    if task.job is None and not waits_for:
        return None
    return TaskStatus(State.QUEUED, TaskLog(system_logs=[f"waiting: {waits_for}"] if waits_for else UNSET))


def _waits_for(task: ObservedTask, taskmaster: Pod | None, waits_for_pod: bool) -> str:
    """Where no taskmaster is at work, by what the cluster says, else by the task's record."""
    if task.trouble is not None:
        return f"the taskmaster: {task.trouble.words}"
    status = pod_status.container(taskmaster, names.TASKMASTER_CONTAINER) if taskmaster else None
    if task.crash and status is not None and status.state.running is None:
        return f"the taskmaster is started again ({task.crash})"
    if task.record is not None and task.record.waiting:
        return task.record.waiting
    return task.delay if task.record is None or waits_for_pod else ""


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
