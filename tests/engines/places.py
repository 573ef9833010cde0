"""Where a tesk's tasks run in a test, and how to see what they have left there."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import aiodocker
import msgspec
from aiodocker.exceptions import DockerError

from tesk.places.local.containers import Containers
from tesk.places.local.place import instance
from tesk.settings import Settings
from tests.servers import cluster as clusters
from tests.servers import containers

LOCAL = ("podman", "docker")
KUBERNETES = ("kubernetes",)
LOOKED_AT = LOCAL + KUBERNETES
"""Where the images are looked at before anything is mounted or copied, and may be of any user."""
POD = ("pod",)
"""The same Kubernetes, where each task is one pod if it can be."""
BOTH = KUBERNETES + POD
RESTRICTED = ("restricted",)
"""A namespace that enforces the Pod Security Standard "restricted"."""
DISRUPTED = ("disrupted",)
"""A node of the test's own process, whose parts it may stop and break."""
OLDEST = ("oldest",)
"""The oldest Kubernetes: for the tests that are marked with it, besides their other places."""


HELD_S = 1800.0
"""A filer waits for so long at a gate of a test, as a program does."""


class Place(Protocol):
    """`name`: podman, docker or kubernetes. `host`: the address of this machine for filers and engines there."""

    name: str
    host: str

    def settings(self, folder: Path) -> Settings:
        """Settings of a tesk that keeps its data in `folder`, with one file root."""

    async def leftovers(self, settings: Settings) -> list[str]:
        """What a tesk has not removed within a while after its tasks' ends."""

    async def running(self, settings: Settings, task_id: str) -> list[str]:
        """Containers or pods of a task that there are now."""


class LocalPlace:
    """A container engine of this machine, by its socket."""

    host = "127.0.0.1"

    def __init__(self, name: str, socket: Path) -> None:
        self.name, self.socket = name, socket

    def settings(self, folder: Path) -> Settings:
        (folder / "shared").mkdir()
        return Settings(
            data=str(folder), engine_socket=str(self.socket), network="none", grace_s=1.0,
            file_roots=(f"{folder}/shared",), default_cpu_cores=0.5, default_ram_gb=0.1, transfer_retries=1,
            transfer_timeout_s=600.0,
        )  # fmt: skip

    async def leftovers(self, settings: Settings) -> list[str]:
        return await containers_and_folders(self.socket, Path(settings.data))

    async def running(self, settings: Settings, task_id: str) -> list[str]:
        found = await listed(self.socket, f"tesk.task={task_id}")
        return [str((container["Names"] or [container["Id"]])[0]) for container in found]


class KubernetesPlace:
    """A namespace of a cluster; file roots lie below `shared`, which is a claim there too. `more`: further settings."""

    name = "kubernetes"

    def __init__(self, cluster: clusters.Cluster, namespace: str, shared: Path, more: dict[str, Any]) -> None:
        self.cluster, self.namespace, self._shared, self._more = cluster, namespace, shared, more
        self.host = cluster.host

    def settings(self, folder: Path) -> Settings:
        root = self._shared / uuid.uuid4().hex
        root.mkdir()
        root.chmod(0o777)
        return Settings(
            data=str(folder), engine="kubernetes", kubeconfig=str(self.cluster.kubeconfig), namespace=self.namespace,
            image=clusters.PRODUCT, instance=root.name, grace_s=1.0, file_roots=(str(root),),
            filer_mounts=(f"{self._shared}=claim:shared",), cpu_limit="request", default_cpu_cores=0.05,
            default_ram_gb=0.03, default_disk_gb=0.1, transfer_retries=1, image_timeout_s=4.0, report_port=0,
            report_address=f"{self.host}:0", transfer_timeout_s=HELD_S, **self._more,
        )  # fmt: skip

    async def leftovers(self, settings: Settings) -> list[str]:
        of = f"app.kubernetes.io/instance={settings.instance}"
        return await asyncio.to_thread(clusters.leftovers, self.cluster, self.namespace, of=of)

    async def running(self, settings: Settings, task_id: str) -> list[str]:
        found = await asyncio.to_thread(self.cluster.get, self.namespace, "pods", f"tesk/task={task_id}")
        return [pod["metadata"]["name"] for pod in found]


class PodPlace(KubernetesPlace):
    """A namespace of a cluster in which each task is one pod, which reports to the tesk of the test."""

    name = "pod"

    def settings(self, folder: Path) -> Settings:
        return msgspec.structs.replace(super().settings(folder), mode="pod")


@contextlib.contextmanager
def local_place(name: str, folder: Path) -> Iterator[LocalPlace]:
    """A container engine that holds the tests' images."""
    start = containers.podman_service if name == "podman" else containers.docker_daemon
    with start(folder) as socket:
        asyncio.run(load_images(socket))
        yield LocalPlace(name, socket)


@contextlib.contextmanager
def kubernetes_place(
    cluster: clusters.Cluster, folder: Path, security: str = "baseline", kind: type[KubernetesPlace] = KubernetesPlace
) -> Iterator[KubernetesPlace]:
    with clusters.namespace(cluster, security) as namespace:
        clusters.share(cluster, namespace, folder)
        restricted = {"pod_security": "restricted", "run_as_user": 1000}
        yield kind(cluster, namespace, folder, restricted if security == "restricted" else {})


async def listed(socket: Path, *labels: str, not_running: bool = False) -> list[dict[str, Any]]:
    """The engine's containers with these labels that run, or all. Podman refuses the whole list when any container of
    the machine is removed meanwhile: it is asked again."""
    params = {"filters": json.dumps({"label": labels}), "all": str(not_running).lower()}
    async with aiodocker.Docker(url=f"unix://{socket}") as docker, asyncio.timeout(clusters.WAIT_S):
        while True:
            try:
                return list(await docker._query_json("containers/json", params=params, versioned_api=False))
            except DockerError as error:
                print(f"the list of containers: {error}")
            await asyncio.sleep(0.05)


async def load_images(socket: Path) -> None:
    """Gives the tests' images to an engine."""
    async with aiodocker.Docker(url=f"unix://{socket}") as docker:
        for name, options in containers.IMAGES.items():
            await docker.images.import_image(containers.image_archive(name, **options))


async def containers_and_folders(socket: Path, data: Path) -> list[str]:
    """Containers and folders of the local engine that are still there after a while."""
    listing = Containers(socket, instance(data))
    try:
        deadline = time.monotonic() + clusters.WAIT_S
        while True:
            left = [*await listing.names(), *(entry.name for entry in (data / "tasks").iterdir())]
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.04)
    finally:
        await listing.close()
