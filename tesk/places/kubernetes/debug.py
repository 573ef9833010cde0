"""What the cluster has of one task now, and what is made of that: for somebody who looks into a wrong state.

The dump holds all that `assess` was given, so that a unit test can ask again.
"""

import asyncio
import os
from typing import Any

import msgspec

from tesk.kubernetes import names, objects
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId
from tesk.places.kubernetes import config, runner_log
from tesk.places.kubernetes.assess import assess
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.observed import Assessment, ObservedTask
from tesk.places.kubernetes.task_settings import task_settings
from tesk.settings import Settings


async def look(settings: Settings, task_id: TaskId) -> dict[str, Any]:
    """The dump as JSON has it, with the warnings about the task's Job and pods. Raises PlaceError."""
    access = await asyncio.to_thread(config.load, settings.kubeconfig, os.environ, settings.kube_context)
    chosen = task_settings(settings, settings.namespace or access.namespace)
    client = Client(access, chosen.namespace, settings.kubernetes_qps)
    await client.open()
    try:
        task = await observe(client, settings.instance, task_id)
        about = [names.task_object(task_id), *task.pods]
        warnings = [line for name in about for line in await _warnings(client, name)]
    finally:
        await client.close()
    return dump(task, chosen) | {"warnings": warnings}


async def observe(client: Client, instance: str, task_id: TaskId) -> ObservedTask:
    """The task as the watches would show it. Its trouble, if any, begins at 0."""
    selector = names.selector(instance, task_id)
    task = ObservedTask()
    jobs = msgspec.json.decode(await client.find("jobs", labelSelector=selector), type=objects.JobList)
    configmaps = msgspec.json.decode(
        await client.find("configmaps", labelSelector=selector), type=objects.ConfigMapList
    )
    pods = msgspec.json.decode(await client.find("pods", labelSelector=selector), type=objects.PodList)
    for job in jobs.items:
        task.set_job(job)
    for configmap in configmaps.items:
        task.set_configmap(configmap)
    for pod in pods.items:
        task.set_pod(pod.metadata.name, pod, 0.0)
    if task.leading_pod is not None and task.mode == "pod":
        await _read_log(client, task, task.leading_pod)
    return task


async def _read_log(client: Client, task: ObservedTask, pod: objects.Pod) -> None:
    """What the server knows by reports stands in the log of the pod too."""
    try:
        if found := await runner_log.last_record(client, pod):
            task.set_record(found)
    except (ApiError, ValueError) as error:
        task.unreadable = f"the log of pod {pod.metadata.name}: {error}"


def dump(task: ObservedTask, settings: TaskSettings) -> dict[str, Any]:
    found = {"observed": task, "settings": settings, "assessment": assess(task, settings)}
    return dict(msgspec.to_builtins(found))


def replay(dumped: dict[str, Any]) -> Assessment:
    """What is made today of a task that was dumped."""
    return assess(msgspec.convert(dumped["observed"], ObservedTask), msgspec.convert(dumped["settings"], TaskSettings))


async def _warnings(client: Client, name: str) -> list[str]:
    listing = await client.find("events", fieldSelector=f"type=Warning,involvedObject.name={name}")
    events = msgspec.json.decode(listing, type=objects.EventList).items
    return [f"{name}: {event.reason}: {event.message}" for event in events]
