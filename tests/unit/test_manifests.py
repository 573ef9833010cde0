"""The objects of a task: what the tests on a cluster cannot see, or would see too late."""

from typing import Any

import msgspec
import pytest

from tesk.kubernetes import manifests, names
from tesk.kubernetes import record as records
from tesk.kubernetes.account import Account
from tesk.kubernetes.manifests import PodContext
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_settings import Mount, TaskSettings, Volume
from tesk.layout import layout
from tesk.tes import Executor, ExecutorLog, Input, Output, Resources, State, Task, TaskLog

CLUSTER = TaskSettings(namespace="n", instance="i", image="tesk:1")
ID = "0123456789abc"


def place(task: Task, cluster: TaskSettings = CLUSTER, **changes: Any) -> PodContext:
    return PodContext(ID, task, cluster, "uid", "10.0.0.1:8480", 1, **changes)


def pod_of(task: Task, cluster: TaskSettings = CLUSTER) -> dict[str, Any]:
    """The pod of the first executor."""
    return manifests.executor_pod(place(task, cluster), "p", 0, layout(task), own_workdir=False)


def executor(task: Task, cluster: TaskSettings = CLUSTER) -> dict[str, Any]:
    containers: list[dict[str, Any]] = pod_of(task, cluster)["spec"]["containers"]
    return next(each for each in containers if each["name"] == names.EXECUTOR_CONTAINER)


def task(**fields: Any) -> Task:
    return Task(**{"executors": [Executor("image", ["program"])]} | fields)


@pytest.mark.parametrize(
    ("given", "written"), [("", ""), ("$(A)", "$$(A)"), ("$$", "$$$$"), ("a$b", "a$$b"), ("$$(A)", "$$$$(A)")]
)
def test_kubernetes_expands_nothing_in_what_is_verbatim(given: str, written: str) -> None:
    assert manifests.verbatim(given) == written


def test_an_executor_gets_no_credential_and_only_its_reporter_the_token() -> None:
    pod = pod_of(task())
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod["spec"]
    mounted = {each["name"]: [m["name"] for m in each["volumeMounts"]] for each in pod["spec"]["containers"]}
    assert mounted == {"reporter": ["shim", "control", "token"], "executor": ["shim", "control"]}
    assert [each["name"] for each in pod["spec"]["containers"]] == ["reporter", "executor"]


def test_paths_of_output_reach_the_reporter_as_the_executor_has_them() -> None:
    named = task(executors=[Executor("image", ["program"], stdout="/out/$$x/$(TESK_POD)", stderr="/out/$(A)")])
    reporter, ran = pod_of(named)["spec"]["containers"]
    assert reporter["args"][3:7] == ["--stdout", "/out/$$$$x/$$(TESK_POD)", "--stderr", "/out/$$(A)"]
    assert ran["command"][4:6] == ["/out/$$$$x/$$(TESK_POD)", "/out/$$(A)"]


def test_paths_are_mounted_from_the_scratch_volume() -> None:
    staged = task(inputs=[Input(path="/data/in/a", content="x"), Input(path="/etc/b", content="x")])
    mounts = {mount["mountPath"]: mount.get("subPath") for mount in executor(staged)["volumeMounts"]}
    assert mounts == {"/.tesk/shim": None, "/.tesk/control": None, "/data/in": "data/in", "/etc/b": "etc/b"}


def test_a_variable_whose_name_not_every_kubernetes_takes_is_set_by_the_shim() -> None:
    env: dict[str, str | None] = {"A": "$(B)", "a.b": "1", "X-Y": "", "1": "$(A)", "ü x": "2", "..": "3"}
    made = executor(task(executors=[Executor("image", ["program"], env=env)]))
    assert made["env"] == [{"name": n, "value": v} for n, v in (("A", "$$(B)"), ("a.b", "1"), ("X-Y", ""))]
    assert made["command"][6:] == ["3", "e1=$$(A)", "eü x=2", "e..=3", "program"]


def test_outputs_in_mounted_folders_are_made_readable() -> None:
    command = executor(task(outputs=[Output(path="/out/x", url="file:///x")]))["command"]
    assert command[:2] == ["/.tesk/shim/shim", "run"]
    assert command[2:] == ["", "", "", "", "1", "r/out/x", "program"]


def test_a_filer_for_inputs_asks_for_the_room_that_its_node_must_have_for_the_executors() -> None:
    large = task(resources=Resources(cpu_cores=2.5, ram_gb=4))
    pod = manifests.filer_pod(place(large), "p", names.INPUTS)
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2500m", "memory": "4096Mi"}
    after = manifests.filer_pod(place(large), "p", names.OUTPUTS)
    assert after["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "10m", "memory": "64Mi"}


def test_a_memory_limit_only_where_the_task_asks() -> None:
    assert executor(task())["resources"]["limits"] == {}
    assert executor(task(resources=Resources(ram_gb=0.0625)))["resources"]["limits"] == {"memory": "64Mi"}


def test_shared_memory_is_as_large_as_the_memory_or_as_asked_unless_it_holds_files_of_the_task() -> None:
    def size(path: str = "/data", **resources: Any) -> str | None:
        spec = pod_of(task(resources=Resources(**resources), volumes=[path]))["spec"]
        volumes = {each["name"]: each.get("emptyDir", {}).get("sizeLimit") for each in spec["volumes"]}
        mounts = {each["name"]: each["mountPath"] for each in spec["containers"][-1]["volumeMounts"]}
        assert mounts.get("memory", "/dev/shm") == "/dev/shm"
        assert ("memory" in volumes) == ("memory" in mounts)
        return volumes.get("memory")

    assert size() is None
    assert size(ram_gb=0.5) == str(512 * 1024**2)
    assert size(ram_gb=0.5, backend_parameters={"SHM_size": "1g"}) == str(1024**3)
    assert size("/dev/shm", ram_gb=0.5) is None


def test_later_pods_of_an_attempt_go_to_the_volumes_node() -> None:
    pod = manifests.filer_pod(place(task(), node="node-7"), "p", names.OUTPUTS)
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    wanted = {"key": "metadata.name", "operator": "In", "values": ["node-7"]}
    assert required["nodeSelectorTerms"] == [{"matchFields": [wanted]}]


def test_names_say_attempt_step_and_start() -> None:
    assert names.pod(ID, names.INPUTS) == f"tesk-{ID}-inputs"
    assert names.pod(ID, names.EXECUTOR_ROLE, 2, executor=0, start=2) == f"tesk-{ID}-2-executor-0-again2"
    assert (names.claim(ID, 1), names.claim(ID, 2)) == (f"tesk-{ID}", f"tesk-{ID}-2")


def test_a_steps_pod_is_the_first_or_one_made_in_its_place() -> None:
    record = Record(State.RUNNING, [Attempt(TaskLog())])
    assert records.pod(record, ID, names.EXECUTOR_ROLE, 1) == f"tesk-{ID}-executor-1"
    record.now.replacements["executor 1"] = 1
    record.now.own_workdir.append(1)
    assert records.pod(record, ID, names.EXECUTOR_ROLE, 1) == f"tesk-{ID}-executor-1-again3"
    assert records.pod(record, ID, names.EXECUTOR_ROLE, 0) == f"tesk-{ID}-executor-0"
    record.attempts.append(Attempt(TaskLog(), replacements={"inputs": 2}))
    assert records.pod(record, ID, names.INPUTS) == f"tesk-{ID}-2-inputs-again3"


def test_a_record_comes_back_as_it_was() -> None:
    record = Record(State.RUNNING, [Attempt(TaskLog(start_time="x"), pods={"p": "u"}, own_workdir=[1])], "room")
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
        *manifests.secrets(ID, [b"a", b"b"], CLUSTER, manifests.owned_by_job(ID, "uid"), "t"),
        manifests.status(ID, CLUSTER, "uid", b""),
        manifests.claim(ID, some, CLUSTER, "uid", 1),
        manifests.filer_pod(place(some), "p", names.OUTPUTS),
        manifests.executor_pod(place(some), "p", 0, layout(some), own_workdir=False),
    ]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": f"tesk-{ID}", "uid": "uid"}
    assert [each["metadata"]["ownerReferences"] for each in owned] == [[owner]] * len(owned)


@pytest.mark.parametrize(
    ("choices", "asked", "requests", "limits"),
    [
        ({}, Resources(), ("280m", "1024Mi"), {}),
        ({}, Resources(cpu_cores=0.25, ram_gb=0.5), ("250m", "512Mi"), {"memory": "512Mi"}),
        ({}, Resources(cpu_cores=0.0001, ram_gb=0.0001), ("1m", "8Mi"), {"memory": "8Mi"}),
        ({"cpu_limit": "request"}, Resources(cpu_cores=2), ("2000m", "1024Mi"), {"cpu": "2000m"}),
        ({"memory_limit": "none"}, Resources(ram_gb=1.5), ("280m", "1536Mi"), {}),
        ({"default_cpu_cores": 1.0, "default_ram_gb": 2.0}, Resources(), ("1000m", "2048Mi"), {}),
        ({"gpu_resource": "lab/gpu"}, Resources(backend_parameters={"gpu": "2"}), ("280m", "1024Mi"), {"lab/gpu": "2"}),
    ],
)
def test_requests_and_limits_follow_the_task_and_the_operator(
    choices: dict[str, Any], asked: Resources, requests: tuple[str, str], limits: dict[str, str]
) -> None:
    chosen = msgspec.structs.replace(CLUSTER, **choices)
    found = executor(task(resources=asked), chosen)["resources"]
    assert (found["requests"]["cpu"], found["requests"]["memory"]) == requests
    assert found["limits"] == limits


@pytest.mark.parametrize(
    ("asked", "size"), [(None, "1024Mi"), (0, "1024Mi"), (0.1, "103Mi"), (0.00001, "1Mi"), (20, "20480Mi")]
)
def test_a_claim_is_as_large_as_the_task_asks(asked: float | None, size: str) -> None:
    claim = manifests.claim(ID, task(resources=Resources(disk_gb=asked)), CLUSTER, "uid", 1)
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


def test_where_a_task_may_run_is_the_operators_and_the_tasks_choice() -> None:
    toleration = {"key": "spot", "operator": "Exists"}
    chosen = msgspec.structs.replace(
        CLUSTER, node_selector={"pool": "tasks", "disk": "any"}, preemptible_node_selector={"pool": "spot"},
        preemptible_tolerations=(toleration,), zone_label="zone",
    )  # fmt: skip
    words: dict[str, str | None] = {"node_selector.disk": "ssd", "priority_class": "low", "runtime_class": "gvisor"}
    words["service_account"] = "lab"
    asked = Resources(preemptible=True, zones=["a", "b"], backend_parameters=words)
    spec = pod_of(task(resources=asked), chosen)["spec"]
    assert spec["nodeSelector"] == {"pool": "spot", "disk": "ssd"}
    assert spec["tolerations"] == [toleration]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]
    assert (spec["priorityClassName"], spec["runtimeClassName"]) == ("low", "gvisor")
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("lab", False)
    usual = pod_of(task(), chosen)["spec"]
    assert (usual["nodeSelector"], usual["tolerations"]) == ({"pool": "tasks", "disk": "any"}, [])
    assert not usual.keys() & {"affinity", "priorityClassName", "runtimeClassName", "serviceAccountName"}


@pytest.mark.parametrize("user", [None, 1000])
def test_executors_pass_the_standard_that_is_chosen(user: int | None) -> None:
    baseline = executor(task(), msgspec.structs.replace(CLUSTER, run_as_user=user))["securityContext"]
    ids = {} if user is None else {"runAsUser": user}
    dropped = {"capabilities": {"drop": ["MKNOD", "NET_RAW"]}}
    assert baseline == {"allowPrivilegeEscalation": False, **dropped, **ids}
    chosen = msgspec.structs.replace(CLUSTER, run_as_user=user, pod_security="restricted")
    restricted = executor(task(), chosen)["securityContext"]
    assert restricted == baseline | {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    assert pod_of(task(), chosen)["spec"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_storage_credentials_reach_filers_alone_and_never_as_plain_words() -> None:
    chosen = msgspec.structs.replace(
        CLUSTER,
        filer_environment_secret="keys",
        filer_mounts=(Mount("/keys/s3", secret="s3"), Mount("/srv", claim="c")),
    )
    some = task(outputs=[Output("/out/a", "s3://lab/a")])
    filer = manifests.filer_pod(place(some, chosen), "p", names.OUTPUTS)["spec"]
    assert filer["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert {"name": "mount-0", "mountPath": "/keys/s3", "readOnly": True} in filer["containers"][0]["volumeMounts"]
    others = [manifests.taskmaster_job(ID, chosen, 1)["spec"]["template"], pod_of(some, chosen)]
    for spec in (other["spec"] for other in others):
        assert all("envFrom" not in each for each in spec["containers"])
        assert not [volume for volume in spec["volumes"] if volume["name"].startswith("mount-")]


def test_backend_parameters_are_known_in_any_case() -> None:
    allowed = ("gpu", "node_selector.example.com/Disk", "executor_timeout_s")
    cluster = msgspec.structs.replace(CLUSTER, allowed_backend_parameters=allowed)
    given = {"GPU": "2", "Node_Selector.example.com/disk": "fast", "EXECUTOR_TIMEOUT_S": "9"}
    found = place(task(resources=Resources(backend_parameters={**given})), cluster).parameters
    assert found == {"gpu": "2", "node_selector.example.com/Disk": "fast", "executor_timeout_s": "9"}


@pytest.mark.parametrize(
    ("kept", "dropped"),
    [((), ["MKNOD", "NET_RAW"]), (("NET_RAW",), ["MKNOD"]), (("MKNOD", "NET_RAW"), [])],
)
def test_executors_keep_the_capabilities_that_the_operator_names(kept: tuple[str, ...], dropped: list[str]) -> None:
    chosen = msgspec.structs.replace(CLUSTER, executor_capabilities=kept)
    assert executor(task(), chosen)["securityContext"]["capabilities"] == {"drop": dropped}
    restricted = msgspec.structs.replace(chosen, pod_security="restricted")
    assert executor(task(), restricted)["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_an_executor_copies_is_a_folder_of_its_own_on_the_volume() -> None:
    """Never the whole volume, from which a program could rename what the next one mounts."""
    made = executor(task(volumes=["/data"], outputs=[Output("/result", "file:///a")]))
    found = {each["mountPath"]: each.get("subPath") for each in made["volumeMounts"] if each["name"] == "scratch"}
    assert found == {"/.tesk/files": ".tesk/files", "/data": "data"}


@pytest.mark.parametrize(
    ("path", "cluster", "images"),
    [
        ("/app/x", CLUSTER, ["one", "two"]),
        ("/tmp/x", CLUSTER, []),
        ("/app/x", TaskSettings(namespace="n", instance="i", image="tesk:1", executor_service_account="lab"), []),
    ],
)  # fmt: skip
def test_images_are_looked_at_beside_the_filer_of_the_inputs(
    path: str, cluster: TaskSettings, images: list[str]
) -> None:
    """Without credentials, the task's document or its files. Not where their registry's secret may be an account's."""
    executors = [Executor("one", ["p"]), Executor("two", ["p"]), Executor("one", ["p"])]
    some = task(executors=executors, inputs=[Input(path, content="x")])
    filer, *looks = manifests.filer_pod(place(some, cluster), "p", names.INPUTS)["spec"]["containers"]
    assert filer["name"] == names.FILER_CONTAINER
    assert [each["image"] for each in looks] == images
    for number, each in enumerate(looks):
        assert each["command"][-4:] == ["look", f"/.tesk/looks/{number}", "/", "/app"]
        assert [mount["name"] for mount in each["volumeMounts"]] == ["shim", "looks"]
        assert each["securityContext"] == executor(some)["securityContext"] | {"runAsNonRoot": False}
    assert len(manifests.filer_pod(place(some, cluster), "p", names.OUTPUTS)["spec"]["containers"]) == 1


def test_reference_data_is_in_executors_alone_and_read_only() -> None:
    cluster = msgspec.structs.replace(CLUSTER, own_user=1000, volumes=(Volume("/refs", "genomes"),))
    claim = {"name": "data-0", "persistentVolumeClaim": {"claimName": "genomes", "readOnly": True}}
    pod = pod_of(task(), cluster)
    assert claim in pod["spec"]["volumes"]
    assert {"name": "data-0", "mountPath": "/refs", **manifests.READ_ONLY} in executor(task(), cluster)["volumeMounts"]
    given = task(inputs=[Input(path="/in/a", content="x")])
    filers = [manifests.filer_pod(place(given, cluster), "p", role) for role in (names.INPUTS, names.OUTPUTS)]
    mounted = [
        each["name"]
        for made in (pod, *filers)
        for each in made["spec"]["containers"]
        if any(mount["name"] == "data-0" for mount in each["volumeMounts"])
    ]
    assert mounted == [names.EXECUTOR_CONTAINER]


def test_the_pod_that_binds_the_scratch_volume_waits_for_where_the_reference_data_is() -> None:
    cluster = msgspec.structs.replace(CLUSTER, volumes=(Volume("/refs", "genomes"),))
    given = task(inputs=[Input(path="/in/a", content="x")])
    claims = [
        [
            each["persistentVolumeClaim"]["claimName"]
            for each in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in each
        ]
        for pod in (manifests.filer_pod(place(given, cluster), "p", role) for role in (names.INPUTS, names.OUTPUTS))
    ]
    assert claims == [[names.claim(ID, 1), "genomes"], [names.claim(ID, 1)]]
