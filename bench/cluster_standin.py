"""Stand-in taskmasters: what the real ones ask of the API, without pods that could run them.

On simulated nodes no container runs, so nothing would ever end a task. For each taskmaster's pod that a simulated node
has started, the stand-in makes the requests of tesk/taskmaster/life.py for one executor without files, in the same
order and with the same objects: it asks for the record, makes it and then the executor's pod, and writes it when that
pod runs, and has ended. So the server, the API and its store have the load of real tasks; what is missing is the nodes'
own work, which is measured on a real one.
"""

import asyncio
from collections.abc import Callable

import msgspec

from tesk import tes
from tesk.clock import now
from tesk.kubernetes import manifests, names, objects
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import layout
from tesk.life.status import TaskId
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.watch import Cache
from tesk.taskmaster.workload import ASKED
from tesk.tes import ExecutorLog, State, TaskLog

_pod = msgspec.json.Decoder(objects.Pod).decode


class StandIn:
    """The taskmasters of all tasks in a namespace, which are all `task`. With `hold` they stop at RUNNING."""

    def __init__(self, client: Client, cluster: TaskSettings, task: tes.Task, *, hold: bool) -> None:
        self._running = 0
        self._runs = asyncio.Event()
        self._client, self._cluster, self._task, self._hold = client, cluster, task, hold
        self._lives: dict[TaskId, asyncio.Task[None]] = {}
        self._pods: dict[str, objects.Pod] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "StandIn":
        selector = names.selector(self._cluster.instance)
        cache = Cache(self._client, "pods", _pod, selector, self._pod_changed)
        self._watch = asyncio.create_task(cache.follow())
        await cache.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch
        tasks = [self._watch, *self._lives.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def all_run(self, count: int) -> None:
        """Returns when so many tasks have come to RUNNING."""
        while self._running < count:
            self._runs.clear()
            await self._runs.wait()

    def _pod_changed(self, name: str, pod: objects.Pod | None) -> None:
        if pod is None:
            self._pods.pop(name, None)
            return
        self._pods[name] = pod
        labels = pod.metadata.labels
        task_id = labels[names.TASK]
        if labels[names.ROLE] == names.TASKMASTER:
            if pod.status.container_statuses and task_id not in self._lives:
                uid = labels["batch.kubernetes.io/controller-uid"]
                self._lives[task_id] = asyncio.create_task(self._live(task_id, uid))
        elif changed := self._changed.get(name):
            changed.set()

    async def _live(self, task_id: TaskId, uid: str) -> None:
        """One task's life, as far as the API sees it."""
        name = names.task_object(task_id)
        record = Record(State.QUEUED, [Attempt(TaskLog(start_time=now()))])
        try:
            await self._client.get("configmaps", name)
            place = manifests.PodContext(task_id, self._task, self._cluster, uid, f"10.0.0.1:{names.MESSAGE_PORT}", 1)
            pod = names.pod(task_id, names.EXECUTOR_ROLE, executor=0)
            self._changed[pod] = asyncio.Event()
            record.now.pods[pod] = ASKED
            await self._client.create("configmaps", manifests.status(task_id, self._cluster, uid, records.pack(record)))
            manifest = manifests.executor_pod(place, pod, 0, layout(self._task), own_workdir=False)
            made = await self._client.create("pods", manifest)
            assert made is not None
            record.now.pods[pod] = _pod(made).metadata.uid
            await self._until(pod, lambda seen: bool(seen.status.container_statuses))
            record.state, record.now.started = State.RUNNING, now()
            await self._save(name, record)
            self._running += 1
            self._runs.set()
            if self._hold:
                return
            entry = ExecutorLog(0, record.now.started, now(), "hello\n", "")
            record.now.log = TaskLog(logs=[entry], start_time=record.now.log.start_time, end_time=now())
            record.state, record.now.started = State.COMPLETE, msgspec.UNSET
            await self._save(name, record)
        except ApiError as error:
            print(f"stand-in of task {task_id}: {error}")

    async def _save(self, name: str, record: Record) -> None:
        data = manifests.binary({names.RECORD_KEY: records.pack(record)})
        await self._client.patch("configmaps", name, {"binaryData": data})

    async def _until(self, name: str, reached: Callable[[objects.Pod], bool]) -> None:
        while (pod := self._pods.get(name)) is None or not reached(pod):
            self._changed[name].clear()
            await self._changed[name].wait()
