"""Tasks on a Kubernetes cluster: the server's side of them.

The server makes a Job for each task and watches; everything else is the taskmaster's (tesk/taskmaster). What exists
is known by three watches, one for each kind, whatever the number of tasks; a task's status is computed from that
(assess.py) whenever something of it changes.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec

from tesk import parameters
from tesk.kubernetes import document, manifests, names, objects
from tesk.kubernetes.account import Account
from tesk.kubernetes.bounds import Bounds, Range, limited
from tesk.kubernetes.errors import ApiError, advice
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId, TaskStatus
from tesk.places.base import ALL_ACTIVE, Demand, Denial, Job, Load, PlaceError, Report
from tesk.places.kubernetes import config, live_output, removal
from tesk.places.kubernetes.assess import Assessment, ObservedTask, assess, cancelled, running
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.missing_taskmasters import MissingTaskmasters
from tesk.places.kubernetes.rights import Rights
from tesk.places.kubernetes.start_limit import StartLimit
from tesk.places.kubernetes.task_settings import task_settings
from tesk.places.kubernetes.waiting_limit import WaitingLimit
from tesk.places.kubernetes.watch import Cache
from tesk.retry import pauses
from tesk.settings import Settings
from tesk.tes import TaskLog

log = logging.getLogger(__name__)

SYNC_S: Final = 30.0
ASK_S: Final = 3.0
PAUSES_S: Final = (0.2, 5.0)
QUOTA_PAUSES_S: Final = (1.0, 5.0)
OPTIONAL_PAUSES_S: Final = (0.05, 60.0)
"""Between tries to see what we may have no right to see, and do without."""
MOST_SUBMITTING: Final = 16
MOST_ACTIVE: Final = 1000
STARTING: Final = Denial("as many tasks are being started or cleaned up as the cluster takes at a time")


class Following(msgspec.Struct, eq=False):
    """A task that was submitted."""

    job: Job
    parts: int = 0
    """Secrets with its document; 0 when others made them."""
    made_at: float | None = None
    """When its objects had been made."""
    reported: TaskStatus | None = None
    """The last report."""
    work: asyncio.Task[None] | None = None
    """What makes its objects."""
    making: asyncio.Task[None] | None = None
    """The try that is under way."""


class KubernetesPlace:
    """See base.Place."""

    name = "kubernetes"

    def __init__(self, settings: Settings) -> None:
        self.backend_parameters = parameters.ALWAYS.union(settings.allowed_backend_parameters)
        self._settings = settings
        self._client: Client | None = None
        self._task_settings: TaskSettings | None = None
        self._account: Account | None = None
        self._rights: Rights | None = None
        self._outputs: live_output.Outputs | None = None
        self._caches: list[Cache[Any]] = []
        self._ranges: dict[str, Range] = {}
        self._limited: dict[str, set[str]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._report: Report | None = None
        self._observed: dict[TaskId, ObservedTask] = {}
        self._assessed: dict[TaskId, Assessment] = {}
        self._following: dict[TaskId, Following] = {}
        self._ending: dict[TaskId, asyncio.Event] = {}
        self._waiting_limit = WaitingLimit(settings.max_waiting_tasks)
        self._start_limit = StartLimit()
        self._gate = asyncio.Semaphore(MOST_SUBMITTING)
        self._rereading: set[TaskId] = set()

    async def open(self, report: Report) -> None:
        self._report = report
        settings = self._settings
        access = await asyncio.to_thread(config.load, settings.kubeconfig, os.environ, settings.kube_context)
        namespace = settings.namespace or access.namespace
        self._task_settings = task_settings(settings, namespace)
        self._account = access.account if namespace == access.namespace else None
        client = self._client = Client(access, namespace, settings.kubernetes_qps)
        await client.open()
        self._outputs = live_output.Outputs(client, self._task_settings.log_tail_bytes)
        selector = names.selector(settings.instance)
        kinds: list[tuple[str, Any, Any]] = [
            ("jobs", objects.Job, self._job_changed),
            ("configmaps", objects.ConfigMap, self._configmap_changed),
            ("pods", objects.Pod, self._pod_changed),
        ]
        for kind, struct, changed in kinds:
            cache = Cache(client, kind, msgspec.json.Decoder(struct).decode, selector, changed)
            self._caches.append(cache)
            self._spawn(cache.follow(), f"watch {kind}")
        bounding = self._watch_bounds(client)
        try:
            async with asyncio.timeout(SYNC_S):
                for cache in (*self._caches, *bounding):
                    await cache.tried.wait()
            if not all(cache.synced.is_set() for cache in self._caches):
                raise TimeoutError
        except BaseException as error:
            trouble = self._trouble() or "no answer"
            await self.close()
            if isinstance(error, TimeoutError):
                raise PlaceError(f"the cluster cannot be looked at: {trouble}") from None
            raise
        self._rights = Rights(client)
        self._spawn(self._rights.check(), "ask for rights")
        missing = MissingTaskmasters(
            client, self._observed, self._assessed, self._evaluate, self._make_again, self._advice
        )
        self._spawn(missing.watch_over(self._unheard), "look after waiting tasks")

    def _watch_bounds(self, client: Client) -> list[Cache[Any]]:
        """Follows what bounds pods in the namespace; without a right to that, nothing is known of it."""
        kinds: list[tuple[str, Any, Any]] = [
            ("limitranges", objects.LimitRange, self._range_changed),
            ("resourcequotas", objects.ResourceQuota, self._quota_changed),
        ]
        caches = []
        for kind, struct, changed in kinds:
            decode = msgspec.json.Decoder(struct).decode
            caches.append(Cache(client, kind, decode, "", changed, pauses_s=OPTIONAL_PAUSES_S))
            self._spawn(caches[-1].follow(), f"watch {kind}")
        return caches

    def _range_changed(self, name: str, found: objects.LimitRange | None) -> None:
        self._ranges.pop(name, None)
        if found is not None:
            self._ranges[name] = Range(name, found.spec.limits)
        self._bound()

    def _quota_changed(self, name: str, found: objects.ResourceQuota | None) -> None:
        self._limited.pop(name, None)
        if found is not None:
            selector = (each.scope_name for each in found.spec.scope_selector.match_expressions)
            self._limited[name] = limited(found.spec.hard, {*found.spec.scopes, *selector})
        self._bound()

    def _bound(self) -> None:
        """What is made from now on fits into the namespace as it is now."""
        assert self._task_settings is not None
        resources = sorted(set().union(*self._limited.values()))
        bounds = Bounds(tuple(self._ranges.values()), tuple(resources))
        self._task_settings = msgspec.structs.replace(self._task_settings, bounds=bounds)

    def _advice(self, words: str) -> str:
        return advice(words, self._opened()[1].bounds)

    async def close(self) -> None:
        works = [work for each in self._following.values() for work in (each.work, each.making) if work is not None]
        tasks = [*self._chores, *works]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._chores.clear()
        self._caches.clear()
        self._observed.clear()
        self._assessed.clear()
        self._following.clear()
        self._waiting_limit.clear()
        if self._outputs is not None:
            await self._outputs.close()
        if self._client is not None:
            await self._client.close()
            self._client = None

    def admission(self, demand: Demand, load: Load) -> Denial | None:
        if reason := self._waiting_limit.reached(demand):
            return Denial(reason, "its like")
        if load.tasks >= (self._settings.max_active_tasks or MOST_ACTIVE):
            return ALL_ACTIVE
        return None if self._start_limit.room(time.monotonic()) else STARTING

    async def submit(self, job: Job) -> None:
        if job.id in self._following:
            return
        task = self._observed.setdefault(job.id, ObservedTask())
        following = self._following[job.id] = Following(job)
        if task.record is not None or job.begun:
            task.had_job = True
        else:
            self._start_limit.starts(job.id, time.monotonic())
            following.work = asyncio.create_task(self._submit(following, task), name=f"submit {job.id}")
        self._evaluate(job.id)

    async def cancel(self, task_id: TaskId) -> None:
        with self._end(task_id) as (task, changed):
            following = self._unfollow(task_id)
            await self._stop_submitting(following)
            client, chosen = self._opened()
            pod = live_output.pod(task_id, task.record)
            async with live_output.last_words(client, pod, chosen.log_tail_bytes) as words:
                await self._patiently(
                    f"task {task_id}: cancelling", lambda: removal.stop(client, chosen, task_id, task, changed)
                )
            output = words.output if pod == live_output.pod(task_id, task.record) else ("", "")
        assert self._report is not None
        self._report(task_id, cancelled(task.record, output))

    async def forget(self, task_id: TaskId) -> None:
        with self._end(task_id) as (task, changed):
            following = self._unfollow(task_id)
            await self._stop_submitting(following)
            client, chosen = self._opened()
            parts = following.parts if following else 0
            await self._patiently(
                f"task {task_id}: cleaning up",
                lambda: removal.remove(client, chosen, task_id, task, parts, changed),
            )
        self._observed.pop(task_id, None)

    async def known(self) -> set[TaskId]:
        return {task_id for task_id, task in self._observed.items() if not task.is_gone}

    async def live_log(self, task_id: TaskId) -> TaskLog | None:
        task = self._observed.get(task_id)
        if task is None or task.record is None or task_id not in self._following:
            return None
        self._opened()
        assert self._outputs is not None
        output = await self._outputs.of(live_output.pod(task_id, task.record))
        return running(task.record, output).log

    async def ready(self) -> str | None:
        if self._client is None or self._rights is None:
            return "the cluster has not been reached yet"
        asking = self._spawn(self._rights.check(), "ask for rights")
        if not self._client.is_away:
            await asyncio.wait({asking}, timeout=ASK_S)
        return self._trouble()

    def _trouble(self) -> str | None:
        if self._client is not None and (words := self._client.trouble()):
            return words
        return "; ".join(cache.trouble for cache in self._caches if cache.trouble) or None

    async def _submit(self, following: Following, task: ObservedTask) -> None:
        """Makes the task's Job and Secrets, however long that takes. Idempotent."""
        task_id = following.job.id
        waits = {is_quota: pauses(*(QUOTA_PAUSES_S if is_quota else PAUSES_S)) for is_quota in (False, True)}
        while True:
            try:
                async with self._gate:
                    following.making = asyncio.create_task(self._make(following), name=f"make {task_id}")
                    await asyncio.shield(following.making)
            except ApiError as error:
                if not error.is_passing:
                    task.refused = f"the cluster refused it: {error}{self._advice(str(error))}"
                    break
                if str(error) != task.delay and not (error.is_logged or error.is_quota):
                    log.error("task %s: %s; trying again", task_id, error)
                task.delay = str(error)
                self._evaluate(task_id)
                await asyncio.sleep(next(waits[error.is_quota]))
            else:
                task.delay = ""
                break
        self._evaluate(task_id)

    async def _make(self, following: Following) -> None:
        """One try. The Job comes first, so that it owns the Secrets; what exists already is as good as made."""
        client, chosen = self._opened()
        job = following.job
        name = names.task_object(job.id)
        parts = await asyncio.to_thread(document.pack, job.task)
        following.parts = len(parts)
        made = await client.create("jobs", manifests.taskmaster_job(job.id, chosen, len(parts), self._account))
        made = made or await client.get("jobs", name)
        if made is None:
            raise ApiError(0, "", f"Job {name} is just being deleted")
        uid = msgspec.json.decode(made, type=objects.Job).metadata.uid
        for secret in manifests.secrets(job.id, parts, chosen, uid, secrets.token_urlsafe(24)):
            await client.create("secrets", secret)
        following.made_at = time.monotonic()

    async def _make_again(self, task_id: TaskId) -> None:
        """Makes what may be missing of a task whose Job there is."""
        following = self._following.get(task_id)
        if following is not None and following.made_at is not None:
            await self._make(following)

    def _unfollow(self, task_id: TaskId) -> Following | None:
        self._waiting_limit.leaves(task_id)
        self._assessed.pop(task_id, None)
        return self._following.pop(task_id, None)

    async def _stop_submitting(self, following: Following | None) -> None:
        """Nothing of the task is made any more. A request that is under way comes to its end: it may be carried out."""
        if following is None or following.work is None:
            return
        following.work.cancel()
        await asyncio.gather(following.work, return_exceptions=True)
        if following.making is not None:
            await asyncio.gather(following.making, return_exceptions=True)

    def _unheard(self, late_s: float) -> list[TaskId]:
        """Tasks whose Job was made so long ago, and has not been seen."""
        before = time.monotonic() - late_s
        return [
            task_id
            for task_id, each in self._following.items()
            if each.made_at is not None and each.made_at < before and not self._observed[task_id].had_job
        ]

    async def _patiently(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Repeats a step for as long as the cluster is what keeps it from going well."""
        for failures, pause_s in enumerate(pauses(*PAUSES_S)):
            try:
                return await step()
            except ApiError as error:
                if not error.is_passing:
                    raise
                if failures in (0, 10, 100):
                    log.error("%s: %s; trying again", what, error)
                await asyncio.sleep(pause_s)
        raise AssertionError

    @contextlib.contextmanager
    def _end(self, task_id: TaskId) -> Any:
        """(what is seen of the task, an event set at each change): kept while the task's objects are taken away."""
        task = self._observed.setdefault(task_id, ObservedTask())
        changed = self._ending[task_id] = asyncio.Event()
        self._start_limit.ends(task_id, time.monotonic())
        try:
            yield task, changed
        finally:
            if self._ending.get(task_id) is changed:
                del self._ending[task_id]
                self._start_limit.leaves(task_id)

    def _job_changed(self, name: str, job: objects.Job | None) -> None:
        self._task_changed(name, lambda task: task.set_job(job))

    def _configmap_changed(self, name: str, found: objects.ConfigMap | None) -> None:
        self._task_changed(name, lambda task: task.set_configmap(found))

    def _pod_changed(self, name: str, pod: objects.Pod | None) -> None:
        self._task_changed(name, lambda task: task.set_pod(name, pod, time.monotonic()))

    def _task_changed(self, name: str, change: Callable[[ObservedTask], None]) -> None:
        """`name`: of an object of the task."""
        task_id = _task_of(name)
        task = self._observed.setdefault(task_id, ObservedTask())
        was_unreadable = task.unreadable
        change(task)
        if task.unreadable != was_unreadable and task.unreadable:
            log.error("%s", task.unreadable)
        self._evaluate(task_id)

    async def _read_again(self, task_id: TaskId) -> None:
        """Reads the record of a task whose Job is over, and ends the task where that does not say how it ended."""
        client, _ = self._opened()
        name = names.task_object(task_id)

        async def read() -> None:
            listing = await client.find("configmaps", fieldSelector=f"metadata.name={name}")
            items = msgspec.json.decode(listing, type=objects.ConfigMapList).items
            self._configmap_changed(name, items[0] if items else None)

        unreadable = ""
        try:
            await self._patiently(f"task {task_id}: reading its record", read)
        except ApiError as error:
            unreadable = f"ConfigMap {name}: {error}"
        finally:
            self._rereading.discard(task_id)
        if (task := self._observed.get(task_id)) is not None:
            task.is_record_final, task.unreadable = True, unreadable or task.unreadable
            self._evaluate(task_id)

    def _evaluate(self, task_id: TaskId) -> None:
        """Assesses a task and acts on that: the limits are told, its record is read again, news is reported."""
        task = self._observed.get(task_id)
        if task is None:
            return
        if changed := self._ending.get(task_id):
            changed.set()
            return
        following = self._following.get(task_id)
        if following is None:
            if task.is_gone:
                del self._observed[task_id]
            return
        assert self._task_settings is not None
        assert self._report is not None
        found = self._assessed[task_id] = assess(task, self._task_settings)
        self._tell_limits(task_id, following.job.demand, found)
        if found.needs_record_read and task_id not in self._rereading:
            self._rereading.add(task_id)
            self._spawn(self._read_again(task_id), f"read the record of {task_id}")
        if found.status is not None and found.status != following.reported:
            following.reported = found.status
            self._report(task_id, found.status)

    def _tell_limits(self, task_id: TaskId, demand: Demand, found: Assessment) -> None:
        if found.has_room:
            self._waiting_limit.leaves(task_id)
        else:
            self._waiting_limit.waits(task_id, demand, is_told=bool(found.waits_for))
        if found.taskmaster_node is not None:
            self._start_limit.has_taskmaster(task_id, found.taskmaster_node, time.monotonic())
        if found.has_begun:
            self._start_limit.begins(task_id)
        elif found.waits_for:
            self._start_limit.leaves(task_id)

    def _opened(self) -> tuple[Client, TaskSettings]:
        if self._client is None or self._task_settings is None:
            raise PlaceError("the cluster has not been reached yet")
        return self._client, self._task_settings

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._chores.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s failed", task.get_name(), exc_info=error)


def _task_of(name: str) -> TaskId:
    """The task that an object belongs to, by its name (names.py)."""
    return name.removeprefix(names.task_object("")).partition("-")[0]
