"""Many tasks of all kinds while the server is killed again and again, and pods at random: each ends right, and once.

TESK_TEST_STORM: how many.
"""

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from tesk import tes
from tesk.settings import Settings
from tests.engines import strikes
from tests.engines.gates import Gates
from tests.engines.places import BOTH, KubernetesPlace
from tests.engines.running import Document, content, sh
from tests.engines.serving import Server, serving

pytestmark = pytest.mark.places(*BOTH)

TASKS = int(os.environ.get("TESK_TEST_STORM") or 100)
AT_ONCE = 40
ROLES = {"kubernetes": ("taskmaster", "inputs", "executor", "outputs"), "pod": ("task",)}
CONTAINERS = {"taskmaster": ("taskmaster",), "executor": ("executor",), "task": ("runner", "executor-0", "executor-1")}
CODES = {"hello": [0], "pair": [0, 0], "files": [0], "failing": [3], "ignored": [4, 0]}
"""The exit codes of each kind of task that nothing strikes; a cancelled one has none that is certain."""
LOST = ("was deleted by somebody else", "is gone: somebody deleted it", "ended with code 137")


def document(doors: Gates, kind: str, name: str) -> Document:
    """A task whose executors each count themselves."""

    def step(n: int, script: str = "true", **executor: Any) -> Document:
        return sh(f"wget -q -O /dev/null {doors.url}/{name}/executor-{n} && {script}", **executor)

    task: Document = {"name": name, "tags": {"kind": kind}}
    if kind == "hello":
        task["executors"] = [step(0)]
    elif kind == "pair":
        task["volumes"] = ["/vol"]
        task["executors"] = [step(0, "echo one >> /vol/a"), step(1, "test $(wc -l < /vol/a) = 1")]
    elif kind == "files":
        task["inputs"] = [content("/work/in", name)]
        task["executors"] = [step(0, "cat /work/in /work/in > /work/out")]
        task["outputs"] = [{"path": "/work/out", "url": f"{doors.url}/{name}/outputs"}]
    elif kind == "failing":
        task["executors"] = [step(0, "exit 3"), step(1)]
    elif kind == "ignored":
        task["executors"] = [step(0, "exit 4", ignore_error=True), step(1)]
    else:
        task["executors"] = [step(0, "sleep 3600")]
    return task


class Storm:
    """What has been done to the tasks so far. `struck`: tasks of which a pod other than the taskmaster's was killed."""

    def __init__(self, server: Server, place: KubernetesPlace, doors: Gates, seed: int) -> None:
        self.server, self.place, self.doors = server, place, doors
        self.random = random.Random(seed)
        self.struck: set[str] = set()
        self.strikes: Counter[str] = Counter()
        self.names = 0
        self._up = asyncio.Event()
        self._up.set()
        self._over = asyncio.Event()

    async def patiently(self, step: Any) -> Any:
        """Repeats a request until the server has answered it."""
        while True:
            await self._up.wait()
            with contextlib.suppress(httpx.TransportError):
                return await step()
            await asyncio.sleep(0.05)

    async def submit(self, kind: str) -> None:
        """Creates a task; whether one that was not answered exists is unknown, so each try has a name of its own."""

        async def create() -> str:
            self.names += 1
            return await self.server.create(document(self.doors, kind, f"{kind}-{self.names}"))

        task_id = await self.patiently(create)
        if kind == "cancelled":
            await asyncio.sleep(self.random.choice((0, 0.5, 3, 8)))
            await self.patiently(lambda: self.server.cancel(task_id))

    async def cancel_unanswered(self, left: list[Document]) -> None:
        """Cancels those that are there though nobody was told, so that nobody knew what to cancel."""
        for task in left:
            if task["tags"]["kind"] == "cancelled" and task["state"] != "CANCELING":
                await self.patiently(lambda: self.server.cancel(task["id"]))  # noqa: B023

    async def goes_on(self, seconds: float) -> bool:
        """After some seconds, or at once when the storm is over, whether it goes on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return not self._over.is_set()

    async def kill_servers(self) -> None:
        while await self.goes_on(self.random.uniform(3, 12)):
            self._up.clear()
            await self.server.kill()
            await asyncio.sleep(self.random.choice((0, 0, 4)))
            await self.server.start()
            self._up.set()
            self.strikes["server"] += 1

    async def kill_pods(self) -> None:
        while await self.goes_on(self.random.uniform(0.5, 2.5)):
            await asyncio.to_thread(self._kill_pod)

    def _kill_pod(self) -> None:
        running = [
            pod
            for pod in self.place.cluster.get(self.place.namespace, "pods", "app.kubernetes.io/managed-by=tesk")
            if pod["status"]["phase"] in ("Pending", "Running")
        ]
        role = self.random.choice(ROLES[self.place.name])
        chosen = [pod for pod in running if pod["metadata"]["labels"]["tesk/role"] == role]
        if not chosen:
            return
        pod = self.random.choice(chosen)
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        if role != "taskmaster":
            self.struck.add(labels["tesk/task"])
        way = self.random.choice(("delete", "force", "kill") if self.place.cluster.name else ("delete", "force"))
        if way == "kill":
            with contextlib.suppress(AssertionError):  # it does not run yet, or any more
                container = self.random.choice(CONTAINERS.get(role, ("filer",)))
                strikes.kill(self.place, name, container, seconds=0)
        else:
            strikes.delete(self.place, "pod", name, at_once=way == "force")
        self.strikes[f"{role} {way}"] += 1

    @contextlib.asynccontextmanager
    async def raging(self) -> AsyncIterator[None]:
        """At the end of it, the server is up."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.kill_servers())
            group.create_task(self.kill_pods())
            try:
                yield
            finally:
                self._over.set()


def wrong(task: Document, doors: Gates, *, struck: bool) -> str:
    """What is not right about a task's end; empty when all is."""
    kind, name, state = task["tags"]["kind"], task["name"], task["state"]
    log = task["logs"][0] if task.get("logs") else {}
    codes = [entry["exit_code"] for entry in log.get("logs", [])]
    counts = {step: count for step, count in doors.reached.items() if step.startswith(f"{name}/executor")}
    if any(count > 1 for count in counts.values()):
        return f"ran twice: {counts}"
    if struck and state == "SYSTEM_ERROR" and any(words in log["system_logs"][-1] for words in LOST):
        return ""
    if struck and state == "EXECUTOR_ERROR" and codes[-1] == 137:
        return ""
    if kind == "cancelled":
        return "" if state == "CANCELED" else "not cancelled"
    right = "EXECUTOR_ERROR" if kind == "failing" else "COMPLETE"
    if (state, codes) != (right, CODES[kind]) or sum(counts.values()) != len(codes):
        return f"not {right} with {CODES[kind]}, having run {counts}"
    if kind == "files" and doors.received[f"{name}/outputs"] != (name + name).encode():
        return "its output is not what it wrote"
    return ""


@pytest.mark.timeout(600 + 30 * TASKS)
async def test_every_task_of_a_storm_ends_right_and_nothing_stays(
    settings: Settings, place: KubernetesPlace, doors: Gates
) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    doors.open_all()
    begun = time.monotonic()
    async with serving(msgspec.structs.replace(settings, max_active_tasks=AT_ONCE)) as server:
        storm = Storm(server, place, doors, seed)
        kinds = [*CODES, "cancelled", "hello"]
        async with storm.raging():
            await asyncio.gather(*(storm.submit(kinds[n % len(kinds)]) for n in range(TASKS)))
            while left := [task for task in await storm.patiently(lambda: server.tasks("FULL")) if not is_over(task)]:
                await storm.cancel_unanswered(left)
                await asyncio.sleep(2)
        lasted = time.monotonic() - begun
        await server.ready()
        tasks = await server.tasks("FULL")
        states = Counter(task["state"] for task in tasks)
        print(f"{len(tasks)} tasks in {lasted:.0f} s: {dict(states)}; struck: {dict(storm.strikes)}")
        assert len(tasks) >= TASKS
        found = {task["id"]: wrong(task, doors, struck=task["id"] in storm.struck) for task in tasks}
        assert [(task, found[task["id"]]) for task in tasks if found[task["id"]]] == []
        assert await place.leftovers(settings) == []


def is_over(task: Document) -> bool:
    return tes.State[task["state"]].is_terminal
