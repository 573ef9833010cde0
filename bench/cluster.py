"""How much tesk adds on a real cluster: `scripts/bench cluster [--quick] [--only PART]...`

The cluster is the one-node Kubernetes of scripts/cluster, or the one that TESK_TEST_CLUSTER names. Every figure is a
ratio to bare Jobs or pods that are measured in turn with tesk's tasks on it. A task's time is from POST to its end as
a client sees it that asks every 10 ms. Parts: tasks, line, at-once, simulated, memory, roles; the same of tasks of one
pod each: pods, pods-line, pods-at-once, pods-simulated, pods-memory; api: what tasks of both modes cost the Kubernetes
API, beside bare Jobs.
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench import cluster_line, cluster_roles
from bench import cluster_simulated as simulated
from bench.api_figures import Figures
from bench.client import asking, interleaved, p99_ms
from bench.cluster_api import Cost, cost
from bench.cluster_jobs import Bare, connected, of_two, settled
from bench.cluster_runners import Runners
from bench.cluster_server import PAUSE_S, Server, served
from bench.cluster_standin import StandIn
from tesk import tes
from tesk.kubernetes.task_settings import TaskSettings
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.task_settings import task_settings
from tests.servers import cluster as clusters
from tests.servers.cluster import BUSYBOX, Cluster
from tests.servers.process import free_port

LIMITS = {"hello": 0.8, "staged": 1.5, "three": 1.7, "failed": 0.3}
POD_LIMITS = {"hello": 0.25, "staged": 0.35, "three": 0.4, "failed": 0.3}
"""The same where each task is one pod."""
RATE_LIMIT = SIMULATED_LIMIT = 0.5
PODS_RATE_LIMIT, PODS_SIMULATED_LIMIT, PODS_API_LIMIT, PODS_MEMORY_LIMIT_MIB = 0.85, 0.9, 1.0, 500
IN_FLIGHT_S = 30.0
"""How long it is looked at while all run."""
COMMAND = ["echo", "hello"]
HELLO: dict[str, Any] = {"executors": [{"image": BUSYBOX, "command": COMMAND}]}
SMALL = {**HELLO, "resources": {"cpu_cores": 0.001, "ram_gb": 0.01}}
"""Asks for as little as bare pods, which ask for nothing: the node is to be full of work, not of requests."""
FAILING: dict[str, Any] = {"executors": [{"image": BUSYBOX, "command": ["sh", "-c", "cat /proc/uptime; exit 3"]}]}
THREE: dict[str, Any] = {
    "volumes": ["/shared"],
    "executors": [
        {"image": BUSYBOX, "command": ["sh", "-c", f"echo {n} >> /shared/log && wc -l < /shared/log"]} for n in range(3)
    ],
}


def staged(shared: Path) -> dict[str, Any]:
    """A task with one inline input and one output."""
    return {
        "inputs": [{"path": "/in/text", "content": "hello\n"}],
        "outputs": [{"path": "/out/text", "url": f"{shared}/text"}],
        "executors": [{"image": BUSYBOX, "command": ["cp", "/in/text", "/out/text"]}],
    }


class Bench(NamedTuple):
    """Where it runs: a namespace whose claim `shared` is a folder of this machine, the API, and the server."""

    figures: Figures
    quick: bool
    cluster: Cluster
    namespace: str
    shared: Path
    folder: Path
    client: Client

    async def tasks(self) -> None:
        await self._time_tasks(LIMITS)

    async def pods(self) -> None:
        await self._time_tasks(POD_LIMITS, **self._in_pods())

    def _in_pods(self) -> dict[str, Any]:
        """Settings with which each task is one pod, which reports to the server."""
        port = free_port()
        return {"mode": "pod", "report_port": port, "report_address": f"{self.cluster.host}:{port}"}

    async def _time_tasks(self, limits: dict[str, float], **chosen: Any) -> None:
        async with (
            self._served_shared(**chosen) as server,
            Bare(self.client, BUSYBOX, COMMAND) as bare,
            Bare(self.client, BUSYBOX, COMMAND, of_two(BUSYBOX, COMMAND), name="two") as two,
        ):
            await server.client.timed(HELLO)
            await bare.once("jobs")
            base, pod, hello, moved, three, failed = await interleaved(
                5 if self.quick else 15,
                lambda: bare.once("jobs"),
                lambda: two.once("pods"),
                lambda: server.client.timed(HELLO),
                lambda: server.client.timed(staged(self.shared)),
                lambda: server.client.timed(THREE),
                lambda: after_end(server),
            )
        self.figures.plain("the container as a bare Job", f"{base:.2f} s")
        self.figures.plain("a bare pod of two containers and a volume, over it", f"{pod:.2f} s, {pod / base:.2f}")
        for name, seconds, limit in (
            ("hello task", hello, limits["hello"]),
            ("with one input and one output, on a fresh volume", moved, limits["staged"]),
            ("three executors on a shared volume", three, limits["three"]),
            ("EXECUTOR_ERROR after the program's end", failed, limits["failed"]),
        ):
            self.figures.at_most(name, f"{seconds:.2f} s", seconds / base, limit)

    async def line(self) -> None:
        await self._line(cluster_line.POINTS)

    async def pods_line(self) -> None:
        await self._line(cluster_line.POD_POINTS, **self._in_pods())

    async def _line(self, points: dict[str, str], **chosen: Any) -> None:
        is_pod = points is cluster_line.POD_POINTS
        async with served(self.cluster, self.namespace, self.folder, **chosen) as server:
            await server.client.timed(HELLO)
            lines = [
                await cluster_line.line(self.cluster.name, self.client, server, "tesk", is_pod=is_pod)
                for _ in range(3 if self.quick else 15)
            ]
        print(cluster_line.show(lines, points))

    async def at_once(self) -> None:
        await self._at_once(2, RATE_LIMIT)

    async def pods_at_once(self) -> None:
        await self._at_once(1, PODS_RATE_LIMIT, **self._in_pods())

    async def _at_once(self, pods_each: int, limit: float, **chosen: Any) -> None:
        count = 60 if self.quick else 200
        async with (
            served(self.cluster, self.namespace, self.folder, **chosen) as server,
            Bare(self.client, BUSYBOX, COMMAND) as bare,
            Bare(self.client, BUSYBOX, COMMAND, of_two(BUSYBOX, COMMAND), name="two") as two,
        ):
            await server.client.timed(HELLO)
            await settled(self.cluster)
            before = await bare.rate("pods", count)
            await settled(self.cluster)
            async with asking(lambda: self.client.get("configmaps", "kube-root-ca.crt")) as took:
                rate, get_ms = await server.client.rate(SMALL, count)
            await asyncio.to_thread(clusters.leftovers, self.cluster, self.namespace, 60.0)
            await settled(self.cluster)
            after = await bare.rate("pods", count)
            await settled(self.cluster)
            of_two_containers = await two.rate("pods", count)
        pods = max(before, after)
        self.figures.plain(f"{count} bare pods at once, per s", f"{before:.1f}, {after:.1f}")
        of_pods = f"{of_two_containers:.1f}, {of_two_containers / pods:.2f}"
        self.figures.plain("bare pods of two containers and a volume, over them", of_pods)
        name, rate = f"{count} hello tasks at once, pods per s", pods_each * rate
        self.figures.at_least(name, f"{rate:.1f}", rate / pods, limit)
        self.figures.plain("p99 of a GET of the server meanwhile", f"{get_ms:.0f} ms")
        self.figures.plain("p99 of a GET of the Kubernetes API", f"{p99_ms(took):.0f} ms")

    async def simulated(self) -> None:
        await self._simulated(SIMULATED_LIMIT)

    async def pods_simulated(self) -> None:
        await self._simulated(PODS_SIMULATED_LIMIT, **self._in_pods())

    async def _simulated(self, limit: float, **chosen: Any) -> None:
        count = 200 if self.quick else 2000
        async with (
            simulated.nodes(self.cluster, self.folder, ending=True),
            served(self.cluster, self.namespace, self.folder, **simulated.SETTINGS, **chosen) as server,
            Bare(self.client, BUSYBOX, COMMAND, simulated.SPEC) as bare,
            self._stand_ins(server, hold=False),
        ):
            await server.client.timed(HELLO)
            before = await bare.rate("jobs", count)
            cpu_s = server.cpu_s()
            async with asking(lambda: self.client.get("configmaps", "kube-root-ca.crt")) as took:
                rate, get_ms = await server.client.rate(HELLO, count)
            cpu_s = server.cpu_s() - cpu_s
            memory_mib = server.memory_mib()
            await asyncio.to_thread(clusters.leftovers, self.cluster, self.namespace, 60.0)
            after = await bare.rate("jobs", count)
        jobs = max(before, after)
        self.figures.plain(f"{count} bare Jobs on simulated nodes, per s", f"{before:.0f}, {after:.0f}")
        self.figures.at_least(f"{count} tasks there, per s", f"{rate:.0f}", rate / jobs, limit)
        self.figures.plain("the server's CPU for each", f"{cpu_s / count * 1000:.1f} ms")
        self.figures.plain("its memory then", f"{memory_mib:.0f} MiB")
        self.figures.plain("p99 of a GET of the server meanwhile", f"{get_ms:.0f} ms")
        self.figures.plain("p99 of a GET of the Kubernetes API", f"{p99_ms(took):.0f} ms")

    async def memory(self) -> None:
        await self._in_flight(100 if self.quick else 1000)

    async def pods_memory(self) -> None:
        await self._in_flight(1000 if self.quick else 10_000, **self._in_pods(), max_active_tasks=20_000)

    async def _in_flight(self, count: int, **chosen: Any) -> None:
        async with (
            simulated.nodes(self.cluster, self.folder, ending=False),
            served(self.cluster, self.namespace, self.folder, **simulated.SETTINGS, **chosen) as server,
            self._stand_ins(server, hold=True) as stand_ins,
        ):
            idle_mib, cpu_s = server.memory_mib(), server.cpu_s()
            ids = [await server.client.create(HELLO) for _ in range(count)]
            await stand_ins.all_run(count)
            for task_id in ids:
                await server.client.reached(task_id, "RUNNING")
            memory_mib, cpu_s = server.memory_mib(), server.cpu_s() - cpu_s
            idle_cpu_s = server.cpu_s()
            await asyncio.sleep(IN_FLIGHT_S)
            idle_cpu_s = server.cpu_s() - idle_cpu_s
        self.figures.plain("the server's memory without tasks", f"{idle_mib:.0f} MiB")
        self.figures.memory_at_most(f"with {count} tasks in flight", memory_mib, PODS_MEMORY_LIMIT_MIB)
        self.figures.plain("the server's CPU for each until it runs", f"{cpu_s / count * 1000:.1f} ms")
        self.figures.plain("its CPU for all while they run", f"{idle_cpu_s / IN_FLIGHT_S * 100:.1f} % of a core")

    def _stand_ins(self, server: Server, *, hold: bool) -> StandIn | Runners:
        chosen = self._task_settings(server)
        if server.settings.mode == "pod":
            return Runners(self.client, chosen.instance, server.settings.report_address, hold=hold)
        return StandIn(self.client, chosen, parsed(HELLO), hold=hold)

    async def api(self) -> None:
        """All on the real node, kubelet included."""
        count = 20 if self.quick else 60
        async with Bare(self.client, BUSYBOX, COMMAND) as bare:
            await bare.once("jobs")
            job = await self._cost(count, lambda: bare.rate("jobs", count))
        await self._tasks_cost("with a taskmaster", job, count, None)
        await self._tasks_cost("of one pod", job, count, PODS_API_LIMIT, **self._in_pods())
        self.figures.plain("a bare Job, requests to the Kubernetes API", f"{job.requests:.0f}")
        self.figures.plain("CPU of the API server for it", f"{job.cpu_s * 1000:.0f} ms")

    async def _tasks_cost(self, which: str, job: Cost, count: int, limit: float | None, **chosen: Any) -> None:
        async with served(self.cluster, self.namespace, self.folder, **chosen) as server:
            await server.client.timed(SMALL)
            task = await self._cost(count, lambda: server.client.rate(SMALL, count))
        name = f"a task {which}: requests to the Kubernetes API, over a bare Job"
        self.figures.at_most(name, f"{task.requests:.0f}", task.requests / job.requests, limit)
        name = f"a task {which}: CPU of the API server, over a bare Job"
        self.figures.at_most(name, f"{task.cpu_s * 1000:.0f} ms", task.cpu_s / job.cpu_s, limit)

    async def _cost(self, count: int, work: Callable[[], Awaitable[object]]) -> Cost:
        """What each of so many costs the API, until nothing is left of them."""
        await settled(self.cluster)
        before = await asyncio.to_thread(cost, self.cluster)
        await work()
        await asyncio.to_thread(clusters.leftovers, self.cluster, self.namespace, 60.0)
        await settled(self.cluster)
        return (await asyncio.to_thread(cost, self.cluster)).since(before, count)

    async def roles(self) -> None:
        task = staged(self.shared)
        task["executors"] = [{"image": BUSYBOX, "command": ["sh", "-c", "cp /in/text /out/text; sleep 1"]}]
        async with self._served_shared() as server:
            await server.client.timed(HELLO)
            async with cluster_roles.peaks(self.cluster.name) as peaks:
                await server.client.timed(task)
        for role, mib in peaks.items():
            self.figures.plain(f"a {role}'s memory", f"{mib:.0f} MiB")
            start_ms = await asyncio.to_thread(cluster_roles.start_ms, role)
            self.figures.plain("CPU time of its start", f"{start_ms:.0f} ms")

    def _served_shared(self, **chosen: Any) -> contextlib.AbstractAsyncContextManager[Server]:
        """A server whose tasks may use the claim `shared`."""
        roots, mounts = [str(self.shared)], [f"{self.shared}=claim:shared"]
        return served(self.cluster, self.namespace, self.folder, file_roots=roots, filer_mounts=mounts, **chosen)

    def _task_settings(self, server: Server) -> TaskSettings:
        return task_settings(server.settings, self.namespace)


def parsed(task: dict[str, Any]) -> tes.Task:
    return tes.decode(msgspec.json.encode(task))


async def after_end(server: Server) -> float:
    """Seconds from a failing program's end, by its own clock, to EXECUTOR_ERROR as the client sees it."""
    task_id = await server.client.create(FAILING)
    await server.client.ended(task_id, expected="EXECUTOR_ERROR")
    seen = time.time()
    stdout = (await server.client.get(task_id))["logs"][0]["logs"][0]["stdout"]
    await asyncio.sleep(PAUSE_S)
    return seen - cluster_line.own_clock(stdout)


PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "tasks": Bench.tasks,
    "pods": Bench.pods,
    "pods-line": Bench.pods_line,
    "pods-at-once": Bench.pods_at_once,
    "pods-simulated": Bench.pods_simulated,
    "pods-memory": Bench.pods_memory,
    "api": Bench.api,
    "line": Bench.line,
    "at-once": Bench.at_once,
    "simulated": Bench.simulated,
    "memory": Bench.memory,
    "roles": Bench.roles,
}


async def measure(figures: Figures, parts: list[str], *, quick: bool) -> None:
    kept = os.environ.get("TESK_TEST_CLUSTER", "")
    with (
        tempfile.TemporaryDirectory(prefix="tesk-bench-") as name,
        clusters.cluster(Path(name), kept or f"bench-{os.getpid()}", shared=bool(kept)) as cluster,
    ):
        for part in parts:
            with clusters.namespace(cluster) as namespace:
                folder = Path(name, part)
                shared = folder / "shared"
                os.makedirs(shared)
                clusters.share(cluster, namespace, shared)
                client = await connected(cluster.kubeconfig, namespace)
                await PARTS[part](Bench(figures, quick, cluster, namespace, shared, folder, client))
                await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench cluster", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*PARTS], help="which part; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    figures = Figures()
    asyncio.run(measure(figures, options.only or [*PARTS], quick=options.quick))
    figures.end()


if __name__ == "__main__":
    main()
