"""Tasks on a Kubernetes cluster: the server's side of them.

The server makes what runs each task, in one of two ways, and watches: a Job, whose taskmaster makes all else
(taskmasters.py), or one pod (task_pods.py). What exists is known by three watches, one for each kind, whatever the
number of tasks, and by the reports of pods; a task's status is computed from that (assess.py) whenever something of it
changes.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

import msgspec

from tesk import parameters
from tesk.kubernetes import names, objects
from tesk.kubernetes.account import Account
from tesk.kubernetes.bounds import Bounds, Range, limited
from tesk.kubernetes.errors import ApiError, advice
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId
from tesk.places.base import ALL_ACTIVE, Demand, Denial, Job, Load, PlaceError, Report
from tesk.places.kubernetes import config, live_output, mode
from tesk.places.kubernetes.assess import assess
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.following import Following, Ground, Way
from tesk.places.kubernetes.observed import Assessment, ObservedTask, cancelled, recall, running, shown
from tesk.places.kubernetes.report_listener import ReportListener
from tesk.places.kubernetes.rights import Rights
from tesk.places.kubernetes.runner_log import SilentPods
from tesk.places.kubernetes.start_limit import StartLimit
from tesk.places.kubernetes.task_pods import TaskPods
from tesk.places.kubernetes.task_settings import task_settings, with_granted
from tesk.places.kubernetes.taskmasters import Taskmasters
from tesk.places.kubernetes.waiting_limit import WaitingLimit
from tesk.places.kubernetes.waiting_tasks import WaitingTasks
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
POD_RESOURCES: Final = (1, 34)
"""From this version on Kubernetes takes requests of a pod as a whole."""
MOST_ACTIVE: Final = 1000
_events: Final = msgspec.json.Decoder(objects.EventList).decode
STARTING: Final = Denial("as many tasks are being started or cleaned up as the cluster takes at a time")


class KubernetesPlace:
    """See base.Place."""

    name = "kubernetes"

    def __init__(self, settings: Settings) -> None:
        self.backend_parameters = parameters.ALWAYS.union(settings.allowed_backend_parameters)
        self._settings = settings
        self._client: Client | None = None
        self._observed: dict[TaskId, ObservedTask] = {}
        self._task_settings: TaskSettings | None = None
        self._account: Account | None = None
        self._rights: Rights | None = None
        self._outputs: live_output.Outputs | None = None
        self._reports = ReportListener(self._observed, self._evaluate)
        self._has_pod_resources = False
        self._caches: list[Cache[Any]] = []
        self._ranges: dict[str, Range] = {}
        self._limited: dict[str, set[str]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._report: Report | None = None
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
        makes_pods = settings.mode != "taskmaster"
        if makes_pods:
            await self._reports.open(settings.report_port)
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
            if makes_pods:
                self._has_pod_resources = await client.version() >= POD_RESOURCES
        except BaseException as error:
            trouble = self._trouble() or "no answer"
            await self.close()
            if isinstance(error, TimeoutError):
                raise PlaceError(f"the cluster cannot be looked at: {trouble}") from None
            raise
        self._rights = Rights(client, makes_pods=makes_pods)
        self._spawn(self._rights.check(), "ask for rights")
        waiting = WaitingTasks(
            client, self._observed, self._assessed, self._evaluate, self._make_again, self._is_there, self._advice
        )
        self._spawn(waiting.watch_over(self._unheard), "look after waiting tasks")
        silent = SilentPods(client, self._observed, self._assessed, self._evaluate)
        self._spawn(silent.watch_over(), "read the logs of silent pods")

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
        await self._reports.close()
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
        following = self._following[job.id] = Following(job, may_have_run=job.submitted, state=job.state)
        if task.mode is None and job.logs:
            recall(task, job.logs)
        if task.mode is None:
            task.mode, task.mode_line = mode.choose(job.task, self._opened()[1])
        following.mode_line = task.mode_line
        if task.record is not None or task.last_pod is not None or job.begun:
            task.was_made = True
        else:
            self._start_limit.starts(job.id, time.monotonic())
            following.work = asyncio.create_task(self._submit(following, task), name=f"submit {job.id}")
        self._evaluate(job.id)

    async def cancel(self, task_id: TaskId) -> None:
        with self._end(task_id) as (task, changed):
            following = self._unfollow(task_id)
            await self._stop_submitting(following)
            client, chosen = self._opened()
            way = self._way(task)
            source = way.output(task_id, task)
            async with live_output.last_words(client, source, chosen.log_tail_bytes) as words:
                await self._patiently(f"task {task_id}: cancelling", lambda: way.stop(task_id, task, chosen, changed))
            runs_on = source is not None and source.executor == live_output.executor_at_work(task.record)
            output = words.output if runs_on else ("", "")
        assert self._report is not None
        self._report(task_id, shown(task, cancelled(task.record, output)))

    async def forget(self, task_id: TaskId) -> None:
        with self._end(task_id) as (task, changed):
            following = self._unfollow(task_id)
            await self._stop_submitting(following)
            way, chosen = self._way(task), self._opened()[1]
            parts = following.parts if following else 0
            await self._patiently(
                f"task {task_id}: cleaning up", lambda: way.remove(task_id, task, parts, chosen, changed)
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
        output = await self._outputs.of(self._way(task).output(task_id, task))
        return shown(task, running(task.record, output)).log

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
        """Makes what runs the task, however long that takes. Idempotent."""
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
        """One try. A Job or pod that may have run and is gone is not made again: its events tell that it was there."""
        task_id = following.job.id
        task = self._observed[task_id]
        way = self._way(task)
        if following.may_have_run and not await way.is_there(task_id) and await self._has_events(task_id):
            task.was_made = True
            return
        try:
            await way.make(following, task, self._ground(following.job))
        except ApiError as error:
            following.may_have_run = following.may_have_run or error.is_away
            raise

    async def _has_events(self, task_id: TaskId) -> bool:
        """Whether anything happened to the task's Job or pod, as the cluster remembers for an hour."""
        selector = f"involvedObject.name={names.task_object(task_id)}"
        return bool(_events(await self._opened()[0].find("events", fieldSelector=selector)).items)

    def _way(self, task: ObservedTask) -> Way:
        """Of a task of which nobody knows how it was run, the taskmaster's way leaves nothing behind either."""
        client = self._opened()[0]
        return TaskPods(client) if task.mode == "pod" else Taskmasters(client)

    def _ground(self, job: Job) -> Ground:
        settings = with_granted(self._opened()[1], job.granted)
        return Ground(settings, self._account, self._report_address, self._has_pod_resources)

    async def _is_there(self, task_id: TaskId) -> bool:
        task = self._observed.get(task_id)
        return task is None or await self._way(task).is_there(task_id)

    async def _make_again(self, task_id: TaskId) -> None:
        """Makes what may be missing of a task whose Job or pod there is."""
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
        """Tasks whose Job or pod was made so long ago, and has not been seen."""
        before = time.monotonic() - late_s
        return [
            task_id
            for task_id, each in self._following.items()
            if each.made_at is not None and each.made_at < before and not self._observed[task_id].was_made
        ]

    async def _patiently(
        self, what: str, step: Callable[[], Awaitable[None]], tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """Repeats a step for as long as the cluster is what keeps it from going well; `tell` hears what does."""
        for failures, pause_s in enumerate(pauses(*PAUSES_S)):
            try:
                return await step()
            except ApiError as error:
                if not error.is_passing:
                    raise
                if failures in (0, 10, 100):
                    log.error("%s: %s; trying again", what, error)
                tell(str(error))
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
        task_id = names.task_of(name)
        task = self._observed.setdefault(task_id, ObservedTask())
        was_unreadable = task.unreadable
        change(task)
        if task.unreadable != was_unreadable and task.unreadable:
            log.error("%s", task.unreadable)
        self._evaluate(task_id)

    async def _read_again(self, task_id: TaskId) -> None:
        """Reads the record of a task once more whose Job or pod is over, and ends the task where that does not say how
        it ended."""
        unreadable = ""
        try:
            if (observed := self._observed.get(task_id)) is not None:
                read = partial(self._way(observed).read_end, task_id, observed)
                await self._patiently(f"task {task_id}: reading its record", read)
        except ApiError as error:
            unreadable = f"ConfigMap {names.task_object(task_id)}: {error}"
        finally:
            self._rereading.discard(task_id)
        if (task := self._observed.get(task_id)) is not None:
            task.is_record_final, task.unreadable = True, unreadable or task.unreadable
            self._evaluate(task_id)

    async def _retry(self, following: Following, task: ObservedTask, why: str) -> None:
        """Makes another pod of a task whose pod is lost. What is seen of the task meanwhile is about the lost one."""
        task_id, pods = following.job.id, TaskPods(self._opened()[0])
        changed = self._ending[task_id] = asyncio.Event()
        try:
            await self._patiently(
                f"task {task_id}: trying again",
                lambda: pods.begin_again(following, task, why, self._ground(following.job), changed),
                partial(self._tell_waiting, following),
            )
        except PlaceError as error:
            task.refused = f"{why}; there cannot be another attempt: {error}{self._advice(str(error))}"
        finally:
            if self._ending.get(task_id) is changed:
                del self._ending[task_id]
        self._evaluate(task_id)

    def _tell_waiting(self, following: Following, words: str) -> None:
        """Says in the task's log why there is no further attempt yet."""
        assert self._report is not None
        status = following.waiting(f"waiting: another attempt could not be made yet: {words}")
        if status != following.reported:
            following.reported = status
            self._report(following.job.id, status)

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
        if found.retry and following.attempt <= task.attempt:
            following.attempt = task.attempt + 1
            following.work = asyncio.create_task(self._retry(following, task, found.retry), name=f"retry {task_id}")
        if found.needs_record_read and task_id not in self._rereading:
            self._rereading.add(task_id)
            self._spawn(self._read_again(task_id), f"read the record of {task_id}")
        if found.status is None:
            return
        status = following.forward(found.status)
        if status == following.reported:
            return
        if status.state.is_terminal and following.end != "prepared":
            self._prepare_end(following, task)
            return
        following.reported, following.state = status, status.state
        self._report(task_id, status)

    def _prepare_end(self, following: Following, task: ObservedTask) -> None:
        """Reports the end of a task once it may be on record."""

        async def prepare() -> None:
            task_id = following.job.id
            try:
                step = partial(self._way(task).prepare_end, task_id, task, following.parts)
                await self._patiently(f"task {task_id}: cleaning up", step)
            finally:
                following.end = "prepared"
                self._evaluate(task_id)

        if task.mode != "pod":
            following.end = "prepared"
            self._evaluate(following.job.id)
        elif not following.end:
            following.end = "being prepared"
            self._spawn(prepare(), f"prepare the end of {following.job.id}")

    def _tell_limits(self, task_id: TaskId, demand: Demand, found: Assessment) -> None:
        if found.has_room:
            self._waiting_limit.leaves(task_id)
        else:
            self._waiting_limit.waits(task_id, demand, is_told=bool(found.waits_for))
        if found.leading_node is not None:
            self._start_limit.has_taskmaster(task_id, found.leading_node, time.monotonic())
        if found.has_begun:
            self._start_limit.begins(task_id)
        elif found.waits_for:
            self._start_limit.leaves(task_id)

    @property
    def _report_address(self) -> str:
        """Where pods report to; with the port that was taken where the setting leaves that open."""
        host, colon, port = self._settings.report_address.rpartition(":")
        return f"{host}:{self._reports.port}" if colon and port == "0" else self._settings.report_address

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
