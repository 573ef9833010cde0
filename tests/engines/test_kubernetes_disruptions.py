"""Pods that are taken away while they are at work: by hand, by eviction, by preemption, with their node."""

import asyncio
import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest

from tests.engines import strikes
from tests.engines.alone import lines
from tests.engines.gates import Gates, reached
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.engines.running import Tesk, content, sh
from tests.servers.cluster import Cluster, until
from tests.servers.holding import Holding

pytestmark = pytest.mark.places(*KUBERNETES)

Strike = Callable[[Cluster, str, str], Any]


def evict(cluster: Cluster, namespace: str, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(body))


def delete(cluster: Cluster, namespace: str, pod: str) -> None:
    cluster.kubectl("-n", namespace, "delete", "pod", pod, "--wait=false")


def remove(cluster: Cluster, namespace: str, pod: str) -> None:
    cluster.kubectl("-n", namespace, "delete", "pod", pod, "--wait=false", "--force", "--grace-period=0")


class Fault(NamedTuple):
    """What is done to the pod of a step while it is at work, and what the user is told."""

    step: str
    strike: Strike
    words: str


FAULTS = [
    Fault("executor-1", evict, "evicted, as when its node is drained: Eviction API: evicting"),
    Fault("executor-1", delete, "was deleted by somebody else"),
    Fault("executor-1", remove, "somebody"),
    Fault("inputs", delete, "was deleted by somebody else"),
    Fault("outputs", evict, "evicted, as when its node is drained: Eviction API: evicting"),
    Fault("outputs", remove, "somebody"),
]
ONE_IN_EACH_STEP = [FAULTS[0], FAULTS[3], FAULTS[5]]
"""A loss is a loss: what follows from it is a rule of tesk.life (tests/unit/test_life.py)."""


def held_in(step: str, url: str) -> dict[str, Any]:
    """A task that is held in one of its steps; its program ends well when it is told to end."""
    wait = f"trap 'exit 0' TERM; wget -q -O /dev/null {url} & wait $!"
    return {
        "inputs": [{"url": url, "path": "/work/a"} if step == "inputs" else content("/work/a")],
        "executors": [sh("echo first"), sh(f"echo second; {wait if step == 'executor-1' else ''}")],
        "outputs": [{"path": "/work/a", "url": url}] if step == "outputs" else [],
    }


async def struck(tesk: Tesk, place: KubernetesPlace, holding: Holding, fault: Fault) -> dict[str, Any]:
    path = uuid.uuid4().hex
    task_id = await tesk.create(**held_in(fault.step, f"{holding.url}/{path}"))
    await holding.reached(path)
    await asyncio.to_thread(fault.strike, place.cluster, place.namespace, f"tesk-{task_id}-{fault.step}")
    return await tesk.ended(task_id)


async def test_a_pod_that_is_taken_away_is_a_system_error_with_the_reason(
    tesk: Tesk, place: KubernetesPlace, holding: Holding
) -> None:
    async def fails(fault: Fault) -> None:
        task = await struck(tesk, place, holding, fault)
        assert task["state"] == "SYSTEM_ERROR"
        (log,) = task["logs"]
        assert f"error: pod tesk-{task['id']}-{fault.step}" in lines(task)
        assert fault.words in lines(task)
        ran = {"inputs": [], "executor-1": ["first\n"], "outputs": ["first\n", "second\n"]}[fault.step]
        assert [entry["stdout"] for entry in log["logs"]] == ran

    await asyncio.gather(*map(fails, FAULTS))


@pytest.mark.parametrize("settings", [{"retries": 1}], indirect=True)
async def test_with_a_retry_the_task_runs_again_as_a_further_entry(
    tesk: Tesk, place: KubernetesPlace, holding: Holding
) -> None:
    async def goes_on(fault: Fault) -> None:
        task = await struck(tesk, place, holding, fault)
        assert task["state"] == "COMPLETE", task["logs"]
        first, second = task["logs"]
        assert fault.words in "\n".join(first["system_logs"])
        assert first["system_logs"][-1].endswith("; trying again")
        assert "system_logs" not in second
        assert [(log["exit_code"], log["stdout"]) for log in second["logs"]] == [(0, "first\n"), (0, "second\n")]
        assert first["end_time"] <= second["start_time"]

    await asyncio.gather(*map(goes_on, ONE_IN_EACH_STEP))


@pytest.mark.parametrize("settings", [{"retries": 1}], indirect=True)
async def test_a_task_that_is_lost_more_often_than_it_may_be_retried_fails(
    tesk: Tesk, place: KubernetesPlace, holding: Holding
) -> None:
    task_id = await tesk.create(executors=[sh("sleep 3600")])
    for pod in (f"tesk-{task_id}-executor-0", f"tesk-{task_id}-2-executor-0"):
        await asyncio.to_thread(until, partial(is_there, place, pod))
        evict(place.cluster, place.namespace, pod)
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR"
    assert [log["system_logs"][-1].partition(": ")[0] for log in task["logs"]] == ["error", "error"]


async def test_a_disruption_that_is_announced_and_not_done_ends_nothing(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    """As when an eviction or a preemption is given up after the pod's condition was set."""
    task_id = await tesk.create(executors=[sh(f"wget -q -O - {doors.url}/on")])
    await reached(doors, "on")
    pod = f"tesk-{task_id}-executor-0"
    announced = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "by x"}
    patch = json.dumps({"status": {"conditions": [announced]}})
    place.cluster.kubectl("-n", place.namespace, "patch", "pod", pod, "--subresource=status", "-p", patch)
    await asyncio.sleep(1)
    doors.open_all()
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE", task["logs"]
    assert task["logs"][0]["logs"][0]["stdout"] == "on\n"


async def test_a_pod_whose_executor_was_killed_with_its_shim_makes_room_for_the_next(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    """As the kernel kills all of a container for want of memory (cgroup v2, memory.oom.group)."""
    first = sh(f"echo begun; wget -q -O - {doors.url}/first", ignore_error=True)
    task_id = await tesk.create(executors=[first, sh(f"wget -q -O - {doors.url}/second")])
    await reached(doors, "first")
    pod = f"tesk-{task_id}-executor-0"
    await asyncio.to_thread(strikes.kill, place, pod, "executor")
    await reached(doors, "second")
    await asyncio.to_thread(until, lambda: not is_there(place, pod), what=f"the end of pod {pod}")
    doors.open_all()
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE", task["logs"]
    assert [(log["exit_code"], log["stdout"]) for log in task["logs"][0]["logs"]] == [(137, "begun\n"), (0, "second\n")]


def is_there(place: KubernetesPlace, pod: str) -> bool:
    return bool(place.cluster.kubectl("-n", place.namespace, "get", "pod", pod, "--ignore-not-found", "-o", "name"))
