"""Faults that strike a task's pods from outside."""

from tests.engines.places import KubernetesPlace
from tests.servers.cluster import Object, until


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


def kill(place: KubernetesPlace, pod: str, container: str) -> None:
    """SIGKILL for the first process of a container that runs."""
    path = f"{{.status.containerStatuses[?(@.name=='{container}')].containerID}}"
    found = place.cluster.kubectl("-n", place.namespace, "get", "pod", pod, "-o", f"jsonpath={path}")
    name = found.removeprefix("containerd://")
    assert name, f"{container} of {pod} does not run"
    place.cluster.on_node("sh", "-c", f"kill -9 $(ctr tasks ls 2> /dev/null | awk '$1 == \"{name}\" {{print $2}}')")


def delete(place: KubernetesPlace, kind: str, name: str, *options: str) -> None:
    """Deletes an object, and does not wait for its end."""
    place.cluster.kubectl("-n", place.namespace, "delete", kind, name, "--wait=false", "--ignore-not-found", *options)


def limit(place: KubernetesPlace, **most: int) -> None:
    """Lets the namespace hold so many objects of some kinds, given as count_pods=3."""
    hard = {kind.replace("_", "/"): str(count) for kind, count in most.items()}
    metadata = {"name": "limit", "namespace": place.namespace}
    place.cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}})
    until(
        lambda: place.cluster.kubectl(
            "-n", place.namespace, "get", "resourcequota", "limit", "-o", "jsonpath={.status.hard}"
        ),
        what="the quota's first count",
    )


def lift(place: KubernetesPlace) -> None:
    delete(place, "resourcequota", "limit")
