"""What tasks on a cluster are compared with: the same container as a bare Job, and bare pods, without tesk.

They are made and watched in the fastest way known: by tesk's own client, which no rate limit holds back here.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

from tesk.kubernetes import objects
from tesk.places.kubernetes import config
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.watch import Cache
from tests.servers.cluster import Cluster

AT_ONCE = 32
PAUSE_S = 2.0
SETTLED_S = 180
UNLIMITED = 1e9


def of_two(image: str, command: list[str]) -> dict[str, Any]:
    """What a task of one pod is made of at least: two containers, which share a volume."""
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    containers = [
        {"name": name, "image": image, "command": command, "volumeMounts": mounts} for name in ("runner", "executor")
    ]
    return {"containers": containers, "volumes": [{"name": "shared", "emptyDir": {}}]}


Spec = dict[str, Any]


async def connected(kubeconfig: Path, namespace: str) -> Client:
    """The cluster's API as its administrator."""
    client = Client(config.load(str(kubeconfig), {}), namespace, UNLIMITED)
    await client.open()
    return client


async def settled(cluster: Cluster) -> None:
    """Returns once the node runs no containers: it still ends those of pods that the API has forgotten."""
    async with asyncio.timeout(SETTLED_S):
        while len((await asyncio.to_thread(cluster.on_node, "ctr", "tasks", "ls", "-q")).split()):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    await asyncio.sleep(PAUSE_S)


class Bare:
    """Jobs and pods in a namespace. `spec` is that of their pods, beside or in place of their one container.

    `name`: of its own for each that is used beside another.
    """

    def __init__(
        self, client: Client, image: str, command: list[str], spec: Spec | None = None, name: str = "bare"
    ) -> None:
        container = {"name": "main", "image": image, "command": command}
        self._client = client
        self._name = name
        self._spec = {"restartPolicy": "Never", "containers": [container], **(spec or {})}
        self._count = 0
        self._over: dict[str, asyncio.Event] = {}
        self._there: dict[str, set[str]] = {"jobs": set(), "pods": set()}
        self._gone = asyncio.Event()
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Bare":
        kinds: list[tuple[str, Any, Any]] = [
            ("jobs", objects.Job, lambda job: any(c.type == "Complete" for c in job.status.conditions)),
            ("pods", objects.Pod, lambda pod: pod.status.phase == "Succeeded"),
        ]
        for kind, struct, is_over in kinds:

            def changed(name: str, found: Any, kind: str = kind, is_over: Any = is_over) -> None:
                self._changed(kind, name, found is not None, found is not None and is_over(found))

            cache = Cache(self._client, kind, msgspec.json.Decoder(struct).decode, f"bench={self._name}", changed)
            self._watches.append(asyncio.create_task(cache.follow()))
            await cache.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def once(self, kind: str) -> float:
        """Seconds from the creation of one of the `jobs` or `pods` to its end: Complete, Succeeded."""
        began = time.perf_counter()
        await self._run(kind)
        elapsed = time.perf_counter() - began
        await asyncio.sleep(PAUSE_S)
        return elapsed

    async def rate(self, kind: str, count: int) -> float:
        """How many `jobs` or `pods` per second end of `count` made at once; each is deleted when it has ended."""
        gate = asyncio.Semaphore(AT_ONCE)
        began = time.perf_counter()
        await asyncio.gather(*(self._run(kind, gate) for _ in range(count)))
        elapsed = time.perf_counter() - began
        while any(self._there.values()):
            self._gone.clear()
            await self._gone.wait()
        return count / elapsed

    async def _run(self, kind: str, gate: asyncio.Semaphore | None = None) -> None:
        gate = gate or asyncio.Semaphore(1)
        self._count += 1
        name = f"{self._name}-{self._count}"
        over = self._over[name] = asyncio.Event()
        async with gate:
            await self._client.create(kind, self._manifest(kind, name))
        await over.wait()
        async with gate:
            await self._client.delete(kind, name, grace_s=0 if kind == "pods" else None)

    def _manifest(self, kind: str, name: str) -> dict[str, Any]:
        labels = {"bench": self._name}
        metadata = {"name": name, "labels": labels}
        if kind == "pods":
            return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self._spec}
        template = {"metadata": {"labels": labels}, "spec": self._spec}
        return {
            "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
            "spec": {"template": template, "backoffLimit": 0},
        }  # fmt: skip

    def _changed(self, kind: str, name: str, is_there: bool, is_over: bool) -> None:
        there = self._there[kind]
        if is_there:
            there.add(name)
        else:
            there.discard(name)
            self._gone.set()
        if is_over and (over := self._over.get(name)):
            over.set()
