"""The end of a task's objects: its pods at once when it is cancelled, everything when its end is on record.

Everything is owned by the task's Job, so the cluster's garbage collector would remove it all by itself; but that may
take minutes when a thousand tasks end together, since it is held to some twenty requests a second. So what is known
by name is deleted here, and the collector is left with what we could not know. What the Job owns goes before it,
since what the collector finds to be owned by nobody it asks for and deletes once more.
"""

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import Iterator
from typing import Final

import msgspec

from tesk.kubernetes import names, pod_status
from tesk.kubernetes.manifests import OWN_GRACE_S
from tesk.kubernetes.objects import Pod, PodList
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId
from tesk.places.base import PlaceError
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.observed import ObservedTask

log = logging.getLogger(__name__)

LATE_S: Final = 3.0
"""A pod that is there so long after its grace period is removed by force: its node is lost, or its kubelet."""
IDLE_S: Final = 10.0
"""The same for pods whose task is over: they have no more to do, and a busy node may be slow to say that they ended."""
FORCED_S: Final = 20.0

_pods = msgspec.json.Decoder(PodList).decode


async def stop(
    client: Client, settings: TaskSettings, task_id: TaskId, task: ObservedTask, changed: asyncio.Event
) -> None:
    """Ends all pods of the task, of which no more are made from now on. Raises ApiError, PlaceError."""
    await _end_pods(client, settings, task_id, task, changed, LATE_S, set())
    while found := await _listed(client, settings, task_id):
        task.pods.update({pod.metadata.name: pod for pod in found})
        await _end_pods(client, settings, task_id, task, changed, LATE_S, set())


async def remove(
    client: Client, settings: TaskSettings, task_id: TaskId, task: ObservedTask, parts: int, changed: asyncio.Event
) -> None:
    """Deletes all of the task, and waits until its pods are gone. Raises ApiError, PlaceError.

    `parts`: Secrets with its document; 0: nobody knows.
    """
    asked: set[str] = set()
    makes_no_more = task.record is not None and task.record.state.is_terminal
    first = [pod for pod in task.pods.values() if makes_no_more and _is_not_taskmaster(pod)]
    await asyncio.gather(
        *(client.delete(kind, name) for kind, name in _owned(task_id, task, parts)),
        *(_end_pod(client, settings, pod, task, asked) for pod in first),
    )
    if not parts:
        await delete_secrets(client, task_id)
    await client.delete("jobs", names.task_object(task_id))
    await _end_pods(client, settings, task_id, task, changed, IDLE_S, asked)


async def remove_pods(
    client: Client, settings: TaskSettings, task_id: TaskId, task: ObservedTask, changed: asyncio.Event
) -> None:
    """The same of a task that runs in one pod, and has no Secrets any more."""
    await _end_pods(client, settings, task_id, task, changed, IDLE_S, set())


def _owned(task_id: TaskId, task: ObservedTask, parts: int) -> Iterator[tuple[str, str]]:
    yield "configmaps", names.task_object(task_id)
    for part in range(parts):
        yield "secrets", names.secret(task_id, part)
    attempts = task.record.attempts if task.record else []
    for number, attempt in enumerate(attempts, 1):
        if names.pod(task_id, names.INPUTS, number) in attempt.pods:
            yield "persistentvolumeclaims", names.claim(task_id, number)


async def delete_secrets(client: Client, task_id: TaskId, parts: int = 0) -> None:
    """Deletes so many parts of the document; of an unknown number one after the other, up to the first that is not
    there."""
    await asyncio.gather(*(client.delete("secrets", names.secret(task_id, part)) for part in range(parts)))
    for part in itertools.count() if not parts else ():
        if not await client.delete("secrets", names.secret(task_id, part)):
            return


async def _end_pods(
    client: Client, settings: TaskSettings, task_id: TaskId, task: ObservedTask, changed: asyncio.Event, late_s: float,
    asked: set[str],
) -> None:  # fmt: skip
    """Deletes the task's pods, those that are still being made too, and waits until there are none.

    `asked`: the uids of those that have been asked to end.
    """
    for limit_s, forced in ((_grace_s(settings) + late_s, False), (FORCED_S, True)):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while task.pods:
                    changed.clear()
                    for pod in sorted(task.pods.values(), key=_is_not_taskmaster):
                        await _end_pod(client, settings, pod, task, asked, forced=forced)
                    if task.pods:
                        await changed.wait()
                return
        if not task.pods:
            return
        asked.clear()
        log.warning("task %s: these pods take too long to end: %s", task_id, ", ".join(task.pods))
    raise PlaceError(f"task {task_id}: pods {', '.join(task.pods)} do not go away; see their finalizers")


async def _end_pod(
    client: Client, settings: TaskSettings, pod: Pod, task: ObservedTask, asked: set[str], *, forced: bool = False
) -> None:
    """Once each. One whose containers have ended needs nobody's consent to go."""
    if pod.metadata.uid in asked:
        return
    asked.add(pod.metadata.uid)
    if pod.metadata.deletion_timestamp and not forced:
        return
    grace_s = _grace_s(settings)
    if pod.metadata.labels.get(names.ROLE) not in (names.EXECUTOR_ROLE, names.TASK_POD):
        grace_s = min(grace_s, OWN_GRACE_S)
    if forced or pod_status.is_over(pod):
        grace_s = 0
    if not await client.delete("pods", pod.metadata.name, grace_s=grace_s):
        task.pods.pop(pod.metadata.name, None)


def _grace_s(settings: TaskSettings) -> int:
    return max(1, math.ceil(settings.grace_s))


def _is_not_taskmaster(pod: Pod) -> bool:
    """The taskmaster ends first: it makes pods."""
    return pod.metadata.labels.get(names.ROLE) != names.TASKMASTER


async def _listed(client: Client, settings: TaskSettings, task_id: TaskId) -> list[Pod]:
    """The task's pods as the API has them now: the watch may be a little late."""
    selector = names.selector(settings.instance, task_id)
    return _pods(await client.find("pods", labelSelector=selector)).items
