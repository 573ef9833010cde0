"""What everything that tesk makes in a cluster is called and labelled: derived from the task's id, so that to make it
again is to find it, and so that one label selector finds all of it."""

import re
from typing import Final

from tesk.life.status import TaskId

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
INSTANCE: Final = "app.kubernetes.io/instance"
TASK: Final = "tesk/task"
ROLE: Final = "tesk/role"
EXECUTOR: Final = "tesk/executor"

MODE_LINE: Final = "tesk/mode"
"""Annotation of a task's Job or pod: the line of its log that says which of the two runs it, and why."""
IN_ONE_POD: Final = "runs as one pod"
WORD_SHA256: Final = "tesk/word-sha256"
"""Annotation of a task's pod: by it the server knows the word of the task's reports, which it does not keep."""
EARLIER: Final = "tesk/earlier"
"""Annotation of a task's pod: what is known of the attempts before its own (task_pod.pack_earlier)."""

TASKMASTER: Final = "taskmaster"
INPUTS: Final = "inputs"
EXECUTOR_ROLE: Final = "executor"
OUTPUTS: Final = "outputs"
TASK_POD: Final = "task"
"""The role of a pod in which a whole task runs."""

EXECUTOR_CONTAINER: Final = "executor"
REPORTER_CONTAINER: Final = "reporter"
FILER_CONTAINER: Final = "filer"
TASKMASTER_CONTAINER: Final = "taskmaster"
RUNNER_CONTAINER: Final = "runner"
LOOK_CONTAINER: Final = "look"
"""Prefix of the containers in which the shim looks at the images of the executors."""
_CONTAINERS: Final = frozenset(
    {EXECUTOR_CONTAINER, REPORTER_CONTAINER, FILER_CONTAINER, TASKMASTER_CONTAINER, RUNNER_CONTAINER}
)
_NUMBERED: Final = re.compile(rf"({EXECUTOR_CONTAINER}|{LOOK_CONTAINER})-[0-9]+")

DOCUMENT_KEY: Final = "document"
"""Key of the task's document, or of a part of it, in its Secrets."""
CLUSTER_KEY: Final = "cluster"
"""Key of the operator's settings (TaskSettings) in the first Secret."""
TOKEN_KEY: Final = "token"  # noqa: S105
"""Key of the word by which the task's own containers prove who they are to its taskmaster."""
RECORD_KEY: Final = "record"
"""Key of the record (record.Record) in the ConfigMap's binaryData."""
MESSAGE_PORT: Final = 8480
"""Port on which a taskmaster is told of starts and ends."""


_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def segment(name: str) -> str:
    """A name as a part of a request's path. Raises ValueError for what no object is called (RFC 1123 subdomain), so
    that nothing else ever becomes a part of a path."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"no object of Kubernetes is called {name[:300]!r}")
    return name


def task_object(task_id: TaskId) -> str:
    """The name of the task's Job, ConfigMap, claim and first Secret."""
    return f"tesk-{task_id}"


def task_of(name: str) -> TaskId:
    """The task that an object of this name belongs to."""
    return name.removeprefix(task_object("")).partition("-")[0]


def secret(task_id: TaskId, part: int) -> str:
    """The name of the Secret that holds a part of the task's document; parts count from 0."""
    return task_object(task_id) + (f"-{part}" if part else "")


def claim(task_id: TaskId, attempt: int) -> str:
    """The name of the scratch volume's claim; attempts count from 1."""
    return task_object(task_id) + (f"-{attempt}" if attempt > 1 else "")


def pod(task_id: TaskId, role: str, attempt: int = 1, *, executor: int | None = None, start: int = 1) -> str:
    """The name of a pod that the taskmaster makes. `start` counts the pods made for the same step of an attempt."""
    words = [task_object(task_id)]
    if attempt > 1:
        words.append(str(attempt))
    words.append(role)
    if executor is not None:
        words.append(str(executor))
    if start > 1:
        words.append(f"again{start}")
    return "-".join(words)


def task_pod(task_id: TaskId, attempt: int = 1) -> str:
    """The name of the pod in which a whole attempt at the task runs; attempts count from 1."""
    return task_object(task_id) + (f"-{attempt}" if attempt > 1 else "")


def executor_container(number: int) -> str:
    """The name of an executor's container in the pod of its whole task. Its control folder is called so too."""
    return f"{EXECUTOR_CONTAINER}-{number}"


def attempt_of_task_pod(name: str) -> int:
    """The attempt that runs in a pod of this name (task_pod)."""
    number = name.rpartition("-")[2]
    return int(number) if name.count("-") > 1 and number.isdecimal() else 1


def number_of_executor(container: str) -> int | None:
    """Which executor runs in a container of this name (executor_container); None for no such name."""
    kind, _, number = container.rpartition("-")
    return int(number) if kind == EXECUTOR_CONTAINER and number.isdecimal() else None


def labels(instance: str, task_id: TaskId, role: str = "", executor: int | None = None) -> dict[str, str]:
    """The labels of an object of the task."""
    found = {MANAGED_BY: "tesk", INSTANCE: instance, TASK: task_id}
    if role:
        found[ROLE] = role
    if executor is not None:
        found[EXECUTOR] = str(executor)
    return found


def selector(instance: str, task_id: TaskId | None = None, role: str = "") -> str:
    """A label selector of all that this instance has made, or of what belongs to one task."""
    wanted = {MANAGED_BY: "tesk", INSTANCE: instance}
    if task_id:
        wanted[TASK] = task_id
    if role:
        wanted[ROLE] = role
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def is_ours(container: str) -> bool:
    """True for what tesk puts into pods. Whatever else is in one, a webhook has put there, such as a proxy."""
    return container in _CONTAINERS or bool(_NUMBERED.fullmatch(container))
