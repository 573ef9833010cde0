"""The objects of a task: what the tests on a cluster cannot see, or would see too late."""

from typing import Any

import pytest

from tesk.engines.kubernetes import manifests, names
from tesk.engines.kubernetes import record as records
from tesk.engines.kubernetes.account import Account
from tesk.engines.kubernetes.cluster import Cluster
from tesk.engines.kubernetes.manifests import Place
from tesk.engines.kubernetes.record import Attempt, Record
from tesk.layout import layout
from tesk.tes import Executor, ExecutorLog, Input, Output, Resources, State, Task, TaskLog

CLUSTER = Cluster(namespace="n", instance="i", image="tesk:1")
ID = "0123456789abc"


def place(task: Task, **changes: Any) -> Place:
    return Place(ID, task, CLUSTER, "uid", "10.0.0.1:8480", 1, **changes)


def executor(task: Task, **changes: Any) -> dict[str, Any]:
    pod = manifests.executor_pod(place(task), "p", 0, layout(task), homeless=False, **changes)
    return next(each for each in pod["spec"]["containers"] if each["name"] == names.EXECUTOR_CONTAINER)


def task(**fields: Any) -> Task:
    return Task(**{"executors": [Executor("image", ["program"])]} | fields)


@pytest.mark.parametrize(
    ("given", "written"), [("", ""), ("$(A)", "$$(A)"), ("$$", "$$$$"), ("a$b", "a$$b"), ("$$(A)", "$$$$(A)")]
)
def test_kubernetes_expands_nothing_in_what_is_verbatim(given: str, written: str) -> None:
    assert manifests.verbatim(given) == written


def test_an_executor_gets_no_credential_and_only_its_reporter_the_token() -> None:
    pod = manifests.executor_pod(place(task()), "p", 0, layout(task()), homeless=False)
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod["spec"]
    mounted = {each["name"]: [m["name"] for m in each["volumeMounts"]] for each in pod["spec"]["containers"]}
    assert mounted == {"reporter": ["shim", "control", "token"], "executor": ["shim", "control"]}
    assert [each["name"] for each in pod["spec"]["containers"]] == ["reporter", "executor"]


def test_paths_are_mounted_from_the_scratch_volume() -> None:
    staged = task(inputs=[Input(path="/data/in/a", content="x"), Input(path="/etc/b", content="x")])
    mounts = {mount["mountPath"]: mount.get("subPath") for mount in executor(staged)["volumeMounts"]}
    assert mounts == {"/.tesk/shim": None, "/.tesk/control": None, "/data/in": "data/in", "/etc/b": "etc/b"}


def test_outputs_in_mounted_folders_are_made_readable() -> None:
    command = executor(task(outputs=[Output(path="/out/x", url="file:///x")]))["command"]
    assert command[:3] == ["/.tesk/shim/busybox", "sh", "/.tesk/shim/run"]
    assert command[3:] == ["", "", "", "", "1", "r/out/x", "program"]


def test_a_filer_for_inputs_asks_for_the_room_that_its_node_must_have_for_the_executors() -> None:
    large = task(resources=Resources(cpu_cores=2.5, ram_gb=4))
    pod = manifests.filer_pod(place(large), "p", names.INPUTS)
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2500m", "memory": "4096Mi"}
    after = manifests.filer_pod(place(large), "p", names.OUTPUTS)
    assert after["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "10m", "memory": "64Mi"}


def test_a_memory_limit_only_where_the_task_asks() -> None:
    assert executor(task())["resources"]["limits"] == {}
    assert executor(task(resources=Resources(ram_gb=0.0625)))["resources"]["limits"] == {"memory": "64Mi"}


def test_later_pods_of_an_attempt_go_to_the_volumes_node() -> None:
    pod = manifests.filer_pod(place(task(), node="node-7"), "p", names.OUTPUTS)
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    wanted = {"key": "metadata.name", "operator": "In", "values": ["node-7"]}
    assert required["nodeSelectorTerms"] == [{"matchFields": [wanted]}]


def test_names_say_attempt_step_and_start() -> None:
    assert names.pod(ID, names.INPUTS) == f"tesk-{ID}-inputs"
    assert names.pod(ID, names.EXECUTOR_ROLE, 2, executor=0, start=2) == f"tesk-{ID}-2-executor-0-again2"
    assert (names.claim(ID, 1), names.claim(ID, 2)) == (f"tesk-{ID}", f"tesk-{ID}-2")


def test_a_record_comes_back_as_it_was() -> None:
    record = Record(State.RUNNING, [Attempt(TaskLog(start_time="x"), {"p": "u"}, homeless=[1])], "room")
    assert records.unpack(records.pack(record)) == record
    shown = records.status(record)
    assert (shown.state, shown.log.system_logs) == (State.RUNNING, ["waiting: room"])


def test_a_record_that_is_too_large_keeps_the_ends_of_its_output() -> None:
    import random

    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=65536))
    entries = [ExecutorLog(0, "a", "b", stdout=noise, stderr=noise) for _ in range(40)]
    record = Record(State.RUNNING, [Attempt(TaskLog(logs=entries))])
    packed = records.pack(record)
    assert len(packed) <= records.FULL
    kept = records.unpack(packed).now.log.logs
    assert len(kept) == 40
    assert noise.endswith(str(kept[0].stdout))
    assert record.now.log.logs[0].stdout == noise


def test_bytes_that_are_no_record_are_refused() -> None:
    with pytest.raises(ValueError, match="not a taskmaster's record"):
        records.unpack(b"x")


def test_a_job_belongs_to_the_server_s_account_where_there_is_one() -> None:
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "tesk-server", "uid": "u"}
    made = [manifests.taskmaster_job(ID, CLUSTER, 1, of) for of in (Account("tesk-server", "u"), None)]
    assert [each["metadata"]["ownerReferences"] for each in made] == [[owner], []]


def test_nothing_that_a_job_owns_holds_it_up() -> None:
    some = task(outputs=[Output("/out/a", "file:///a")])
    owned = [
        *manifests.secrets(ID, [b"a", b"b"], CLUSTER, "uid", "t"),
        manifests.status(ID, CLUSTER, "uid", b""),
        manifests.claim(ID, some, CLUSTER, "uid", 1),
        manifests.filer_pod(place(some), "p", names.OUTPUTS),
        manifests.executor_pod(place(some), "p", 0, layout(some), homeless=False),
    ]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": f"tesk-{ID}", "uid": "uid"}
    assert [each["metadata"]["ownerReferences"] for each in owned] == [[owner]] * len(owned)
