"""`tesk debug task`: what a task's state on a real cluster comes from, and that a dump can be asked again."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import Any

import pytest

from tesk.places.kubernetes import debug
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.engines.running import sh
from tests.engines.serving import Server
from tests.servers.cluster import until

pytestmark = pytest.mark.places(*KUBERNETES)

NAMED = ("engine", "kubeconfig", "namespace", "instance", "image")


async def debugged(server: Server, task_id: str) -> dict[str, Any]:
    settings = {f"TESK_{name.upper()}": str(getattr(server.settings, name)) for name in NAMED}
    command = (sys.executable, "-m", "tesk", "debug", "task", task_id, "--server", server.url)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=os.environ | settings)
    async with asyncio.timeout(600):
        text, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(text))


def is_said_by_an_event(place: KubernetesPlace, pod: str) -> bool:
    """True once the scheduler has told of the pod in an event too, which comes after its condition."""
    events = place.cluster.get(place.namespace, "events")
    return any((each["involvedObject"]["name"], each["reason"]) == (pod, "FailedScheduling") for each in events)


async def test_a_task_that_waits_shows_the_pod_that_it_waits_for(server: Server, place: KubernetesPlace) -> None:
    task_id = await server.create({"executors": [sh("echo never")], "resources": {"ram_gb": 4000}})
    words = "executor 0: 0/1 nodes are available: 1 Insufficient memory"
    await server.until(task_id, lambda task: words in str(task.get("logs")))
    pod = f"tesk-{task_id}-executor-0"
    await asyncio.to_thread(until, lambda: is_said_by_an_event(place, pod), what=f"an event about {pod}")
    found = await debugged(server, task_id)
    assert words in found["assessment"]["waits_for"]
    assert found["stored"]["state"] == "QUEUED"
    pods = found["observed"]["pods"]
    assert pod in pods
    assert any(line.startswith(f"{pod}: FailedScheduling") for line in found["warnings"])
    assert debug.replay(found).waits_for == found["assessment"]["waits_for"]
    await server.cancel(task_id)
    await server.ended(task_id)
