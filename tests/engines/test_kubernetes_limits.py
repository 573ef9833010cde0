"""Limits: more than the cluster has, quotas, time, memory."""

import asyncio
import base64
import random
from pathlib import Path

import pytest

from tesk.identity import SERVER
from tests.engines.alone import alone, lines, waits_for
from tests.engines.gates import Gates, reached
from tests.engines.places import BOTH, KUBERNETES, KubernetesPlace
from tests.engines.running import Tesk, content, running, sh
from tests.engines.strikes import delete
from tests.engines.test_kubernetes_disruptions import delete as delete_pod
from tests.servers.cluster import Cluster, Object

pytestmark = pytest.mark.places(*KUBERNETES)

TOO_LARGE = {"executors": [sh("echo never")], "resources": {"ram_gb": 4000}}
TOO_MANY_CORES = {"executors": [sh("echo never")], "inputs": [content("/in/a")], "resources": {"cpu_cores": 1000}}


async def test_a_task_that_is_too_large_for_every_node_waits_with_the_schedulers_words(tesk: Tesk) -> None:
    ids = [await tesk.create(**TOO_LARGE), await tesk.create(**TOO_MANY_CORES)]
    words = [
        "waiting: executor 0: 0/1 nodes are available: 1 Insufficient memory",
        "waiting: inputs: 0/1 nodes are available: 1 Insufficient cpu",
    ]
    for task_id, expected in zip(ids, words, strict=True):
        assert (await waits_for(tesk, task_id, expected))["state"] == "QUEUED"
        await tesk.dispatcher.cancel(task_id, SERVER)
        assert (await tesk.ended(task_id))["state"] == "CANCELED"


@pytest.mark.places(*BOTH)
@pytest.mark.parametrize("settings", [{"schedule_timeout_s": 10.0}], indirect=True)
async def test_room_is_waited_for_no_longer_than_configured(tesk: Tesk) -> None:
    for task in await asyncio.gather(tesk.run(**TOO_LARGE), tesk.run(**TOO_MANY_CORES)):
        assert task["state"] == "SYSTEM_ERROR"
        assert "1 Insufficient" in lines(task)
        assert "given up after 10 s, schedule_timeout_s" in lines(task)


@pytest.mark.parametrize("settings", [{"executor_timeout_s": 30.0, "grace_s": 600.0}], indirect=True)
async def test_what_is_written_after_term_is_kept_where_the_pod_goes_before_its_end(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    told = f"echo told; wget -q -O /dev/null {doors.url}/told"
    task_id = await tesk.create(executors=[sh(f"trap '{told}' TERM; while :; do sleep 0.1; done")])
    await reached(doors, "told")
    await tesk.has_written(task_id, "told\n")
    await asyncio.sleep(15)  # the taskmaster reads it twice a second, and nothing shows when it has
    await asyncio.to_thread(delete, place, "pod", f"tesk-{task_id}-executor-0", at_once=True)
    task = await tesk.ended(task_id)
    assert task["state"] == "EXECUTOR_ERROR"
    (log,) = task["logs"][0]["logs"]
    assert (log["exit_code"], log["stdout"]) == (137, "told\n")


@pytest.mark.places(*BOTH)
@pytest.mark.parametrize("settings", [{"allowed_backend_parameters": ("executor_timeout_s",)}], indirect=True)
async def test_a_task_may_set_its_own_time_limit_where_that_is_allowed(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("sleep 3600")], resources={"backend_parameters": {"Executor_Timeout_S": "0.5"}})
    assert task["state"] == "EXECUTOR_ERROR"
    assert "ended after its time limit of 0.5 s" in lines(task)


@pytest.mark.places(*BOTH)
async def test_a_task_that_is_too_large_for_the_cluster_ends_with_its_words(tesk: Tesk) -> None:
    noise = base64.b64encode(random.Random(0).randbytes(1_250_000)).decode()
    task = await tesk.run(executors=[sh("echo never", env={"NOISE": noise})])
    assert (task["state"], task["logs"][0]["logs"]) == ("SYSTEM_ERROR", [])
    assert "error: the cluster refused it: etcdserver: request is too large" in lines(task)


def quota(**hard: str) -> Object:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": hard}}


def grant(cluster: Cluster, namespace: str, **hard: str) -> None:
    raised = quota(**hard)
    cluster.apply({**raised, "metadata": {**raised["metadata"], "namespace": namespace}})


QUOTAS: list[tuple[str, dict[str, str], str]] = [
    ("taskmaster", {"pods": "0"}, "pods=1, used: pods=0, limited: pods=0"),
    ("taskmaster", {"pods": "1"}, "pods=1, used: pods=1, limited: pods=1"),
    ("taskmaster", {"persistentvolumeclaims": "1"}, "persistentvolumeclaims=1, used: persistentvolumeclaims=1"),
    ("taskmaster", {"count/secrets": "0"}, "count/secrets=1, used: count/secrets=0"),
    ("taskmaster", {"count/configmaps": "1"}, ""),
    ("pod", {"pods": "0"}, "pods=1, used: pods=0, limited: pods=0"),
    ("pod", {"count/secrets": "0"}, "count/secrets=1, used: count/secrets=0"),
]
"""By mode: what there is room for (a namespace has a configmap and a claim from the start), and how that is said."""


async def test_a_task_waits_for_room_in_a_quota_and_runs_when_there_is(place: KubernetesPlace, tmp_path: Path) -> None:
    async def wait_for_room(number: int, mode: str, few: dict[str, str], words: str) -> None:
        async with alone(place, tmp_path / f"{number}", objects=(quota(**few),), mode=mode) as (tesk, namespace):
            task_id = await tesk.create(executors=[sh("true")], inputs=[content("/in/a")])
            if words:
                words = f"exceeded quota: few, requested: {words}"
                assert (await waits_for(tesk, task_id, words))["state"] == "QUEUED"
            else:  # without a record nobody can say it
                await asyncio.sleep(5)
                assert (await tesk.task(task_id))["state"] == "QUEUED"
            grant(place.cluster, namespace, **dict.fromkeys(few, "9"))
            task = await tesk.ended(task_id)
            assert task["state"] == "COMPLETE"
            assert not lines(task)

    await asyncio.gather(*(wait_for_room(number, *case) for number, case in enumerate(QUOTAS)))


async def test_a_further_attempt_waits_for_room_in_a_quota_and_says_so(
    place: KubernetesPlace, tmp_path: Path, doors: Gates
) -> None:
    alone_there = alone(place, tmp_path / "alone", objects=(quota(pods="1"),), mode="pod", retries=1)
    async with alone_there as (tesk, namespace):
        task_id = await tesk.create(executors=[sh(f"wget -q -O - {doors.url}/on")])
        await reached(doors, "on")
        await tesk.until(task_id, running)
        grant(place.cluster, namespace, pods="0")
        await asyncio.to_thread(delete_pod, place.cluster, namespace, f"tesk-{task_id}")
        told = await waits_for(tesk, task_id, "waiting: another attempt could not be made yet: ")
        assert told["state"] == "RUNNING"
        assert "exceeded quota: few, requested: pods=1" in lines(told)
        grant(place.cluster, namespace, pods="9")
        doors.open_all()
        task = await tesk.ended(task_id)
        assert (task["state"], len(task["logs"])) == ("COMPLETE", 2), lines(task)
        assert "waiting: " not in lines(task)
