"""Whether a task runs in one pod or with a taskmaster, and why (pure)."""

from typing import Literal

from tesk import parameters
from tesk.kubernetes import manifests, names
from tesk.kubernetes.pod_layout import pod_layout
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import doubtful
from tesk.tes import Task

Mode = Literal["taskmaster", "pod"]

MOST_EXECUTORS = 20
"""More of them are not started all at once, and the runner's log has the record of all at each of their changes."""


def choose(task: Task, settings: TaskSettings) -> tuple[Mode, str]:
    """The mode of the task, and the line of its log that says so; no line where the operator has chosen."""
    if settings.mode == "taskmaster":
        return "taskmaster", ""
    reason = impossible(task, settings) or (unfit(task, settings) if settings.mode == "auto" else "")
    return ("taskmaster", f"runs with a taskmaster: {reason}") if reason else ("pod", names.IN_ONE_POD)


def impossible(task: Task, settings: TaskSettings) -> str:
    """Why the task cannot run in one pod; empty where it can."""
    if len(task.executors) > MOST_EXECUTORS:
        return f"it has more than {MOST_EXECUTORS} executors"
    if parameters.ENTRYPOINT in parameters.given(task, settings.allowed_backend_parameters):
        return "the images' own programs begin before the executors (entrypoint), which a pod would start all at once"
    has_users = settings.run_as_user or settings.pod_security == "restricted"
    if has_users and (folders := doubtful(task)):
        return f"{folders[0]} may be a directory of the image, and executors that are not root cannot make it"
    if files := pod_layout(task).files:
        return f"{files[0]} lies where images have files, or may have, and must be there before its container is made"
    return ""


def unfit(task: Task, settings: TaskSettings) -> str:
    """Why the task had better not run in one pod; empty where it may."""
    if manifests.executor_account(task, settings):
        return "its executors have a service account of their own"
    if len(task.executors) > 1 and parameters.GPU in parameters.given(task, settings.allowed_backend_parameters):
        return "each of its executors has GPUs, and in one pod each would hold its own all the time"
    plan = pod_layout(task)
    if not plan.is_empty and not settings.storage_class and not manifests.is_on_node(task, settings):
        return f"its disk_gb is above pod_disk_gb, {settings.pod_disk_gb:g}"
    if folders := doubtful(task):
        return f"whether an image has something in {folders[0]} is known only once it is there"
    return ""
