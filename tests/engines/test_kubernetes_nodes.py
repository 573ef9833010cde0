"""Nodes that are drained, lost, or needed for something more important; disks that are full; retries elsewhere."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tesk.clock import now
from tests.engines import strikes
from tests.engines.alone import alone, lines, waits_for
from tests.engines.gates import Gates, reached
from tests.engines.places import DISRUPTED, KubernetesPlace
from tests.engines.running import Tesk, sh
from tests.servers.cluster import BUSYBOX, Cluster, Object
from tests.servers.holding import Holding

pytestmark = pytest.mark.places(*DISRUPTED)

ONCE = "test.example.com/once"
AUTO = {"retries": 1, "mode": "auto", "allowed_backend_parameters": ("service_account", f"node_selector.{ONCE}")}
MODES: dict[str, dict[str, str]] = {"taskmaster": {"service_account": "default"}, "pod": {}}
"""Parameters with which a task has a taskmaster, and is one pod, in mode "auto"."""


def held(holding: Holding, name: str = "held") -> dict[str, Any]:
    """An executor that runs for ever at first, and not the next time."""
    return sh(f"wget -q -O /dev/null {holding.url}/{name}")


def node(cluster: Cluster) -> Object:
    """The one node that runs pods."""
    name = cluster.on_node("hostname").strip()
    return dict(json.loads(cluster.kubectl("get", "node", name, "-o", "json")))


@pytest.fixture
def important(place: KubernetesPlace) -> Iterator[str]:
    """A priority class above that of tasks."""
    name = f"important-{uuid.uuid4().hex[:8]}"
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
    place.cluster.apply({**priority, "value": 1000})
    yield name
    place.cluster.kubectl("delete", "priorityclass", name)


@pytest.mark.parametrize("settings", [{"retries": 1, "cpu_limit": "none"}], indirect=True)
async def test_a_preempted_task_says_so_waits_for_room_and_runs_again(
    tesk: Tesk, place: KubernetesPlace, holding: Holding, important: str
) -> None:
    cluster = place.cluster
    cores = 0.6 * float(node(cluster)["status"]["allocatable"]["cpu"])
    task_id = await tesk.create(executors=[held(holding)], resources={"cpu_cores": cores})
    await holding.reached("held")
    room = {"requests": {"cpu": f"{cores:.2f}"}}
    container = {"name": "x", "image": BUSYBOX, "command": ["sleep", "3600"], "resources": room}
    cluster.apply(
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": important, "namespace": place.namespace},
            "spec": {"priorityClassName": important, "containers": [container], "terminationGracePeriodSeconds": 1},
        }
    )  # fmt: skip
    task = await waits_for(tesk, task_id, "1 Insufficient cpu")
    assert len(task["logs"]) == 2
    cluster.kubectl("-n", place.namespace, "delete", "pod", important)
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE"
    first, second = task["logs"]
    assert f"error: pod tesk-{task_id}-executor-0: preempted by a task of higher priority: " in lines(task)
    assert (first["logs"], [log["exit_code"] for log in second["logs"]]) == ([], [0])


@pytest.mark.parametrize("settings", [AUTO], indirect=True)
async def test_a_task_on_a_drained_node_runs_again_when_there_is_one(
    tesk: Tesk, place: KubernetesPlace, holding: Holding
) -> None:
    """With a taskmaster, and as one pod."""
    cluster, name = place.cluster, node(place.cluster)["metadata"]["name"]
    ids = {
        mode: await tesk.create(executors=[held(holding, mode)], resources={"backend_parameters": chosen})
        for mode, chosen in MODES.items()
    }
    for mode in MODES:
        await holding.reached(mode)
    pods = f"--pod-selector=app.kubernetes.io/instance={tesk.settings.instance}"
    try:
        await asyncio.to_thread(cluster.kubectl, "drain", name, pods, "--delete-emptydir-data", "--force")
        for task_id in ids.values():
            await waits_for(tesk, task_id, "1 node(s) were unschedulable")
    finally:
        cluster.kubectl("uncordon", name)
    for task_id in ids.values():
        task = await tesk.ended(task_id)
        assert task["state"] == "COMPLETE"
        first, second = task["logs"]
        assert "drained" in lines(task)
        assert (first["logs"], [log["exit_code"] for log in second["logs"]]) == ([], [0])


@pytest.mark.parametrize("settings", [{"schedule_timeout_s": 20.0}], indirect=True)
async def test_a_taskmaster_that_finds_no_node_any_more_is_given_up_as_a_first_one_is(
    tesk: Tesk, place: KubernetesPlace, holding: Holding
) -> None:
    name = node(place.cluster)["metadata"]["name"]
    task_id = await tesk.create(executors=[held(holding)])
    await holding.reached("held")
    place.cluster.kubectl("cordon", name)
    try:
        strikes.delete(place, "pod", strikes.taskmaster(place, task_id)["metadata"]["name"])
        task = await tesk.ended(task_id)
    finally:
        place.cluster.kubectl("uncordon", name)
    assert task["state"] == "SYSTEM_ERROR"
    assert "the taskmaster: 0/1 nodes are available" in lines(task)
    assert "given up after 20 s, schedule_timeout_s" in lines(task)


async def test_a_pod_that_fills_its_nodes_disk_is_evicted_and_says_so(place: KubernetesPlace, tmp_path: Path) -> None:
    limits = {"type": "Container", "default": {"ephemeral-storage": "4Mi"}}
    limit = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "disk"}, "spec": {"limits": [limits]}}
    fill = "dd if=/dev/zero of={} bs=1M count=50 && sleep 3600"

    async with alone(place, tmp_path / "alone", objects=(limit,)) as (tesk, _):
        in_image, in_workdir = await asyncio.gather(
            tesk.run(executors=[sh(fill.format("/large"))]),
            tesk.run(executors=[sh(fill.format("large"), workdir="/made")]),
        )
    for task in (in_image, in_workdir):
        assert task["state"] == "SYSTEM_ERROR"
        assert f"error: pod tesk-{task['id']}-executor-0: evicted: " in lines(task)
        assert "ephemeral local storage" in lines(task)


def second_node(cluster: Cluster, name: str) -> None:
    """A node that is there by its own account but runs nothing, for pods that want a node of its name."""
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {ONCE: name}}})
    say_ready(cluster, name)


def say_ready(cluster: Cluster, name: str) -> None:
    """As a kubelet does every few seconds: a node of which nothing is heard for 40 s gets no pods."""
    room = {"cpu": "4", "memory": "4Gi", "pods": "20"}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "ready",
        "lastHeartbeatTime": now(),
    }
    status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


@contextlib.asynccontextmanager
async def ready(cluster: Cluster, name: str) -> AsyncIterator[None]:
    """Keeps a node ready that runs nothing."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(5)
            await asyncio.to_thread(say_ready, cluster, name)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait([beating])


@pytest.mark.parametrize("settings", [AUTO], indirect=True)
async def test_a_task_whose_node_is_lost_runs_on_another(tesk: Tesk, place: KubernetesPlace) -> None:
    cluster, other = place.cluster, node(place.cluster)["metadata"]["name"]

    async def lost(strike: Callable[[str], Any], words: str, mode: str) -> None:
        name = f"lost-{uuid.uuid4().hex[:8]}"
        await asyncio.to_thread(second_node, cluster, name)
        try:
            async with ready(cluster, name):
                task_id = await tesk.create(
                    executors=[sh("echo ran")],
                    resources={"backend_parameters": {f"node_selector.{ONCE}": name, **MODES[mode]}},
                )
                await tesk.until(task_id, lambda task: task["state"] == "INITIALIZING")
            await asyncio.to_thread(strike, name)
            await tesk.until(task_id, lambda task: len(task["logs"]) == 2)
            async with here:
                cluster.kubectl("label", "node", other, f"{ONCE}={name}", "--overwrite")
                task = await tesk.ended(task_id)
                cluster.kubectl("label", "node", other, f"{ONCE}-")
        finally:
            cluster.kubectl("delete", "node", name, "--ignore-not-found")
        assert task["state"] == "COMPLETE"
        assert [[log["stdout"] for log in attempt["logs"]] for attempt in task["logs"]] == [[], ["ran\n"]]
        pod = f"tesk-{task_id}" if mode == "pod" else f"tesk-{task_id}-executor-0"
        said = task["logs"][0]["system_logs"][-1]
        unseen = f"error: pod {pod} is gone: somebody deleted it, or it was drained or lost with its node"
        assert said.startswith((f"error: pod {pod}: {words}", unseen))

    def taint(name: str) -> None:
        cluster.kubectl("taint", "node", name, "lost=yes:NoExecute")

    def delete(name: str) -> None:
        cluster.kubectl("delete", "node", name)

    here = asyncio.Lock()
    await asyncio.gather(
        *(lost(taint, "its node was lost or tainted", mode) for mode in MODES),
        *(lost(delete, "its node was lost: PodGC: node no longer exists", mode) for mode in MODES),
    )


@pytest.mark.parametrize("settings", [{"start_timeout_s": 30.0}], indirect=True)
async def test_what_a_task_needs_and_somebody_deleted_is_named(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    async def without(kind: str, words: str) -> None:
        held = sh(f"wget -q -O /dev/null {doors.url}/{kind}")
        task_id = await tesk.create(volumes=["/v"], executors=[held, sh("echo never")])
        await reached(doors, kind)
        place.cluster.kubectl("-n", place.namespace, "delete", kind, f"tesk-{task_id}", "--wait=false")
        doors.open(kind)
        task = await tesk.ended(task_id)
        assert task["state"] == "SYSTEM_ERROR"
        assert words in lines(task)
        assert "given up after 30 s, start_timeout_s" in lines(task)
        assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [0]

    await asyncio.gather(
        without("persistentvolumeclaim", 'error: executor 1: 0/1 nodes are available: persistentvolumeclaim "tesk-'),
        without("secret", "error: executor 1: FailedMount: "),
    )
