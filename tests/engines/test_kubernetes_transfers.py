"""Inputs and outputs that cannot be moved, and a scratch volume that is full: what the user is told, what has run."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.alone import alone, lines
from tests.engines.places import BOTH, KUBERNETES, KubernetesPlace
from tests.engines.running import Tesk, content, sh
from tests.servers.cluster import Cluster, Object
from tests.servers.nginx import nginx
from tests.servers.process import refusing

pytestmark = pytest.mark.places(*KUBERNETES)

MIB = 1024 * 1024


@pytest.fixture
def down(cluster: Cluster) -> Iterator[str]:
    """An address at which nobody listens."""
    with refusing(cluster.host) as port:
        yield f"{cluster.host}:{port}"


@pytest.fixture(scope="module")
def web(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web server that lets in `reader` alone."""
    with nginx(tmp_path_factory.mktemp("web") / "root", user="reader", password="passw0rd", also=cluster.host) as url:
        yield url.removeprefix("http://")


@pytest.mark.places(*BOTH)
async def test_an_input_that_cannot_be_had_is_named_with_the_answer_and_nothing_runs(
    tesk: Tesk, web: str, down: str
) -> None:
    faults = {
        f"http://reader:passw0rd@{web}/missing": f"input http://{web}/missing: not found (404) by http://{web}",
        f"http://reader:wrong@{web}/secret": f"input http://{web}/secret: access denied (401) by http://{web}",
        f"http://{down}/a?key=hidden": f"input http://{down}/a?…: http://{down} cannot be reached (Connection refused)",
        "http://no.such.host.invalid/a": "input http://no.such.host.invalid/a: the name in",
        "/etc/passwd": "input /etc/passwd: ",
    }

    async def fails(url: str, words: str) -> None:
        task = await tesk.run(inputs=[{"url": url, "path": "/in/a"}], executors=[sh("echo never")])
        assert task["state"] == "SYSTEM_ERROR"
        assert words in lines(task)
        assert task["logs"][0]["logs"] == []
        assert not [secret for secret in ("passw0rd", "wrong", "hidden") if secret in lines(task)]

    await asyncio.gather(*(fails(url, words) for url, words in faults.items()))


@pytest.mark.places(*BOTH)
async def test_a_refused_output_is_named_with_the_answer_and_the_executors_logs_stay(
    tesk: Tesk, web: str, down: str
) -> None:
    async def pushed(url: str, code: int) -> dict[str, Any]:
        script = f"echo done; echo result > /out/a; exit {code}"
        return await tesk.run(executors=[sh(script)], outputs=[{"url": url, "path": "/out/a"}])

    denied, away, failed = await asyncio.gather(
        pushed(f"http://reader:wrong@{web}/a", 0), pushed(f"http://{down}/a", 0), pushed(f"http://{web}/a", 3)
    )
    assert (denied["state"], away["state"]) == ("SYSTEM_ERROR", "SYSTEM_ERROR")
    assert f"output http://{web}/a: access denied (401) by http://{web}" in lines(denied)
    assert f"output http://{down}/a: http://{down} cannot be reached (Connection refused)" in lines(away)
    assert (failed["state"], failed["logs"][0]["logs"][0]["exit_code"]) == ("EXECUTOR_ERROR", 3)
    assert "access denied (401)" in lines(failed)
    for task in (denied, away, failed):
        assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["done\n"]
        assert task["logs"][0]["outputs"] == []


def small_volume(cluster: Cluster, name: str) -> list[Object]:
    """A storage class with one volume that holds 2 MiB, whatever it claims."""
    path = f"/run/cluster/{name}"
    cluster.on_node("mkdir", "-p", path)
    cluster.on_node("mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", path)
    return [
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "storageClassName": name, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": path},
            },
        },
    ]  # fmt: skip


async def test_a_full_scratch_volume_is_named_and_half_a_file_is_no_output(
    place: KubernetesPlace, tmp_path: Path
) -> None:
    cluster = place.cluster

    async def on_a_small_volume(number: int, document: Callable[[Path], dict[str, Any]]) -> tuple[dict[str, Any], Path]:
        name = f"small-{uuid.uuid4().hex[:8]}-{number}"
        cluster.apply(*small_volume(cluster, name))
        try:
            async with alone(place, tmp_path / name, storage_class=name) as (tesk, _):
                shared = Path(tesk.settings.file_roots[0])
                (shared / "large").write_bytes(bytes(5 * MIB))
                return await tesk.run(**document(shared)), shared
        finally:
            cluster.kubectl("delete", "storageclass,persistentvolume", name, "--ignore-not-found")
            cluster.on_node("umount", "--lazy", f"/run/cluster/{name}")

    (staged, _), (written, _), (copied, shared) = await asyncio.gather(
        on_a_small_volume(
            1, lambda shared: {"inputs": [{"url": f"{shared}/large", "path": "/in/a"}], "executors": [sh("echo never")]}
        ),
        on_a_small_volume(2, lambda shared: filling("/out/a", shared)),
        on_a_small_volume(3, lambda shared: filling("/result", shared)),
    )
    assert (staged["state"], staged["logs"][0]["logs"]) == ("SYSTEM_ERROR", [])
    assert "no space left on device" in lines(staged)
    assert "ask for more disk_gb" in lines(staged)
    for task in (written, copied):
        log = task["logs"][0]["logs"]
        assert (task["state"], [entry["exit_code"] for entry in log]) == ("EXECUTOR_ERROR", [1])
        assert "No space left on device" in log[0]["stderr"]
    assert "could not copy /result" in copied["logs"][0]["logs"][0]["stderr"]
    assert [path.name for path in shared.iterdir()] == ["large"]


def filling(path: str, shared: Path) -> dict[str, Any]:
    """A task whose first executor writes 5 MiB to an output."""
    return {
        "inputs": [content("/in/a")],
        "executors": [sh(f"dd if=/dev/zero of={path} bs=1M count=5"), sh("echo never")],
        "outputs": [{"path": path, "url": f"{shared}/a"}],
    }
