"""A tesk in a namespace of its own, for what concerns a whole namespace: quotas, policies, defaults, storage."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from tests.engines import strikes
from tests.engines.places import KubernetesPlace
from tests.engines.running import SHORT_S, Tesk, started
from tests.servers import cluster as clusters
from tests.servers.cluster import Object


@contextlib.asynccontextmanager
async def alone(
    near: KubernetesPlace,
    folder: Path,
    *,
    security: str = "baseline",
    objects: tuple[Object, ...] = (),
    **settings: Any,
) -> AsyncIterator[tuple[Tesk, str]]:
    """(a running tesk, its namespace) on the cluster of another place; a test fails that leaves anything behind.

    `objects` are put into the namespace first, `settings` changed from those of the place.
    """
    folder.mkdir(parents=True)
    cluster = near.cluster
    with clusters.namespace(cluster, security) as namespace:
        clusters.share(cluster, namespace, folder)
        if objects:
            cluster.apply(*({**each, "metadata": {**each["metadata"], "namespace": namespace}} for each in objects))
            await asyncio.to_thread(strikes.await_quotas, cluster, namespace)
        place = KubernetesPlace(cluster, namespace, folder, {})
        (folder / "data").mkdir()
        chosen = msgspec.structs.replace(place.settings(folder / "data"), **settings)
        async with started(chosen) as tesk:
            yield tesk, namespace
            assert await place.leftovers(chosen) == []


def lines(task: dict[str, Any]) -> str:
    """What the system logs say, of all attempts."""
    return "\n".join(line for log in task["logs"] for line in log.get("system_logs") or [])


async def waits_for(tesk: Tesk, task_id: str, words: str, seconds: float = SHORT_S) -> dict[str, Any]:
    """The task once its system logs say that it waits for this."""
    found = await tesk.until(task_id, lambda task: task["state"].endswith("ERROR") or words in lines(task), seconds)
    assert "waiting: " in lines(found), found["logs"]
    assert words in lines(found)
    return found
