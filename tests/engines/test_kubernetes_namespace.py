"""A namespace as institutes have them: LimitRanges, quotas on limits, webhooks that add containers to every pod."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.engines.alone import alone, lines
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.engines.running import Document, Tesk, content, sh
from tests.servers import containers, webhook
from tests.servers.cluster import Object

pytestmark = pytest.mark.places(*KUBERNETES)


def whole(tesk: Tesk, **more: Any) -> Document:
    """A task with a pod of every role."""
    url = f"{tesk.settings.file_roots[0]}/copy"
    return {
        "inputs": [content("/in/a", "words\n")], "outputs": [{"path": "/out/a", "url": url}],
        "executors": [sh("cat /in/a | tee /out/a")], **more,
    }  # fmt: skip


def has_run(task: Document) -> None:
    assert (task["state"], lines(task)) == ("COMPLETE", ""), task["logs"]
    assert [each["stdout"] for each in task["logs"][0]["logs"]] == ["words\n"]


def limit_range(*limits: Object) -> Object:
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "lab"}, "spec": {"limits": [*limits]}}


def quota(**hard: str) -> Object:
    named = {name.replace("_", "."): value for name, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "lab"}, "spec": {"hard": named}}


DEFAULTS = (
    {
        "type": "Container", "default": {"cpu": "20m", "memory": "20Mi"},
        "max": {"cpu": "2", "memory": "2Gi", "tesk.test/none": "4"},
    },
    {"type": "PersistentVolumeClaim", "min": {"storage": "200Mi"}},
)  # fmt: skip
BOUNDS = (
    {
        "type": "Container", "min": {"cpu": "60m", "memory": "70Mi"}, "max": {"cpu": "300m", "memory": "300Mi"},
        "maxLimitRequestRatio": {"cpu": "1500m", "memory": "1500m"},
    },
    {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
)  # fmt: skip
POD = {
    "type": "Pod", "min": {"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "1Mi"},
    "max": {"cpu": "600m", "memory": "400Mi", "ephemeral-storage": "1Gi"}, "maxLimitRequestRatio": {"memory": "3"},
}  # fmt: skip


async def test_tasks_fit_into_what_a_namespace_allows_and_what_forbids_the_others_is_named(
    place: KubernetesPlace, tmp_path: Path
) -> None:
    async def runs(name: str, *objects: Object, resources: Object | None = None) -> None:
        async with alone(place, tmp_path / name, objects=objects) as (tesk, _):
            has_run(await tesk.run(**whole(tesk, resources=resources or {})))

    async def runs_or_is_refused() -> None:
        bounds = limit_range(*BOUNDS)
        async with alone(place, tmp_path / "bounds", objects=(bounds,), default_disk_gb=2.0) as (tesk, _):
            fits, large, huge = await asyncio.gather(
                tesk.run(**whole(tesk, resources={"cpu_cores": 0.1, "ram_gb": 0.1})),
                tesk.run(**whole(tesk, resources={"ram_gb": 1})),
                tesk.run(**whole(tesk, resources={"disk_gb": 2})),
            )
        has_run(fits)
        for task, words in (
            (large, "maximum memory usage per Container is 300Mi, but limit is 1Gi"),
            (huge, "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"),
        ):
            assert task["state"] == "SYSTEM_ERROR"
            assert words in lines(task)
            assert lines(task).endswith("; LimitRange lab")

    await asyncio.gather(
        runs("defaults", limit_range(*DEFAULTS)),
        runs_or_is_refused(),
        runs("pod", limit_range(POD), quota(limits_cpu="4", limits_memory="4Gi", requests_cpu="4")),
    )


def added(name: str, script: str, **more: Any) -> Object:
    """A container as a webhook adds it."""
    resources = {"requests": {"cpu": "1m", "memory": "8Mi"}}
    context = {"runAsUser": 1337}
    command = ["sh", "-c", script]
    return {
        "name": name, "image": containers.IMAGE, "command": command, "resources": resources,
        "securityContext": context, **more,
    }  # fmt: skip


SIDECARS: list[Object] = [
    {"op": "add", "path": "/spec/containers/0", "value": added("proxy", "trap '' TERM; while :; do sleep 1; done")},
    {
        "op": "add", "path": "/spec/initContainers",
        "value": [
            added("first", "true"),
            added("agent", "trap exit TERM; while :; do sleep 1; done", restartPolicy="Always"),
        ],
    },
]  # fmt: skip


async def test_sidecars_that_never_end_neither_hold_a_task_up_nor_its_room(
    place: KubernetesPlace, tmp_path: Path
) -> None:
    """There is room for two pods, the taskmaster's and one more."""
    async with alone(place, tmp_path / "alone", objects=(quota(pods="2"),)) as (tesk, namespace):
        with webhook.injecting(place.cluster, namespace, tmp_path, SIDECARS) as roles:
            has_run(await tesk.run(**whole(tesk)))
    asked = dict.fromkeys(role for role in roles if role != "probe")  # what came too late is asked for again
    assert [*asked] == ["taskmaster", "inputs", "executor", "outputs"]
