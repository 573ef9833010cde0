"""What a cluster refuses: pods that no policy admits, names that are not there, volumes that never come."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import strikes
from tests.engines.alone import alone, lines, waits_for
from tests.engines.places import BOTH, KUBERNETES, KubernetesPlace
from tests.engines.running import Tesk, content, sh
from tests.servers.cluster import Cluster, Object

pytestmark = pytest.mark.places(*KUBERNETES)


@pytest.mark.parametrize(
    ("before", "mode"),
    [({}, "taskmaster"), ({"inputs": [content("/in/a")]}, "taskmaster"), ({}, "auto")],
    ids=["the first of its pods", "after its inputs", "its only one"],
)
async def test_a_pod_that_breaks_the_namespaces_security_standard_is_an_error_that_names_the_setting(
    place: KubernetesPlace, tmp_path: Path, before: dict[str, Any], mode: str
) -> None:
    async with alone(place, tmp_path / "alone", security="restricted", mode=mode) as (tesk, _):
        task = await tesk.run(executors=[sh("echo never")], **before)
    assert task["state"] == "SYSTEM_ERROR"
    assert 'is forbidden: violates PodSecurity "restricted:latest"' in lines(task)
    assert "set pod_security = restricted" in lines(task)
    assert task["logs"][0]["logs"] == []


def policy(name: str, role: str, message: str, **more: str) -> list[Object]:
    """A policy that lets no pod of a role into namespaces with a label of its name."""
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    expression = f"object.metadata.labels[?'tesk/role'].orValue('') != '{role}'"
    return [
        {
            "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": expression, "message": message, **more}],
            },
        },
        {
            "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"test/policy": name}}},
            },
        },
    ]  # fmt: skip


async def test_a_pod_that_a_policy_refuses_ends_the_task_with_the_policys_words(
    place: KubernetesPlace, tmp_path: Path
) -> None:
    cluster = place.cluster
    cases = [
        ("taskmaster", {}),
        ("inputs", {"reason": "Forbidden"}),
        ("executor", {"reason": "Forbidden"}),
        ("outputs", {"reason": "RequestEntityTooLarge"}),
        ("task", {"reason": "Forbidden"}),
    ]

    async def refused(role: str, more: dict[str, str]) -> None:
        name, message = f"no-{uuid.uuid4().hex[:8]}", f"one cannot use resource {role} here"
        cluster.apply(*policy(name, role, message, **more))
        try:
            mode = "pod" if role == "task" else "taskmaster"
            async with alone(place, tmp_path / name, mode=mode) as (tesk, namespace):
                cluster.kubectl("label", "namespace", namespace, f"test/policy={name}")
                await asyncio.to_thread(strikes.await_refusal, cluster, namespace, role, message)
                output = {"path": "/in/a", "url": f"{tesk.settings.file_roots[0]}/a"}
                task = await tesk.run(executors=[sh("echo ran")], inputs=[content("/in/a")], outputs=[output])
        finally:
            for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
                cluster.kubectl("delete", kind, name)
        assert task["state"] == "SYSTEM_ERROR"
        assert "error: the cluster refused it" in lines(task)
        assert f"denied request: {message}" in lines(task)
        assert [log["stdout"] for log in task["logs"][0]["logs"]] == (["ran\n"] if role == "outputs" else [])

    await asyncio.gather(*(refused(*case) for case in cases))


@pytest.mark.places(*BOTH)
async def test_a_webhook_that_cannot_be_reached_is_named_and_waited_for(tesk: Tesk, place: KubernetesPlace) -> None:
    with strikes.webhook_away(place.cluster, place.namespace, "task" if place.name == "pod" else "executor"):
        task_id = await tesk.create(executors=[sh("echo ran")])
        await waits_for(tesk, task_id, "waiting: Internal error occurred: failed calling webhook ")
    task = await tesk.ended(task_id)
    assert (task["state"], lines(task)) == ("COMPLETE", "")


NAMES = {
    "priority_class": "no PriorityClass with name nope was found; check the backend parameter priority_class",
    "service_account": 'serviceaccount "nope" not found; check the name of the service account',
    "runtime_class": 'RuntimeClass "nope" not found',
}


@pytest.mark.places(*BOTH)
@pytest.mark.parametrize("settings", [{"allowed_backend_parameters": tuple(NAMES)}], indirect=True)
async def test_a_name_that_the_cluster_does_not_know_ends_the_task_and_is_named(tesk: Tesk) -> None:
    async def refused(parameter: str, words: str) -> None:
        task = await tesk.run(executors=[sh("echo never")], resources={"backend_parameters": {parameter: "nope"}})
        assert task["state"] == "SYSTEM_ERROR"
        assert words in lines(task)

    await asyncio.gather(*(refused(*case) for case in NAMES.items()))


@pytest.mark.parametrize("settings", [{"taskmaster_service_account": "nope"}], indirect=True)
async def test_a_taskmaster_without_its_service_account_is_named_too(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("echo never")])
    assert task["state"] == "SYSTEM_ERROR"
    assert "the cluster refused its taskmaster: " in lines(task)
    assert 'serviceaccount "nope" not found; check the name of the service account' in lines(task)


def storage_class(name: str, provisioner: str, mode: str) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode,
    }  # fmt: skip


@pytest.fixture(scope="module")
def classes(cluster: Cluster) -> Iterator[str]:
    """The beginning of the names of storage classes of which no volume comes: -late, -now, -manual."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.apply(
        storage_class(f"{name}-late", "example.com/nobody", "WaitForFirstConsumer"),
        storage_class(f"{name}-now", "example.com/nobody", "Immediate"),
        storage_class(f"{name}-manual", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
    )
    yield name
    cluster.kubectl("delete", "storageclass", f"{name}-late", f"{name}-now", f"{name}-manual")


async def test_a_volume_that_does_not_come_is_said_while_it_is_waited_for_and_given_up_in_time(
    place: KubernetesPlace, tmp_path: Path, classes: str
) -> None:
    nobody = "created either by the external provisioner 'example.com/nobody'"
    cases = {
        "no-such-class": 'ProvisioningFailed: storageclass.storage.k8s.io "no-such-class" not found',
        f"{classes}-late": nobody,
        f"{classes}-now": nobody,
        f"{classes}-manual": "didn't find available persistent volumes to bind",
    }

    async def fails(name: str, words: str) -> None:
        async with alone(place, tmp_path / name, storage_class=name, start_timeout_s=60.0) as (tesk, _):
            task_id = await tesk.create(inputs=[content("/in/a")], executors=[sh("echo never")])
            assert (await waits_for(tesk, task_id, words))["state"] == "QUEUED"
            task = await tesk.ended(task_id)
        assert task["state"] == "SYSTEM_ERROR"
        assert "error: inputs: " in lines(task)
        assert words in lines(task)
        assert "given up after 60 s, start_timeout_s" in lines(task)

    await asyncio.gather(*(fails(*case) for case in cases.items()))


@pytest.mark.parametrize(
    "settings", [{"filer_mounts": ("/credentials=secret:nope",), "start_timeout_s": 60.0}], indirect=True
)
async def test_a_secret_that_cannot_be_mounted_is_named(tesk: Tesk) -> None:
    task_id = await tesk.create(inputs=[content("/in/a")], executors=[sh("echo never")])
    await waits_for(tesk, task_id, 'secret "nope" not found')
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR"
    assert "error: inputs: FailedMount: " in lines(task)
    assert 'secret "nope" not found (given up after 60 s, start_timeout_s)' in lines(task)
