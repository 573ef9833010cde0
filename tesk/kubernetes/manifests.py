"""The Kubernetes objects of a task (pure): what the server makes of it, and what its taskmaster makes then."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tesk import parameters
from tesk.kubernetes import names
from tesk.kubernetes.account import Account
from tesk.kubernetes.bounds import claim_size, fitted
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import Layout, doubtful, to_look_at
from tesk.life.status import TaskId
from tesk.patterns import globs
from tesk.tes import Executor, Resources, Task, normal

Manifest = dict[str, Any]

TASK_FOLDER: Final = "/tesk/task"
TOKEN_FOLDER: Final = "/tesk/token"  # noqa: S105
SCRATCH: Final = "/scratch"
SCRATCH_VOLUME: Final = "scratch"
SHIM: Final = "/.tesk/shim"
CONTROL: Final = "/.tesk/control"
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108
LOOKS: Final = "/.tesk/looks"
"""Where the shim leaves what it has seen of the executors' images, one file for each."""
MOST_LOOKS: Final = 20
OWN_GRACE_S: Final = 5
LEAST_MEMORY_MIB: Final = 8
WITHHELD: Final = ("MKNOD", "NET_RAW")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
"""The names of variables that every Kubernetes takes (RelaxedEnvironmentVariableValidation); the shim sets others."""
READ_ONLY: Final = {"readOnly": True, "recursiveReadOnly": "IfPossible"}
PLAIN: Final = msgspec.json.Encoder(order="sorted").encode


def taskmaster_job(
    task_id: TaskId, cluster: TaskSettings, parts: int, account: Account | None = None, mode_line: str = ""
) -> Manifest:
    """The Job that owns everything else of the task; `parts` is the number of Secrets with its document.

    `account`: whose end is the task's end too. `mode_line`: why the task has a taskmaster, where that is to be shown.
    """
    container = own_container(
        names.TASKMASTER_CONTAINER,
        cluster,
        ["taskmaster"],
        [("task", TASK_FOLDER, True)],
        memory_mib=(32, 128),
    )
    container["env"] += [{"name": "TESK_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    uid = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"}}
    container["env"] += [{"name": "TESK_TASK", "value": task_id}, {"name": "TESK_JOB_UID", "valueFrom": uid}]
    spec = own_spec(cluster, [container], [task_volume(task_id, parts)], token=True)
    spec |= {"restartPolicy": "OnFailure", "serviceAccountName": cluster.taskmaster_service_account}
    metadata = metadata_of(cluster, names.task_object(task_id), task_id, names.TASKMASTER)
    own = {names.MODE_LINE: mode_line} if mode_line else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata
        | {"ownerReferences": owned_by_account(account), "annotations": metadata["annotations"] | own},
        "spec": {
            "backoffLimit": cluster.taskmaster_retries,
            "template": {
                "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
                "spec": fitted(spec, cluster.bounds, {}),
            },
        },
    }


def secrets(
    task_id: TaskId, parts: Sequence[bytes], cluster: TaskSettings, owners: list[Manifest], token: str
) -> list[Manifest]:
    """The Secrets with the task's document; the first has the operator's settings and the token too."""
    made = []
    for number, part in enumerate(parts):
        data = {names.DOCUMENT_KEY: part}
        if not number:
            data |= {names.CLUSTER_KEY: PLAIN(cluster), names.TOKEN_KEY: token.encode()}
        metadata = metadata_of(cluster, names.secret(task_id, number), task_id) | {"ownerReferences": owners}
        made.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": binary(data)})
    return made


def status(task_id: TaskId, cluster: TaskSettings, owner_uid: str, record: bytes) -> Manifest:
    """The ConfigMap with the taskmaster's record."""
    metadata = metadata_of(cluster, names.task_object(task_id), task_id) | {
        "ownerReferences": owned_by_job(task_id, owner_uid)
    }
    data = binary({names.RECORD_KEY: record})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data}


def claim(task_id: TaskId, task: Task, cluster: TaskSettings, owner_uid: str, attempt: int) -> Manifest:
    """The claim of the task's scratch volume."""
    metadata = metadata_of(cluster, names.claim(task_id, attempt), task_id) | {
        "ownerReferences": owned_by_job(task_id, owner_uid)
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": claim_spec(task, cluster),
    }


def claim_spec(task: Task, cluster: TaskSettings) -> Manifest:
    """The spec of a claim for the task's scratch volume."""
    asked = (task.resources or Resources()).disk_gb
    size = claim_size(math.ceil(disk_gb(task, cluster) * 1024), cluster.bounds, is_asked=bool(asked))
    spec: Manifest = {"accessModes": [cluster.access_mode], "resources": {"requests": {"storage": size}}}
    if cluster.storage_class:
        spec["storageClassName"] = cluster.storage_class
    return spec


def disk_gb(task: Task, cluster: TaskSettings) -> float:
    """GiB of the task's scratch volume, more than none."""
    return max(1 / 1024, (task.resources or Resources()).disk_gb or cluster.default_disk_gb)


def is_on_node(task: Task, cluster: TaskSettings) -> bool:
    """True when the scratch volume of a task that is one pod is on the disk of its node, not a volume of its own."""
    return not cluster.storage_class and disk_gb(task, cluster) <= cluster.pod_disk_gb


class PodContext(msgspec.Struct, frozen=True):
    """What all pods of one attempt have in common. `node`: where its volume is, if that binds them; `parts` as above.

    `taskmaster`: address and port at which it is told of ends.
    """

    task_id: TaskId
    task: Task
    cluster: TaskSettings
    owner_uid: str
    taskmaster: str
    parts: int
    attempt: int = 1
    node: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """The task's backend parameters."""
        return parameters.given(self.task, self.cluster.allowed_backend_parameters)


def filer_pod(place: PodContext, name: str, role: str, *, failed: bool = False) -> Manifest:
    """The pod that fetches the inputs or pushes the outputs (of a task that failed, with `failed`)."""
    arguments = ["filer", role, "--pod", *(["--failed"] if failed else [])]
    mounts = [("task", TASK_FOLDER, True), (SCRATCH_VOLUME, SCRATCH, False), ("tmp", "/tmp", False)]  # noqa: S108
    volumes = [task_volume(place.task_id, place.parts), _claim_volume(place), {"name": "tmp", "emptyDir": {}}]
    container = own_container(names.FILER_CONTAINER, place.cluster, arguments, mounts, memory_mib=(64, 256))
    container["env"] += _whereabouts(place, name)
    volumes += give_credentials(container, place.cluster)
    if role == names.INPUTS:
        container["resources"] = _at_least(container["resources"], requests_of(place))
        volumes += data_volumes(place.cluster)  # not mounted here: the scratch volume is to be where these are
    looks = _looks(place) if role == names.INPUTS else []
    if looks:
        volumes += [{"name": "shim", "emptyDir": {}}, {"name": "looks", "emptyDir": {}}]
        container["volumeMounts"] += [{"name": "shim", "mountPath": SHIM}, {"name": "looks", "mountPath": LOOKS}]
        container["lifecycle"] = bringing_the_shim()
    spec = own_spec(place.cluster, [container, *looks], volumes) | scheduling(place)
    if place.cluster.own_user is not None:
        spec["securityContext"] |= {"fsGroup": place.cluster.own_user, "fsGroupChangePolicy": "OnRootMismatch"}
    return _pod(place, name, role, spec)


def executor_pod(place: PodContext, name: str, number: int, plan: Layout, *, own_workdir: bool) -> Manifest:
    """The pod of executor `number`. `own_workdir`: its working directory is a volume of its own."""
    executor = place.task.executors[number]
    volumes: list[Manifest] = [
        {"name": "shim", "emptyDir": {}},
        {"name": "control", "emptyDir": {}},
        {"name": "token", "secret": {"secretName": names.secret(place.task_id, 0), "items": [_item(names.TOKEN_KEY)]}},
    ]
    volumes += data_volumes(place.cluster)
    if not plan.is_empty:
        volumes.append(_claim_volume(place))
    if own_workdir:
        volumes.append({"name": "workdir", "emptyDir": {}})
    if shared_memory := shared_memory_bytes(place, plan):
        volumes.append({"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": str(shared_memory)}})
    containers = [
        _reporter(place, name, executor, plan),
        executor_container(place, executor, plan, own_workdir=own_workdir),
    ]
    spec = own_spec(place.cluster, containers, volumes) | scheduling(place)
    spec["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}
    spec["terminationGracePeriodSeconds"] = max(1, math.ceil(place.cluster.grace_s))
    if account := executor_account(place.task, place.cluster):
        spec["serviceAccountName"] = account
    return _pod(place, name, names.EXECUTOR_ROLE, spec, executor=number)


def data_volumes(cluster: TaskSettings) -> list[Manifest]:
    """The volumes of reference data. Of a claim that is read-only here, the cluster changes no file's group."""
    return [
        {"name": _data(n), "persistentVolumeClaim": {"claimName": volume.claim, "readOnly": True}}
        for n, volume in enumerate(cluster.volumes)
    ]


def _data(n: int) -> str:
    return f"data-{n}"


def give_credentials(container: Manifest, cluster: TaskSettings) -> list[Manifest]:
    """Gives a container in which a filer runs what filers have by the operator's settings; the volumes for that."""
    volumes: list[Manifest] = []
    for number, mount in enumerate(cluster.filer_mounts):
        source = {"secret": {"secretName": mount.secret}}
        if mount.claim:
            source = {"persistentVolumeClaim": {"claimName": mount.claim}}
        name = f"mount-{number}"
        volumes.append({"name": name, **source})
        container["volumeMounts"].append({"name": name, "mountPath": mount.path, "readOnly": not mount.claim})
    if cluster.filer_environment_secret:
        container["envFrom"] = [{"secretRef": {"name": cluster.filer_environment_secret}}]
    return volumes


def images_to_look_at(task: Task, cluster: TaskSettings) -> list[str]:
    """The images that are looked at, beside the filer that fetches the inputs, before it does so.

    None where executors have a service account of their own: their images may come with a secret that only it has.
    """
    if executor_account(task, cluster) or not doubtful(task):
        return []
    return [*dict.fromkeys(executor.image for executor in task.executors)][:MOST_LOOKS]


def executor_account(task: Task, cluster: TaskSettings) -> str:
    """The service account of the task's executors, if they have one of their own."""
    given = parameters.given(task, cluster.allowed_backend_parameters)
    return given.get("service_account") or cluster.executor_service_account


def _looks(place: PodContext) -> list[Manifest]:
    """The containers in which the shim looks at the images, with the rights that executors have."""
    paths = to_look_at(doubtful(place.task))
    return [
        {
            "name": f"{names.LOOK_CONTAINER}-{number}",
            "image": image,
            "imagePullPolicy": place.cluster.executor_image_pull_policy,
            "command": list(map(verbatim, [f"{SHIM}/shim", "look", f"{LOOKS}/{number}", *paths])),
            "workingDir": "/",
            "volumeMounts": [
                {"name": "shim", "mountPath": SHIM, "readOnly": True}, {"name": "looks", "mountPath": LOOKS},
            ],
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
            "securityContext": {"runAsNonRoot": False} | _security(place.cluster),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        for number, image in enumerate(images_to_look_at(place.task, place.cluster))
    ]  # fmt: skip


def verbatim(text: str) -> str:
    """Text that Kubernetes' expansion of $(VARIABLE) turns into the given one (core/v1 Container, `command`)."""
    return text.replace("$", "$$")


def _reporter(place: PodContext, name: str, executor: Executor, plan: Layout) -> Manifest:
    arguments = ["reporter", "--tail", str(place.cluster.log_tail_bytes)]
    mounts = [("shim", SHIM, False), ("control", CONTROL, False), ("token", TOKEN_FOLDER, True)]
    for option, path in (("--stdout", executor.stdout), ("--stderr", executor.stderr)):
        if path:
            arguments += [option, verbatim(path)]
    if not plan.is_empty and (executor.stdout or executor.stderr):
        arguments += ["--scratch", SCRATCH]
        mounts.append((SCRATCH_VOLUME, SCRATCH, True))
    container = own_container(names.REPORTER_CONTAINER, place.cluster, arguments, mounts, memory_mib=(16, 64))
    container["env"] += _whereabouts(place, name)
    container["lifecycle"] = bringing_the_shim()
    return container


def bringing_the_shim() -> Manifest:
    """A container of ours puts the shim where those that start after it find it."""
    return {"postStart": {"exec": {"command": ["/tesk/shim", "copy-to", SHIM]}}}


def executor_container(
    place: PodContext, executor: Executor, plan: Layout, *, own_workdir: bool, command: str = "run"
) -> Manifest:
    """The container of an executor. `command`: what the shim does with its program."""
    covered = (normal(output.path) for output in place.task.outputs or () if plan.covers(output.path))
    readable = [f"r{pattern}" for path in covered for pattern in globs(path)]
    env = {key: value or "" for key, value in (executor.env or {}).items()}
    variables = [f"e{key}={value}" for key, value in env.items() if not VARIABLE.fullmatch(key)]
    last = executor is place.task.executors[-1]
    copies = plan.copies(last=last) + readable + variables + (plan.taken if last else [])
    stdio = [executor.workdir or "", executor.stdin or "", executor.stdout or "", executor.stderr or ""]
    words = [f"{SHIM}/shim", command, *stdio, str(len(copies)), *copies, *executor.command]
    mounts = [{"name": "shim", "mountPath": SHIM, "readOnly": True}, {"name": "control", "mountPath": CONTROL}]
    mounts += [{"name": SCRATCH_VOLUME, "mountPath": path, "subPath": path.lstrip("/")} for path in plan.bound]
    for n, volume in enumerate(place.cluster.volumes):
        mounts.append({"name": _data(n), "mountPath": volume.path, **READ_ONLY})
    if own_workdir and executor.workdir:
        mounts.append({"name": "workdir", "mountPath": normal(executor.workdir)})
    if shared_memory_bytes(place, plan):
        mounts.append({"name": "memory", "mountPath": SHARED_MEMORY})
    verbatim_words = list(map(verbatim, words))
    program: Manifest = {"command": verbatim_words}
    if parameters.ENTRYPOINT in place.parameters:
        program = {"args": verbatim_words, "terminationMessagePolicy": "FallbackToLogsOnError"}
    return program | {
        "name": names.EXECUTOR_CONTAINER,
        "image": executor.image,
        "imagePullPolicy": place.cluster.executor_image_pull_policy,
        "env": [{"name": key, "value": verbatim(value)} for key, value in env.items() if VARIABLE.fullmatch(key)],
        "volumeMounts": mounts,
        "resources": resources_of(place),
        "securityContext": _security(place.cluster),
    }


def _security(cluster: TaskSettings) -> Manifest:
    dropped = [name for name in WITHHELD if name not in cluster.executor_capabilities]
    context: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": dropped}}
    if cluster.run_as_user is not None:
        context["runAsUser"] = cluster.run_as_user
    if cluster.pod_security == "restricted":
        context |= {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    return context


def requests_of(place: PodContext) -> dict[str, str]:
    asked = place.task.resources or Resources()
    cores = asked.cpu_cores or place.cluster.default_cpu_cores
    memory_gb = asked.ram_gb or place.cluster.default_ram_gb
    return {"cpu": f"{max(1, round(cores * 1000))}m", "memory": f"{mebibytes(memory_gb)}Mi"}


def mebibytes(gib: float) -> int:
    """MiB of a request in GiB; not less than a container needs to start."""
    return max(LEAST_MEMORY_MIB, round(gib * 1024))


def shared_memory_bytes(place: PodContext, plan: Layout) -> int:
    """Bytes of /dev/shm; 0 where that is left as it is, or holds files of the task."""
    asked_gb = (place.task.resources or Resources()).ram_gb or 0
    size = parameters.shared_memory_bytes(place.parameters, mebibytes(asked_gb) * 1024**2 if asked_gb else 0)
    return 0 if plan.covers(SHARED_MEMORY) else size


def resources_of(place: PodContext) -> Manifest:
    requests = requests_of(place)
    limits = {}
    if place.cluster.cpu_limit == "request":
        limits["cpu"] = requests["cpu"]
    if place.cluster.memory_limit == "request" and (place.task.resources or Resources()).ram_gb:
        limits["memory"] = requests["memory"]
    if gpus := place.parameters.get(parameters.GPU):
        limits[place.cluster.gpu_resource] = gpus
    return {"requests": requests, "limits": limits}


def _at_least(own: Manifest, asked: dict[str, str]) -> Manifest:
    """The filer asks for what the executors will ask for: its volume may bind them to the node that it gets."""
    memory = max(own["requests"]["memory"], asked["memory"], key=lambda quantity: int(quantity[:-2]))
    cpu = max(own["requests"]["cpu"], asked["cpu"], key=lambda quantity: int(quantity[:-1]))
    limit = max(own["limits"]["memory"], memory, key=lambda quantity: int(quantity[:-2]))
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}


def scheduling(place: PodContext) -> Manifest:
    cluster, asked = place.cluster, place.task.resources or Resources()
    given = place.parameters
    chosen = dict(cluster.node_selector)
    tolerations = list(cluster.tolerations)
    if asked.preemptible:
        chosen |= cluster.preemptible_node_selector
        tolerations += cluster.preemptible_tolerations
    prefix = "node_selector."
    chosen |= {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
    found: Manifest = {"nodeSelector": chosen, "tolerations": tolerations}
    if terms := _node_terms(place, asked):
        required = {"nodeSelectorTerms": [terms]}
        found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    for parameter, field in (("priority_class", "priorityClassName"), ("runtime_class", "runtimeClassName")):
        if value := given.get(parameter):
            found[field] = value
    return found


def _node_terms(place: PodContext, asked: Resources) -> Manifest:
    terms: Manifest = {}
    zones = [asked.zones] if isinstance(asked.zones, str) else asked.zones
    if zones and place.cluster.zone_label:
        terms["matchExpressions"] = [{"key": place.cluster.zone_label, "operator": "In", "values": zones}]
    if place.node:
        terms["matchFields"] = [{"key": "metadata.name", "operator": "In", "values": [place.node]}]
    return terms


def own_container(
    name: str, cluster: TaskSettings, arguments: list[str], mounts: Sequence[tuple[str, str, bool]],
    *, memory_mib: tuple[int, int],
) -> Manifest:  # fmt: skip
    """A container of ours, fit for the Pod Security Standard "restricted". `memory_mib`: request and limit."""
    context: Manifest = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if cluster.own_user is not None:
        context["runAsUser"] = cluster.own_user
    request, limit = memory_mib
    return {
        "name": name,
        "image": cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "args": arguments,
        "env": [],
        "volumeMounts": [{"name": of, "mountPath": at, "readOnly": read_only} for of, at, read_only in mounts],
        "resources": {
            "requests": {"cpu": "10m", "memory": f"{request}Mi"},
            "limits": {"memory": f"{limit}Mi"},
        },
        "securityContext": context,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def own_spec(
    cluster: TaskSettings, containers: list[Manifest], volumes: list[Manifest], *, token: bool = False
) -> Manifest:
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": OWN_GRACE_S,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": cluster.node_selector,
        "tolerations": list(cluster.tolerations),
        "containers": containers,
        "volumes": volumes,
    }


def _pod(place: PodContext, name: str, role: str, spec: Manifest, executor: int | None = None) -> Manifest:
    metadata = metadata_of(place.cluster, name, place.task_id, role, executor) | {
        "ownerReferences": owned_by_job(place.task_id, place.owner_uid)
    }
    fitting = fitted(spec, place.cluster.bounds, asked_of(place))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": fitting}


def asked_of(place: PodContext) -> dict[str, str]:
    """What the task itself asks for: nothing makes that less."""
    resources, requests = place.task.resources or Resources(), requests_of(place)
    asked = {"cpu": requests["cpu"]} if resources.cpu_cores else {}
    return asked | ({"memory": requests["memory"]} if resources.ram_gb else {})


def metadata_of(
    cluster: TaskSettings, name: str, task_id: TaskId, role: str = "", executor: int | None = None
) -> Manifest:
    labels = cluster.labels | names.labels(cluster.instance, task_id, role, executor)
    return {"name": name, "namespace": cluster.namespace, "labels": labels, "annotations": cluster.annotations}


def owned_by_account(account: Account | None) -> list[Manifest]:
    """The owners of what ends with the server's own account, where that is known."""
    if account is None:
        return []
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "name": account.name, "uid": account.uid}]


def owned_by_job(task_id: TaskId, uid: str) -> list[Manifest]:
    """The owners of what is deleted when the task's Job is. It does not hold the Job up: where the API guards that (the
    admission plugin OwnerReferencesPermissionEnforcement, as on OpenShift), a right on the Job's finalizers would be
    needed."""
    return [{"apiVersion": "batch/v1", "kind": "Job", "name": names.task_object(task_id), "uid": uid}]


def task_volume(task_id: TaskId, parts: int) -> Manifest:
    sources = []
    for number in range(parts):
        keys = [names.DOCUMENT_KEY] + ([names.CLUSTER_KEY, names.TOKEN_KEY] if not number else [])
        items = [{"key": key, "path": f"{number}/{key}"} for key in keys]
        sources.append({"secret": {"name": names.secret(task_id, number), "items": items}})
    return {"name": "task", "projected": {"sources": sources}}


def _claim_volume(place: PodContext) -> Manifest:
    claim = names.claim(place.task_id, place.attempt)
    return {"name": SCRATCH_VOLUME, "persistentVolumeClaim": {"claimName": claim}}


def _whereabouts(place: PodContext, name: str) -> list[Manifest]:
    return [{"name": "TESK_TASKMASTER", "value": place.taskmaster}, {"name": "TESK_POD", "value": name}]


def _item(key: str) -> Manifest:
    return {"key": key, "path": key}


def binary(data: Mapping[str, bytes]) -> dict[str, str]:
    """Bytes by key, as the API wants to have them."""
    return {key: base64.b64encode(value).decode() for key, value in data.items()}
