"""Where the time of one task goes: what happened when, as seen from outside.

Objects are seen by watches, containers by containerd's own events, the program's end by its own clock; all of them
are on this machine, so one clock tells them all. The points of several tasks are put together by their medians.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from datetime import datetime
from statistics import median
from typing import Any

import msgspec

from bench.cluster_server import PAUSE_S, Server
from tesk.kubernetes import names, objects
from tesk.kubernetes import record as records
from tesk.life.status import TaskId
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.watch import Cache
from tests.servers.cluster import BUSYBOX, SCRIPT

TASK: dict[str, Any] = {"executors": [{"image": BUSYBOX, "command": ["cat", "/proc/uptime"]}]}
EVENT = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d{6})\d* \+0000 UTC \S+ (/\S+) (\{.*\})")
POINTS = {
    "stored": "POST is answered: the task is stored",
    "job": "its Job exists",
    "taskmaster made": "the Job controller has made the taskmaster's pod",
    "taskmaster bound": "the scheduler has given it a node",
    "taskmaster sandbox": "its sandbox runs",
    "taskmaster": "its container runs",
    "executor made": "the taskmaster has made the executor's pod",
    "executor bound": "the scheduler has given it a node",
    "executor sandbox": "its sandbox runs",
    "reporter": "the reporter's container runs",
    "shim": "the shim has been copied",
    "executor": "the executor's container runs",
    "ended": "the program ends, by its own clock",
    "told": "the reporter has seen it",
    "recorded": "the end stands in the task's ConfigMap",
    "seen": "the client sees COMPLETE",
}
"""In order; a cluster without some of them shows the others."""
POD_POINTS = {
    "stored": "POST is answered: the task is stored",
    "task made": "the server has made its pod",
    "task bound": "the scheduler has given it a node",
    "task sandbox": "its sandbox runs",
    "runner": "the runner's container runs",
    "shim": "the shim has been copied",
    "executor": "the executor's container runs, and its shim waits",
    "started": "the runner has seen its program begin",
    "ended": "the program ends, by its own clock",
    "told": "the runner has seen it",
    "seen": "the client sees COMPLETE",
}
"""The same where each task is one pod. The program's clock is coarse: it may end before it has been seen to begin."""

Line = dict[str, float]


class Witness:
    """Keeps the first time of everything that happens while it looks: of each task, and of containers."""

    def __init__(self, *, is_pod: bool = False) -> None:
        self._roles = [("task", "runner")] if is_pod else [("taskmaster", "taskmaster"), ("executor", "reporter")]
        self.tasks: dict[TaskId, Line] = {}
        self.containers: Line = {}
        self._images: dict[str, str] = {}
        self._sandboxes = 0

    def job(self, name: str, job: objects.Job | None) -> None:
        if job is not None:
            self._mark(name, "job")

    def pod(self, name: str, pod: objects.Pod | None) -> None:
        if pod is not None:
            role = pod.metadata.labels.get(names.ROLE, "")
            self._mark(name, f"{role} made")
            if pod.spec.node_name:
                self._mark(name, f"{role} bound")

    def record(self, name: str, found: objects.ConfigMap | None) -> None:
        if found is not None and records.unpack(found.binary_data[names.RECORD_KEY]).state.is_terminal:
            self._mark(name, "recorded")

    def _mark(self, name: str, point: str) -> None:
        task_id = name.removeprefix(names.task_object("")).partition("-")[0]
        self.tasks.setdefault(task_id, {}).setdefault(point, time.time())

    def container(self, topic: str, event: dict[str, Any], at: float) -> None:
        """Of one task alone, containers start in a known order: of each pod the sandbox, then what it holds."""
        if topic == "/containers/create":
            self._images[event["id"]] = event.get("image", "")
        elif topic == "/tasks/start":
            image = self._images.get(event["container_id"], "")
            if "pause" in image:
                self._sandboxes += 1
                self.containers[f"{self._roles[self._sandboxes - 1][0]} sandbox"] = at
            elif image == BUSYBOX:
                self.containers["executor"] = at
            else:
                self.containers[self._roles[self._sandboxes - 1][1]] = at
        elif topic == "/tasks/exit" and event.get("id") != event.get("container_id"):
            self.containers["shim"] = at


@contextlib.asynccontextmanager
async def containerd(cluster: str, witness: Witness) -> AsyncIterator[None]:
    """Lets the witness see the containers of a node of scripts/cluster."""
    process = await asyncio.create_subprocess_exec(
        "env", f"CLUSTER={cluster}", SCRIPT, "in", "ctr", "events", stdout=PIPE, stderr=DEVNULL, start_new_session=True
    )

    async def read() -> None:
        assert process.stdout
        async for line in process.stdout:
            if found := EVENT.match(line.decode()):
                day, clock, topic, event = found.groups()
                at = datetime.fromisoformat(f"{day} {clock}+00:00").timestamp()
                witness.container(topic, msgspec.json.decode(event), at)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
        await reading


async def line(cluster: str, client: Client, server: Server, instance: str, *, is_pod: bool = False) -> Line:
    """Runs one task alone, as one pod with `is_pod`; seconds after its POST, by point."""
    witness = Witness(is_pod=is_pod)
    kinds: list[tuple[str, Any, Any]] = [
        ("jobs", objects.Job, witness.job),
        ("pods", objects.Pod, witness.pod),
        ("configmaps", objects.ConfigMap, witness.record),
    ]
    caches = [
        Cache(client, kind, msgspec.json.Decoder(struct).decode, names.selector(instance), changed)
        for kind, struct, changed in kinds
    ]
    watches = [asyncio.create_task(cache.follow()) for cache in caches]
    async with containerd(cluster, witness):
        for cache in caches:
            await cache.synced.wait()
        began = time.time()
        task_id = await server.client.create(TASK)
        stored = time.time()
        await server.client.ended(task_id)
        seen = time.time()
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    log = (await server.client.get(task_id))["logs"][0]["logs"][0]
    started, told = (datetime.fromisoformat(log[key]).timestamp() for key in ("start_time", "end_time"))
    await asyncio.sleep(PAUSE_S)
    line = {"stored": stored, "started": started, "ended": own_clock(log["stdout"]), "told": told, "seen": seen}
    return {point: at - began for point, at in (witness.tasks[task_id] | witness.containers | line).items()}


def own_clock(uptime: str) -> float:
    """The time at which a program on this machine read /proc/uptime: busybox has no finer clock."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + float(uptime.split()[0])


def show(lines: list[Line], words: dict[str, str]) -> str:
    """The medians of some tasks' points as a table: after how many ms, how many of them since the point before."""
    points = {point: median(each[point] for each in lines) for point in words if all(point in each for each in lines)}
    rows, before = ["   ms   step  what is so"], 0.0
    for point, at in points.items():
        rows.append(f"{at * 1000:5.0f}  {(at - before) * 1000:5.0f}  {words[point]}")
        before = at
    return "\n".join(rows)
