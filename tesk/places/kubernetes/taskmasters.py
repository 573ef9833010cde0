"""Tasks that have a taskmaster each: the server makes its Job, and everything else is the taskmaster's."""

import asyncio
import secrets
import time

import msgspec

from tesk.kubernetes import document, manifests, names, objects
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId
from tesk.places.kubernetes import live_output, removal
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.following import Following, Ground
from tesk.places.kubernetes.live_output import OutputLog
from tesk.places.kubernetes.observed import ObservedTask


class Taskmasters:
    """See following.Way."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def make(self, following: Following, task: ObservedTask, ground: Ground) -> None:
        """The Job comes first, so that it owns the Secrets."""
        client, chosen, job = self._client, ground.settings, following.job
        name = names.task_object(job.id)
        parts = await asyncio.to_thread(document.pack, job.task)
        following.parts = len(parts)
        manifest = manifests.taskmaster_job(job.id, chosen, len(parts), ground.account, following.mode_line)
        made = await client.create("jobs", manifest) or await client.get("jobs", name)
        if made is None:
            raise ApiError(0, "", f"Job {name} is just being deleted")
        owners = manifests.owned_by_job(job.id, msgspec.json.decode(made, type=objects.Job).metadata.uid)
        for secret in manifests.secrets(job.id, parts, chosen, owners, secrets.token_urlsafe(24)):
            await client.create("secrets", secret)
        following.made_at = time.monotonic()

    async def is_there(self, task_id: TaskId) -> bool:
        return await self._client.get("jobs", names.task_object(task_id)) is not None

    async def read_end(self, task_id: TaskId, task: ObservedTask) -> None:
        name = names.task_object(task_id)
        listing = await self._client.find("configmaps", fieldSelector=f"metadata.name={name}")
        items = msgspec.json.decode(listing, type=objects.ConfigMapList).items
        task.set_configmap(items[0] if items else None)

    async def prepare_end(self, task_id: TaskId, task: ObservedTask, parts: int) -> None:
        """All that there is of the task belongs to its Job, which stays until the end is on record."""

    async def stop(self, task_id: TaskId, task: ObservedTask, settings: TaskSettings, changed: asyncio.Event) -> None:
        """The record stays."""
        suspended = await self._client.patch("jobs", names.task_object(task_id), {"spec": {"suspend": True}})
        if suspended is not None or task.pods:
            await removal.stop(self._client, settings, task_id, task, changed)

    async def remove(
        self, task_id: TaskId, task: ObservedTask, parts: int, settings: TaskSettings, changed: asyncio.Event
    ) -> None:
        await removal.remove(self._client, settings, task_id, task, parts, changed)

    def output(self, task_id: TaskId, task: ObservedTask) -> OutputLog | None:
        return live_output.of_executor(task_id, task.record)
