"""The one pod of a whole task: what the tests on a cluster cannot see, or would see too late."""

import random
import string
from typing import Any

import msgspec
import pytest

from tesk.kubernetes import manifests, names
from tesk.kubernetes.account import Account
from tesk.kubernetes.bounds import Bounds, Item, Range
from tesk.kubernetes.pod_layout import pod_layout
from tesk.kubernetes.task_pod import EARLIER_BYTES, PodAttempt, pack_earlier, task_pod, unpack_earlier
from tesk.kubernetes.task_settings import Mount, TaskSettings, Volume
from tesk.tes import Executor, ExecutorLog, Input, Output, Resources, Task, TaskLog

CLUSTER = TaskSettings(namespace="n", instance="i", image="tesk:1", grace_s=2.5)
ID = "0123456789abc"
ATTEMPT = PodAttempt(1, 1, "server:8480", "abc", "runs as one pod", account=Account("tesk-server", "u"))
ASKED = Resources(cpu_cores=2, ram_gb=1)


def task(count: int = 1, **fields: Any) -> Task:
    return Task(**{"executors": [Executor(f"image-{n}", ["program"]) for n in range(count)]} | fields)


def pod_of(given: Task, attempt: PodAttempt = ATTEMPT, **settings: Any) -> dict[str, Any]:
    return task_pod(ID, given, msgspec.structs.replace(CLUSTER, **settings), pod_layout(given), attempt)


def mounts_of(pod: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        each["name"]: {
            mount["mountPath"]: mount["name"] + "/" + mount.get("subPath", "") for mount in each["volumeMounts"]
        }
        for each in pod["spec"]["containers"]
    }


def test_a_pod_is_known_by_its_names_labels_and_annotations() -> None:
    found = pod_of(task(), PodAttempt(2, 1, "", "abc", "runs as one pod", (TaskLog(system_logs=["lost"]),)))
    metadata = found["metadata"]
    assert (metadata["name"], names.attempt_of_task_pod(metadata["name"])) == (f"tesk-{ID}-2", 2)
    assert metadata["labels"][names.ROLE] == names.TASK_POD
    assert metadata["annotations"][names.WORD_SHA256] == "abc"
    assert unpack_earlier(metadata["annotations"][names.EARLIER]) == (TaskLog(system_logs=["lost"]),)


def test_a_pod_ends_with_the_servers_account_and_its_executors_get_their_grace() -> None:
    found = pod_of(task())
    assert [owner["name"] for owner in found["metadata"]["ownerReferences"]] == ["tesk-server"]
    assert found["spec"]["restartPolicy"] == "Never"
    assert found["spec"]["terminationGracePeriodSeconds"] == 3


def test_executors_see_neither_the_word_nor_a_credential_nor_each_others_control_files() -> None:
    given = task(2, inputs=[Input(path="/mnt/in/a", content="x")], outputs=[Output(path="/mnt/out/b", url="s3://b/b")])
    mounts = (Mount("/credentials", secret="lab"), Mount("/refs", claim="refs"))
    found = pod_of(given, filer_mounts=mounts, filer_environment_secret="keys")
    own = mounts_of(found)
    scratch = {"/mnt/in": "scratch/mnt/in", "/mnt/out": "scratch/mnt/out"}
    for n in range(2):
        shared = {manifests.SHIM: "shim/", manifests.CONTROL: f"control/executor-{n}"}
        assert own[f"executor-{n}"] == shared | scratch
    assert own["runner"] == {
        manifests.TASK_FOLDER: "task/", manifests.SHIM: "shim/", manifests.CONTROL: "control/", "/tmp": "tmp/",
        manifests.SCRATCH: "scratch/", "/credentials": "mount-0/", "/refs": "mount-1/",
    }  # fmt: skip
    assert ["envFrom" in each for each in found["spec"]["containers"]] == [True, False, False]
    assert found["spec"]["automountServiceAccountToken"] is False


def test_executors_wait_for_their_turns_and_the_runner_comes_first() -> None:
    runner, *executors = pod_of(task(2))["spec"]["containers"]
    assert (runner["name"], runner["args"]) == ("runner", ["runner"])
    assert [each["name"] for each in executors] == ["executor-0", "executor-1"]
    assert all(each["command"][:2] == ["/.tesk/shim/shim", "wait"] for each in executors)
    assert [runner["securityContext"][of] for of in ("runAsNonRoot", "readOnlyRootFilesystem")] == [True, True]
    assert {each["name"]: each["value"] for each in runner["env"]} == {
        "TESK_POD": f"tesk-{ID}", "TESK_TASK": ID, "TESK_REPORT": "server:8480",
    }  # fmt: skip


def requests(pod: dict[str, Any]) -> list[tuple[str, str]]:
    found = [each["resources"]["requests"] for each in pod["spec"]["containers"]]
    return [(each["cpu"], each["memory"]) for each in found]


def test_what_a_task_asks_for_is_asked_for_once() -> None:
    found = pod_of(task(3, resources=ASKED))
    assert requests(found) == [("10m", "32Mi"), ("2000m", "1024Mi"), ("0", "0"), ("0", "0")]
    limits = [each["resources"]["limits"] for each in found["spec"]["containers"]]
    assert [each["memory"] for each in limits] == ["320Mi", *["1024Mi"] * 3]
    assert "resources" not in found["spec"]


def test_where_the_cluster_takes_it_the_pod_asks_as_a_whole() -> None:
    attempt = PodAttempt(1, 1, "", "abc", "", has_pod_resources=True)
    found = pod_of(task(2, resources=ASKED), attempt)
    assert found["spec"]["resources"] == {"requests": {"cpu": "2010m", "memory": "1056Mi"}}
    assert requests(found) == [("10m", "32Mi"), ("0", "0"), ("0", "0")]
    bounded = Bounds((Range("lab", (Item("Container", min={"cpu": "50m"}),)),))
    assert requests(pod_of(task(2, resources=ASKED), attempt, bounds=bounded))[0] == ("50m", "32Mi")


@pytest.mark.parametrize(
    ("disk_gb", "settings", "is_on_node"),
    [(1, {}, True), (100, {}, True), (101, {}, False), (None, {}, True), (1, {"storage_class": "fast"}, False)],
)
def test_scratch_is_on_the_node_unless_it_is_large_or_has_a_class(
    disk_gb: float | None, settings: dict[str, Any], is_on_node: bool
) -> None:
    given = task(volumes=["/mnt/v"], resources=Resources(disk_gb=disk_gb))
    spec = pod_of(given, **settings)["spec"]
    scratch = next(each for each in spec["volumes"] if each["name"] == "scratch")
    size = f"{int(disk_gb or 1) * 1024}Mi"
    asked = spec["containers"][0]["resources"]["requests"].get("ephemeral-storage")
    if is_on_node:
        assert (scratch["emptyDir"], asked) == ({"sizeLimit": size}, size)
        assert "fsGroup" not in spec["securityContext"]
    else:
        claim = scratch["ephemeral"]["volumeClaimTemplate"]["spec"]
        assert (claim["resources"]["requests"], asked) == ({"storage": size}, None)
        assert spec["securityContext"]["fsGroup"] == CLUSTER.own_user


def test_a_task_without_files_has_no_scratch_volume() -> None:
    assert "scratch" not in {each["name"] for each in pod_of(task())["spec"]["volumes"]}


def test_every_executor_has_a_shared_memory_of_its_own() -> None:
    own = mounts_of(pod_of(task(2, resources=ASKED)))
    assert [own[f"executor-{n}"]["/dev/shm"] for n in range(2)] == ["memory-0/", "memory-1/"]


@pytest.mark.parametrize(("attempts", "size"), [(1, 1000), (3, 60_000), (10, 60_000), (1000, 100)])
def test_what_is_known_of_earlier_attempts_has_room_in_an_annotation(attempts: int, size: int) -> None:
    noise = random.Random(1)
    logs = [
        TaskLog(
            [ExecutorLog(1, stdout="".join(noise.choices(string.printable, k=size)), stderr="")],
            system_logs=[f"lost {n}"],
        )
        for n in range(attempts)
    ]
    packed = pack_earlier(logs)
    assert len(packed) <= EARLIER_BYTES
    found = unpack_earlier(packed)
    assert (found[-1].system_logs, len(found)) == (
        [f"lost {attempts - 1}"],
        attempts if attempts < 1000 else len(found),
    )


@pytest.mark.parametrize("text", ["", "x", "AAAA", "eJwDAAAAAAE="])
def test_an_annotation_that_somebody_has_changed_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="earlier attempts"):
        unpack_earlier(text)


@pytest.mark.parametrize(
    ("name", "task_id", "attempt"),
    [
        (names.task_pod(ID), ID, 1),
        (names.task_pod(ID, 2), ID, 2),
        (names.task_pod(ID, 13), ID, 13),
        (names.secret(ID, 1), ID, 1),
        (names.pod(ID, names.EXECUTOR_ROLE, 2, executor=0), ID, None),
    ],
)
def test_a_name_tells_the_task_and_that_of_its_pod_the_attempt(name: str, task_id: str, attempt: int | None) -> None:
    assert names.task_of(name) == task_id
    assert attempt is None or names.attempt_of_task_pod(name) == attempt


@pytest.mark.parametrize(
    ("container", "number"),
    [("executor-0", 0), ("executor-12", 12), ("executor", None), ("runner", None), ("look-1", None)],
)
def test_a_container_s_name_tells_the_executor(container: str, number: int | None) -> None:
    assert names.number_of_executor(container) == number


def test_reference_data_is_in_executors_alone_read_only_and_nobodys_group_is_changed() -> None:
    found = pod_of(task(2), own_user=1000, volumes=(Volume("/refs", "genomes"),))
    assert {"name": "data-0", "persistentVolumeClaim": {"claimName": "genomes", "readOnly": True}} in found["spec"][
        "volumes"
    ]
    mounted = {
        each["name"]: [mount for mount in each["volumeMounts"] if mount["name"] == "data-0"]
        for each in found["spec"]["containers"]
    }
    mount = [{"name": "data-0", "mountPath": "/refs", **manifests.READ_ONLY}]
    assert mounted == {"runner": [], "executor-0": mount, "executor-1": mount}
    assert "fsGroup" not in found["spec"]["securityContext"]
