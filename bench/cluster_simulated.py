"""Simulated nodes (kwok): objects that are scheduled, started and ended like pods, without any container.

So thousands of tasks show what the server and the cluster's API can do, where one machine could not run them.
"""

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.servers.cluster import CACHE, Cluster

NODES = 20
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
LABEL = {"bench": "simulated"}
SETTINGS = {"node_selector": ["bench=simulated"], "tolerations": ["kwok.x-k8s.io/node=fake:NoSchedule"]}
"""What puts tesk's pods on simulated nodes, and SPEC what puts others there."""
SPEC: dict[str, Any] = {"nodeSelector": LABEL, "tolerations": [{**TAINT, "operator": "Equal"}]}
STAGES = ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease", "pod/fast/pod-ready")
ENDS, DELETES = "pod/fast/pod-complete", "pod/fast/pod-delete"


@contextlib.asynccontextmanager
async def nodes(cluster: Cluster, folder: Path, *, ending: bool) -> AsyncIterator[None]:
    """Simulated nodes; pods of Jobs run there, and with `ending` come to their end at once."""
    found = sorted((CACHE / "cluster" / "tools").glob("kwok-*"))
    assert found, "kwok is missing: scripts/cluster build VERSION kwok"
    stages = [*STAGES, *([ENDS] if ending else []), DELETES]
    command = [
        str(found[-1] / "kwok"), f"--kubeconfig={cluster.kubeconfig}", "--node-lease-duration-seconds=40",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        *(f"--config={found[-1]}/stage/{stage}.yaml" for stage in stages),
    ]  # fmt: skip
    names = [f"simulated-{number}" for number in range(NODES)]
    with (folder / "kwok.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=log, stderr=log)
    try:
        await asyncio.to_thread(cluster.apply, *(_node(name) for name in names))
        ready = ("wait", "node", *names, "--for=condition=Ready", "--timeout=60s")
        await asyncio.to_thread(cluster.kubectl, *ready)
        yield
        await asyncio.to_thread(cluster.kubectl, "delete", "node", *names)
    finally:
        process.terminate()
        await process.wait()


def _node(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": LABEL, "annotations": {"kwok.x-k8s.io/node": "fake"}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": [TAINT]}}
