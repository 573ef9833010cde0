"""Faults that strike a task's pods from outside."""

import base64
import contextlib
import json
import uuid
from collections.abc import Callable, Iterator

from tesk.kubernetes import record as records
from tesk.kubernetes.names import RECORD_KEY
from tesk.kubernetes.record import Record
from tests.engines.places import KubernetesPlace
from tests.servers.cluster import WAIT_S, Cluster, Object, until

NODE = "10.90.0.1"
"""The address of scripts/cluster's node for its own components."""


def pods(place: KubernetesPlace, task_id: str, role: str = "") -> list[Object]:
    """The task's pods; those of one role."""
    return place.cluster.get(place.namespace, "pods", f"tesk/task={task_id}" + (f",tesk/role={role}" if role else ""))


def taskmaster(place: KubernetesPlace, task_id: str) -> Object:
    """The newest pod of the task's Job."""
    found: list[Object] = until(lambda: pods(place, task_id, "taskmaster"), what=f"a taskmaster of {task_id}")
    return max(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def await_another_life(place: KubernetesPlace, task_id: str, before: Object) -> None:
    """Until the taskmaster that was `before` has been started again, in its pod or in another."""

    def life(pod: Object) -> tuple[str, int]:
        return pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))

    until(lambda: life(taskmaster(place, task_id)) != life(before), what=f"another taskmaster of {task_id}")


def has_completed(place: KubernetesPlace, task_id: str) -> bool:
    """True once the task's Job is Complete."""
    (job,) = place.cluster.get(place.namespace, "jobs", name=f"tesk-{task_id}")
    return any(
        each["type"] == "Complete" and each["status"] == "True" for each in job["status"].get("conditions") or ()
    )


def kill(
    place: KubernetesPlace, pod: str, container: str, signal: str = "KILL", seconds: float = WAIT_S
) -> None:  # fmt: skip
    """A signal for the first process of a container that runs, of which the kubelet may say so later."""
    name = container_id(place, pod, container, seconds)
    place.cluster.on_node(
        "sh", "-c", f"kill -s {signal} $(ctr tasks ls 2> /dev/null | awk '$1 == \"{name}\" {{print $2}}')"
    )


def container_id(place: KubernetesPlace, pod: str, container: str, seconds: float = WAIT_S) -> str:
    """The name of a container on its node, once it has one."""

    def known() -> str:
        found = place.cluster.get(place.namespace, "pods", name=pod)
        statuses = [status for each in found for status in each["status"].get("containerStatuses") or ()]
        return next((status.get("containerID", "") for status in statuses if status["name"] == container), "")

    return str(until(known, seconds, f"the start of {container} in {pod}")).removeprefix("containerd://")


def use_up_memory(place: KubernetesPlace, pod: str, container: str) -> None:
    """The kernel kills what runs in a container for want of memory: a process that it may not kill has it all."""
    name = container_id(place, pod, container)
    script = f"""
        group=$(find /sys/fs/cgroup/memory /sys/fs/cgroup -type d -name '*{name}*' 2> /dev/null | head -n 1)
        victims=$(cat "$group/cgroup.procs")
        (
            echo 0 > "$group/cgroup.procs"
            echo -1000 > /proc/self/oom_score_adj
            exec timeout 600 sh -c 'head -c 2000000000 /dev/zero | tail -c 2000000000 > /dev/null'
        ) &
        for _ in $(seq 6000); do
            left=
            for each in $victims; do kill -0 $each && left=yes; done
            [ -n "$left" ] || break
            sleep 0.1
        done
        kill $!
    """
    place.cluster.on_node("sh", "-c", f"({script}) > /dev/null 2>&1 &")


def rewrite(place: KubernetesPlace, task_id: str, change: Callable[[Record], None]) -> None:
    """Changes a task's record behind its taskmaster's back."""
    name = f"tesk-{task_id}"
    (found,) = place.cluster.get(place.namespace, "configmaps", name=name)
    record = records.unpack(base64.b64decode(found["binaryData"][RECORD_KEY]))
    change(record)
    patch = json.dumps({"binaryData": {RECORD_KEY: base64.b64encode(records.pack(record)).decode()}})
    place.cluster.kubectl("-n", place.namespace, "patch", "configmap", name, "--type=merge", "-p", patch)


def delete(place: KubernetesPlace, kind: str, name: str, *, at_once: bool = False, cascade: str = "background") -> None:
    """Deletes an object, and does not wait for its end. `at_once`: by force, whatever still runs."""
    options = {"gracePeriodSeconds": "0"} if at_once else {}
    place.cluster.delete(place.namespace, f"{kind}s", name, propagationPolicy=cascade.capitalize(), **options)


def cut_down(cluster: Cluster, component: str) -> None:
    """Kills a component of the node as a crash does, and keeps it down until `cluster.start`."""
    cluster.stop(component)


@contextlib.contextmanager
def silenced(cluster: Cluster) -> Iterator[None]:
    """Every connection that pods and this machine have to the API server now loses all its packets; new ones work."""
    listed = cluster.on_node("ss", "-Htn", "state", "established", "( sport = :6443 )")
    script = []
    for line in listed.splitlines():
        host, _, port = line.split()[-1].rpartition(":")
        address = host.strip("[]").removeprefix("::ffff:")
        if ":" not in address and not address.startswith(("127.", NODE)):
            script.append(f"iptables -w -A SILENCED -p tcp -s {address} --sport {port} -j DROP")
            script.append(f"iptables -w -A SILENCED -p tcp -d {address} --dport {port} -j DROP")
    assert script, listed
    script += [f"iptables -w -I {chain} -j SILENCED" for chain in ("INPUT", "OUTPUT")]
    cluster.on_node("sh", "-ec", "\n".join(["iptables -w -N SILENCED", *script]))
    try:
        yield
    finally:
        cluster.on_node(
            "sh",
            "-ec",
            "iptables -w -D INPUT -j SILENCED; iptables -w -D OUTPUT -j SILENCED; iptables -w -F SILENCED; "
            "iptables -w -X SILENCED",
        )


@contextlib.contextmanager
def without_logs(cluster: Cluster, instead: str = "REJECT --reject-with tcp-reset") -> Iterator[None]:
    """The API server reaches no kubelet, so that it has no logs; pods go on. `instead`: what becomes of its packets."""
    rule = f"OUTPUT -p tcp --dport 10250 -j {instead}"
    cluster.on_node("sh", "-c", f"iptables -w -I {rule}")
    try:
        yield
    finally:
        cluster.on_node("sh", "-c", f"iptables -w -D {rule}")


@contextlib.contextmanager
def webhook_away(cluster: Cluster, namespace: str, role: str) -> Iterator[None]:
    """Pods of a role need the word of a webhook that cannot be reached."""
    name = f"away-{uuid.uuid4().hex[:8]}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": f"{name}.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [rule],
        "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "objectSelector": {"matchLabels": {"tesk/role": role}},
    }  # fmt: skip
    kind = "ValidatingWebhookConfiguration"
    api = "admissionregistration.k8s.io/v1"
    cluster.apply({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]})
    try:
        await_refusal(cluster, namespace, role, name)
        yield
    finally:
        cluster.kubectl("delete", kind, name)


def await_refusal(cluster: Cluster, namespace: str, role: str, words: str) -> None:
    """Until pods of a role are refused with these words: it takes the API server a moment to know of that."""
    probe = ["run", "probe", "--image=localhost/busybox:1", f"--labels=tesk/role={role}", "--dry-run=server"]

    def is_refused() -> bool:
        try:
            cluster.kubectl("-n", namespace, *probe)
        except AssertionError as error:
            return words in str(error)
        return False

    until(is_refused, what=f"a refusal of role {role} in {namespace}")


def limit(place: KubernetesPlace, **most: int) -> None:
    """Lets the namespace hold so many objects of some kinds, given as count_pods=3."""
    hard = {kind.replace("_", "/"): str(count) for kind, count in most.items()}
    metadata = {"name": "limit", "namespace": place.namespace}
    place.cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}})
    await_quotas(place.cluster, place.namespace)


def await_quotas(cluster: Cluster, namespace: str) -> None:
    """Until the quotas of a namespace have been counted as they are now: before that they hold nothing back."""

    def are_counted() -> bool:
        quotas = cluster.get(namespace, "resourcequotas")
        return all(each.get("status", {}).get("hard") == each["spec"]["hard"] for each in quotas)

    until(are_counted, what=f"the count of the quotas of {namespace}")


def lift(place: KubernetesPlace) -> None:
    delete(place, "resourcequota", "limit")
