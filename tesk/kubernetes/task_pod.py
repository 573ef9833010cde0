"""The one pod in which a whole task runs (pure): a runner beside all executors, which wait for their turns.

All containers start at once, so nothing is made while the task runs, and nobody has to be there for it to go on. What
belongs to the runner alone (the task's document and word, the credentials of transfers) is mounted into no executor.
"""

import base64
import binascii
import math
import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from tesk.kubernetes import manifests, names
from tesk.kubernetes.account import Account
from tesk.kubernetes.bounds import Bounds, fitted
from tesk.kubernetes.manifests import Manifest, PodContext
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import Layout
from tesk.life.status import TaskId
from tesk.tes import Executor, Task, TaskLog

RUNNER_MEMORY_MIB: Final = (32, 320)
"""A filer runs in it too."""
EARLIER_BYTES: Final = 100_000
"""Of the 256 KiB that the annotations of an object may have together."""
EARLIER_UNPACKED: Final = 4 * 1024 * 1024
SHORTER: Final = (8192, 1024, 0)
"""Characters of each output that are kept of earlier attempts where not all can be."""


class PodAttempt(msgspec.Struct, frozen=True):
    """What the pod of one attempt is made of beside the task. `number` counts from 1; `parts`: Secrets of the task.

    `report`: where the server takes reports, "" for nowhere. `mode_line`: what the task's log says of its mode.
    """

    number: int
    parts: int
    report: str
    word_sha256: str
    mode_line: str
    earlier: tuple[TaskLog, ...] = ()
    account: Account | None = None
    has_pod_resources: bool = False
    """The cluster takes requests of a pod as a whole."""


def task_pod(task_id: TaskId, task: Task, cluster: TaskSettings, plan: Layout, attempt: PodAttempt) -> Manifest:
    """The pod of an attempt; `plan` is its pod_layout."""
    place = PodContext(task_id, task, cluster, "", "", attempt.parts, attempt.number)
    shared_memory = manifests.shared_memory_bytes(place, plan)
    runner, volumes = _runner(place, plan, attempt)
    executors = [_executor(place, n, executor, plan) for n, executor in enumerate(task.executors)]
    for n, container in enumerate(executors if shared_memory else ()):
        memory = {"medium": "Memory", "sizeLimit": str(shared_memory)}
        volumes.append({"name": f"memory-{n}", "emptyDir": memory})
        container["volumeMounts"].append({"name": f"memory-{n}", "mountPath": manifests.SHARED_MEMORY})
    has_claim = any("ephemeral" in volume or "persistentVolumeClaim" in volume for volume in volumes)
    volumes += manifests.data_volumes(cluster)
    spec = manifests.own_spec(cluster, [runner, *executors], volumes) | manifests.scheduling(place)
    spec["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if cluster.own_user is not None and has_claim:
        spec["securityContext"] |= {"fsGroup": cluster.own_user, "fsGroupChangePolicy": "OnRootMismatch"}
    spec["terminationGracePeriodSeconds"] = max(1, math.ceil(cluster.grace_s))
    if account := manifests.executor_account(task, cluster):
        spec["serviceAccountName"] = account
    _request_once(place, spec, has_pod_resources=attempt.has_pod_resources)
    metadata = manifests.metadata_of(cluster, names.task_pod(task_id, attempt.number), task_id, names.TASK_POD)
    notes = {names.WORD_SHA256: attempt.word_sha256, names.MODE_LINE: attempt.mode_line}
    if attempt.earlier:
        notes[names.EARLIER] = pack_earlier(attempt.earlier)
    metadata |= {
        "annotations": metadata["annotations"] | notes,
        "ownerReferences": manifests.owned_by_account(attempt.account),
    }
    fitting = fitted(spec, cluster.bounds, manifests.asked_of(place))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": fitting}


def pack_earlier(logs: Sequence[TaskLog]) -> str:
    """What is known of earlier attempts as an annotation: with less of their output, or of fewer, where it must be."""
    for characters in (None, *SHORTER):
        kept = logs if characters is None else [_shortened(log, characters) for log in logs]
        packed = _packed(kept)
        if len(packed) <= EARLIER_BYTES:
            return packed
    return _packed([_told_of(log) for log in logs[-10:]])


def _packed(logs: Sequence[TaskLog]) -> str:
    return base64.b64encode(zlib.compress(msgspec.json.encode(logs), 6)).decode()


def unpack_earlier(text: str) -> tuple[TaskLog, ...]:
    """Raises ValueError for what is no such annotation."""
    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(base64.b64decode(text, validate=True), EARLIER_UNPACKED)
        return msgspec.json.decode(plain, type=tuple[TaskLog, ...])
    except (binascii.Error, zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"what is known of earlier attempts cannot be read: {error}") from None


def _runner(place: PodContext, plan: Layout, attempt: PodAttempt) -> tuple[Manifest, list[Manifest]]:
    """The runner's container, and the volumes that it has; some of them others have too."""
    mounts = [
        ("task", manifests.TASK_FOLDER, True), ("shim", manifests.SHIM, False), ("control", manifests.CONTROL, False),
        ("tmp", "/tmp", False),  # noqa: S108
    ]  # fmt: skip
    volumes: list[Manifest] = [manifests.task_volume(place.task_id, place.parts)]
    volumes += [{"name": name, "emptyDir": {}} for name in ("shim", "control", "tmp")]
    if not plan.is_empty:
        mounts.append((manifests.SCRATCH_VOLUME, manifests.SCRATCH, False))
        volumes.append({"name": manifests.SCRATCH_VOLUME, **_scratch(place)})
    runner = manifests.own_container(
        names.RUNNER_CONTAINER, place.cluster, ["runner"], mounts, memory_mib=RUNNER_MEMORY_MIB
    )
    if not plan.is_empty and manifests.is_on_node(place.task, place.cluster):
        runner["resources"]["requests"]["ephemeral-storage"] = _disk(place)
    runner["env"] += [
        {"name": "TESK_POD", "value": names.task_pod(place.task_id, attempt.number)},
        {"name": "TESK_TASK", "value": place.task_id},
        {"name": "TESK_REPORT", "value": attempt.report},
    ]
    runner["lifecycle"] = manifests.bringing_the_shim()
    return runner, volumes + manifests.give_credentials(runner, place.cluster)


def _executor(place: PodContext, n: int, executor: Executor, plan: Layout) -> Manifest:
    """The container of an executor. It has the control folder of its own, and no other's."""
    container = manifests.executor_container(place, executor, plan, own_workdir=False, command="wait")
    mounts = [each for each in container["volumeMounts"] if each["name"] not in ("control", "memory")]
    control = {"name": "control", "mountPath": manifests.CONTROL, "subPath": names.executor_container(n)}
    return container | {"name": names.executor_container(n), "volumeMounts": [*mounts, control]}


def _scratch(place: PodContext) -> Manifest:
    """The source of the scratch volume: a folder of the node, else a claim that the cluster deletes with the pod."""
    if manifests.is_on_node(place.task, place.cluster):
        return {"emptyDir": {"sizeLimit": _disk(place)}}
    template = {
        "metadata": {"labels": place.cluster.labels | names.labels(place.cluster.instance, place.task_id)},
        "spec": manifests.claim_spec(place.task, place.cluster),
    }
    return {"ephemeral": {"volumeClaimTemplate": template}}


def _disk(place: PodContext) -> str:
    return f"{math.ceil(manifests.disk_gb(place.task, place.cluster) * 1024)}Mi"


def _request_once(place: PodContext, spec: dict[str, Any], *, has_pod_resources: bool) -> None:
    """What the task asks for is asked for once, though each executor has its own container: only one of them runs.

    A limit without a request would become one, so all others ask for nothing in words.
    """
    runner, first, *others = spec["containers"]
    for container in others:
        container["resources"]["requests"] = {"cpu": "0", "memory": "0"}
    if has_pod_resources and place.cluster.bounds == Bounds():
        asked, own = first["resources"]["requests"], runner["resources"]["requests"]
        sums = {"cpu": f"{int(asked['cpu'][:-1]) + int(own['cpu'][:-1])}m"}
        sums["memory"] = f"{int(asked['memory'][:-2]) + int(own['memory'][:-2])}Mi"
        spec["resources"] = {"requests": sums}
        first["resources"]["requests"] = {"cpu": "0", "memory": "0"}


def _shortened(log: TaskLog, characters: int) -> TaskLog:
    def end(text: Any) -> Any:
        return text if text is UNSET else text[max(0, len(text) - characters) :]

    entries = [replace(each, stdout=end(each.stdout), stderr=end(each.stderr)) for each in log.logs]
    return replace(log, logs=entries)


def _told_of(log: TaskLog) -> TaskLog:
    """When an attempt was, and the last lines about it."""
    lines = log.system_logs if log.system_logs is UNSET else [line[:500] for line in log.system_logs[-10:]]
    return TaskLog(start_time=log.start_time, end_time=log.end_time, system_logs=lines)
