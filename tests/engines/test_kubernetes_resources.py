"""What a task asks for and what the operator adds to it, seen on the real pods; what is refused, seen by HTTP."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tesk.server.app import create_app
from tesk.settings import Settings
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.engines.running import Tesk, cancelled, content, sh, started
from tests.servers.cluster import Object
from tests.servers.silent import Silent

pytestmark = pytest.mark.places(*KUBERNETES)

GPU = "tesk.test/gpu"
HOST = "kubernetes.io/hostname"
PARAMETERS = ("priority_class", "gpu", "runtime_class", "service_account", f"node_selector.{HOST}")


class Lab:
    """What an operator has set up: a node with GPUs, classes, accounts. Names are `name`."""

    def __init__(self, place: KubernetesPlace) -> None:
        self.name = place.namespace
        self._cluster = place.cluster
        self.node, self.storage_class = self._first("nodes"), self._first("storageclasses")

    def objects(self) -> list[Object]:
        anywhere, here = {"name": self.name}, {"name": self.name, "namespace": self.name}
        return [
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": anywhere, "value": 7},
            {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": anywhere, "handler": "runc"},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": here, "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": '{"auths": {}}'},
            },
        ]  # fmt: skip

    def _first(self, kind: str) -> str:
        found = json.loads(self._cluster.kubectl("get", kind, "-o", "json"))["items"]
        return str(found[0]["metadata"]["name"])

    def advertise(self, *operations: Object) -> None:
        patch = json.dumps(operations)
        self._cluster.kubectl("patch", "node", self.node, "--subresource=status", "--type=json", "-p", patch)

    @contextlib.contextmanager
    def open(self) -> Iterator["Lab"]:
        path = f"/status/capacity/{GPU.replace('/', '~1')}"
        self._cluster.apply(*self.objects())
        self.advertise({"op": "add", "path": path, "value": "4"})
        try:
            yield self
        finally:
            self.advertise({"op": "remove", "path": path})
            self._cluster.kubectl("delete", f"priorityclass/{self.name}", f"runtimeclass/{self.name}")


@pytest.fixture(scope="module")
def lab(place: KubernetesPlace) -> Iterator[Lab]:
    with Lab(place).open() as there:
        yield there


@pytest.fixture
def settings(place: KubernetesPlace, tmp_path: Path, lab: Lab) -> Settings:
    (tmp_path / "data").mkdir()
    return msgspec.structs.replace(
        place.settings(tmp_path / "data"), labels=("team=lab", "example.org/cost=42"), annotations=("note=a b=c",),
        node_selector=("kubernetes.io/os=linux",), tolerations=("tasks=only:NoSchedule",),
        preemptible_node_selector=(f"{HOST}={lab.node}",), preemptible_tolerations=("spot",), zone_label=HOST,
        image_pull_secrets=(lab.name,), gpu_resource=GPU, allowed_backend_parameters=PARAMETERS, cpu_limit="none",
        storage_class=lab.storage_class, max_cpu_cores=4.0, max_ram_gb=8.0, max_disk_gb=16.0,
    )  # fmt: skip


@pytest.fixture
async def client(tesk: Tesk) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks HTTP with the server's own application."""
    app = create_app(
        tesk.settings, tesk.store, tesk.dispatcher, parameters=tesk.engine.backend_parameters, rules=tesk.rules
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/ga4gh/tes/v1") as http:
        yield http


async def test_what_is_asked_for_is_on_the_pods(
    settings: Settings, place: KubernetesPlace, lab: Lab, silent_server: Silent
) -> None:
    resources = {
        "cpu_cores": 0.15, "ram_gb": 0.0625, "disk_gb": 0.25, "preemptible": True, "zones": [lab.node, "elsewhere"],
        "backend_parameters": {
            "priority_class": lab.name, "runtime_class": lab.name, "service_account": lab.name, "gpu": "3",
            f"node_selector.{HOST}": lab.node,
        },
    }  # fmt: skip
    async with started(settings) as tesk:
        task_id = await tesk.create(
            executors=[sh("cat /in/a > /out/a")], inputs=[content("/in/a")], resources=resources,
            outputs=[{"path": "/out/a", "url": f"http://{silent_server.address}/a"}],
        )  # fmt: skip
        await silent_server.visited()
        found = {
            kind: await asyncio.to_thread(place.cluster.get, place.namespace, kind, f"tesk/task={task_id}")
            for kind in ("pods", "jobs", "secrets", "configmaps", "persistentvolumeclaims")
        }
        await cancelled(tesk, place, task_id)
        assert await place.leftovers(settings) == []
    for each in itertools.chain(*found.values()):
        metadata = each["metadata"]
        assert {"team": "lab", "example.org/cost": "42", "tesk/task": task_id}.items() <= metadata["labels"].items()
        assert metadata["annotations"]["note"] == "a b=c"
    (claim,) = found["persistentvolumeclaims"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "256Mi"
    assert claim["spec"]["storageClassName"] == lab.storage_class
    pods = {pod["metadata"]["labels"]["tesk/role"]: pod["spec"] for pod in found["pods"]}
    assert pods.keys() == {"taskmaster", "inputs", "executor", "outputs"}
    only = {"key": "tasks", "operator": "Equal", "value": "only", "effect": "NoSchedule"}
    for spec in pods.values():
        assert spec["imagePullSecrets"] == [{"name": lab.name}]
        assert spec["nodeSelector"]["kubernetes.io/os"] == "linux"
        assert only in spec["tolerations"]
    assert HOST not in pods.pop("taskmaster")["nodeSelector"]
    for role, spec in pods.items():
        assert spec["nodeSelector"][HOST] == lab.node
        assert {"key": "spot", "operator": "Exists"} in spec["tolerations"]
        assert (spec["priorityClassName"], spec["runtimeClassName"]) == (lab.name, lab.name)
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = required["nodeSelectorTerms"]
        assert term["matchExpressions"] == [{"key": HOST, "operator": "In", "values": [lab.node, "elsewhere"]}]
        bound = [{"key": "metadata.name", "operator": "In", "values": [lab.node]}]
        assert term.get("matchFields") == (None if role == "inputs" else bound)
    container = next(each for each in pods["executor"]["containers"] if each["name"] == "executor")
    assert container["resources"] == {
        "requests": {"cpu": "150m", "memory": "64Mi", GPU: "3"}, "limits": {"memory": "64Mi", GPU: "3"},
    }  # fmt: skip
    assert pods["executor"]["serviceAccountName"] == lab.name


async def test_what_may_be_asked_for_is_told_and_anything_else_is_dropped_or_refused(
    tesk: Tesk, client: httpx.AsyncClient
) -> None:
    info = (await client.get("/service-info")).json()
    assert info["tesResources_backend_parameters"] == sorted([*PARAMETERS, "entrypoint", "shm_size"])

    def document(**resources: Any) -> dict[str, Any]:
        return {"executors": [sh("true")], "resources": resources}

    answer = await client.post("/tasks", json=document(backend_parameters={"vm_size": "9"}))
    task = await tesk.ended(answer.json()["id"])
    assert task["state"] == "COMPLETE"
    assert task["logs"][0]["system_logs"] == ["warning: backend parameter 'vm_size' is not supported and was ignored"]
    strict = document(backend_parameters={"vm_size": "9"}, backend_parameters_strict=True)
    answer = await client.post("/tasks", json=strict)
    assert answer.status_code == 400
    assert "resources.backend_parameters.vm_size" in answer.text
    for name, most in (("cpu_cores", 4), ("ram_gb", 8), ("disk_gb", 16)):
        answer = await client.post("/tasks", json=document(**{name: most + 0.5}))
        assert answer.status_code == 400
        assert f"resources.{name}: {most + 0.5:g} is more than the {most} that this server allows" in answer.text
