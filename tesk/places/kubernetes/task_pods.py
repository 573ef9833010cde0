"""Tasks that run in one pod each: the server makes the pod and its Secrets, and another one where a pod is lost."""

import asyncio
import hashlib
import secrets
import time

import msgspec

from tesk.kubernetes import document, manifests, names, objects, pod_status
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.pod_layout import pod_layout
from tesk.kubernetes.task_pod import PodAttempt, task_pod
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId
from tesk.places.kubernetes import live_output, removal, runner_log
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.following import Following, Ground
from tesk.places.kubernetes.live_output import OutputLog
from tesk.places.kubernetes.observed import ObservedTask, attempt_log

_pods = msgspec.json.Decoder(objects.PodList).decode


class TaskPods:
    """See following.Way."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def make(self, following: Following, task: ObservedTask, ground: Ground) -> None:
        """The Secrets come first: a pod whose Secrets are missing waits long for them. The account that the server runs
        as owns all, since there is nothing else that is there from the first to the last."""
        job = following.job
        parts = await asyncio.to_thread(document.pack, job.task)
        following.parts = len(parts)
        if not following.word and not await self._make_secrets(following, parts, ground):
            following.made_at = time.monotonic()
            return
        digest = hashlib.sha256(following.word.encode()).hexdigest()
        attempt = self._attempt(ground, 1, len(parts), digest, following.mode_line)
        await self._make_pod(following, attempt, ground)
        following.made_at = time.monotonic()

    async def begin_again(
        self, following: Following, task: ObservedTask, why: str, ground: Ground, changed: asyncio.Event
    ) -> None:
        """Makes the pod of the next attempt once the lost one has ended for good; that goes only then, so that there is
        always one by which the next server knows of the task."""
        task_id, lost = following.job.id, task.leading_pod
        if lost is not None and not pod_status.is_over(lost):
            await removal.stop(self._client, ground.settings, task_id, task, changed)
        making = self._make_next(following, task, why, ground)
        following.making = asyncio.create_task(making, name=f"make {task_id} again")
        await asyncio.shield(following.making)
        if lost is not None:
            await self._client.delete("pods", lost.metadata.name, grace_s=0)

    async def _make_next(self, following: Following, task: ObservedTask, why: str, ground: Ground) -> None:
        """Makes the pod of the next attempt. It has the Secrets of the one that was lost, unless that was gone before
        this server began: nobody knows their word then."""
        parts = await asyncio.to_thread(document.pack, following.job.task)
        following.parts = len(parts)
        if task.last_pod is not None:
            digest = task.last_pod.metadata.annotations.get(names.WORD_SHA256, "")
        else:
            if not following.word:
                await self._make_secrets(following, parts, ground)
            digest = hashlib.sha256(following.word.encode()).hexdigest()
        attempt = self._attempt(ground, task.attempt + 1, following.parts, digest, task.mode_line)
        earlier = (*task.earlier, attempt_log(task, why))
        await self._make_pod(following, msgspec.structs.replace(attempt, earlier=earlier), ground)

    async def _make_secrets(self, following: Following, parts: list[bytes], ground: Ground) -> bool:
        """False where the pod exists already, whose word is in its Secrets. Where only Secrets do, a server has crashed
        between them and the pod, and nobody knows their word any more."""
        task_id, word = following.job.id, secrets.token_urlsafe(24)
        owners = manifests.owned_by_account(ground.account)
        for secret in manifests.secrets(task_id, parts, ground.settings, owners, word):
            if await self._client.create("secrets", secret) is None:
                if await self.is_there(task_id):
                    return False
                await self._client.delete("secrets", secret["metadata"]["name"])
                if await self._client.create("secrets", secret) is None:
                    raise ApiError(0, "", f"Secret {secret['metadata']['name']} is just being deleted")
        following.word = word
        return True

    def _attempt(self, ground: Ground, number: int, parts: int, word_sha256: str, mode_line: str) -> PodAttempt:
        return PodAttempt(
            number, parts, ground.report, word_sha256, mode_line, (), ground.account, ground.has_pod_resources
        )

    async def _make_pod(self, following: Following, attempt: PodAttempt, ground: Ground) -> None:
        job = following.job
        plan = await asyncio.to_thread(pod_layout, job.task)
        name = names.task_pod(job.id, attempt.number)
        made = await self._client.create("pods", task_pod(job.id, job.task, ground.settings, plan, attempt))
        if made is None and not await self._has_pod(job.id, name):
            raise ApiError(409, "", f"pod {name} is there already and is not this task's; delete it")

    async def is_there(self, task_id: TaskId) -> bool:
        return await self._has_pod(task_id, names.task_pod(task_id))

    async def _has_pod(self, task_id: TaskId, name: str) -> bool:
        selector = f"{names.TASK}={task_id},{names.ROLE}={names.TASK_POD}"
        found = await self._client.find("pods", fieldSelector=f"metadata.name={name}", labelSelector=selector)
        return bool(_pods(found).items)

    async def read_end(self, task_id: TaskId, task: ObservedTask) -> None:
        await runner_log.read_end(self._client, task)

    async def prepare_end(self, task_id: TaskId, task: ObservedTask, parts: int) -> None:
        """The Secrets go before the end is on record. The pod may be gone by then, or go while no server runs, and
        without it nothing tells the next server of them."""
        if task.may_have_secrets:
            await removal.delete_secrets(self._client, task_id, parts)
            task.may_have_secrets = False

    async def stop(self, task_id: TaskId, task: ObservedTask, settings: TaskSettings, changed: asyncio.Event) -> None:
        await removal.stop(self._client, settings, task_id, task, changed)
        await self.prepare_end(task_id, task, 0)

    async def remove(
        self, task_id: TaskId, task: ObservedTask, parts: int, settings: TaskSettings, changed: asyncio.Event
    ) -> None:
        await self.prepare_end(task_id, task, parts)
        await removal.remove_pods(self._client, settings, task_id, task, changed)

    def output(self, task_id: TaskId, task: ObservedTask) -> OutputLog | None:
        pod, n = task.leading_pod, live_output.executor_at_work(task.record)
        return None if pod is None or n is None else OutputLog(pod.metadata.name, names.RUNNER_CONTAINER, n)
