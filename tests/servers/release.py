"""The chart, installed for real: a release in a namespace, and what its clients see of it."""

import contextlib
import json
import re
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.cluster import BUSYBOX, PRODUCT, WAIT_S, Cluster, Object, look_at_rest, until, watched
from tests.servers.helm import CHART, helm

IMAGE = {
    "image.repository": PRODUCT.partition(":")[0],
    "image.tag": PRODUCT.partition(":")[2],
    "test.image": BUSYBOX,
    "front.drainSeconds": 1,
    "people.anyone": True,
}
ENDS = {"COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED"}
OF_THE_NAMESPACE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
"""What Kubernetes itself puts into every namespace."""

Values = Mapping[str, Any]


class Release(NamedTuple):
    """A release of the chart. `major`: the Helm that manages it."""

    cluster: Cluster
    namespace: str
    name: str
    major: int = 3

    def install(self, values: Values) -> None:
        self._helm("install", values)

    def upgrade(self, values: Values) -> None:
        self._helm("upgrade", values)

    def uninstall(self) -> None:
        arguments = ["uninstall", self.name, "--namespace", self.namespace, "--wait", "--timeout", "600s"]
        helm(arguments, major=self.major, kubeconfig=self.cluster.kubeconfig)

    def test(self) -> str:
        """What `helm test` says."""
        arguments = ["test", self.name, "--namespace", self.namespace, "--timeout", "600s"]
        return helm(arguments, major=self.major, kubeconfig=self.cluster.kubeconfig)

    def find(self, kind: str, component: str = "server") -> Object:
        """The one object of a kind that is a part of this release, beside any that is being deleted."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        all_found = self.cluster.get(self.namespace, kind, selector)
        (found,) = [each for each in all_found if "deletionTimestamp" not in each["metadata"]]
        return found

    @contextlib.contextmanager
    def forwarded(self) -> Iterator["Client"]:
        """A client whose requests come through the Service, as `kubectl port-forward` makes it."""
        service = self.find("services")["metadata"]["name"]
        with port_forward(self.cluster, self.namespace, service) as url:
            yield Client(url)

    def _helm(self, verb: str, values: Values) -> None:
        arguments = [verb, self.name, str(CHART), "--namespace", self.namespace, "--wait", "--timeout", "600s"]
        arguments += [f"--set-json={key}={json.dumps(value)}" for key, value in (IMAGE | dict(values)).items()]
        helm(arguments, major=self.major, kubeconfig=self.cluster.kubeconfig)


class Client(NamedTuple):
    """A TES client: standard library only, one connection a request."""

    url: str
    authorization: str = ""
    """The header of that name; empty: nobody signs in."""

    def call(self, path: str, document: Object | None = None) -> Object:
        """The answer to a GET, or to a POST of a document.

        kubectl cuts connections where the cluster is slow to answer. Then this asks again; a task may be there twice.
        """
        return dict(until(lambda: self._ask(path, document), what=f"an answer of {path}"))

    def _ask(self, path: str, document: Object | None) -> Object | None:
        data = None if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        if self.authorization:
            headers["Authorization"] = self.authorization
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                found: Object = json.loads(answer.read())
                return found
        except ConnectionResetError:
            return None

    def create(self, *executors: Object, **task: Any) -> str:
        return str(self.call("/ga4gh/tes/v1/tasks", {"executors": list(executors), **task})["id"])

    def task(self, task_id: str) -> Object:
        return self.call(f"/ga4gh/tes/v1/tasks/{task_id}?view=FULL")

    def reached(self, task_id: str, state: str) -> Object:
        """The task as soon as it is in a state; an end that is another one fails the test."""

        def look() -> Object | None:
            task = self.task(task_id)
            assert task["state"] == state or task["state"] not in ENDS, task
            return task if task["state"] == state else None

        found: Object = until(look, 600.0, f"{state} of {task_id}")
        return found

    def run(self, *executors: Object, **task: Any) -> Object:
        return self.reached(self.create(*executors, **task), "COMPLETE")


def sh(script: str, image: str = BUSYBOX) -> Object:
    """An executor that runs a script."""
    return {"image": image, "command": ["sh", "-c", script]}


@contextlib.contextmanager
def place(cluster: Cluster, security: str = "baseline", given: Set[str] = frozenset()) -> Iterator[str]:
    """An empty namespace that enforces a Pod Security Standard; at the end nothing but what was `given` is in it."""
    name = f"tesk-chart-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": security}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        with watched(cluster, name):
            yield name
        assert left(cluster, name, given) == set()
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def released(
    cluster: Cluster, namespace: str, values: Values | None = None, *, name: str = "tesk", major: int = 3
) -> Iterator[Release]:
    """A release that is ready; it is uninstalled at the end."""
    release = Release(cluster, namespace, name, major)
    release.install(values or {})
    try:
        yield release
        look_at_rest(cluster, namespace)
    except BaseException:
        print(
            cluster.kubectl("-n", namespace, "get", "pods,events", "--sort-by=.metadata.creationTimestamp", check=False)
        )
        print(cluster.kubectl("-n", namespace, "logs", "-l", "app.kubernetes.io/component=server", check=False))
        raise
    finally:
        release.uninstall()


def left(cluster: Cluster, namespace: str, given: Set[str] = frozenset()) -> set[str]:
    """Everything that is in a namespace after a while and that Kubernetes has not made by itself."""
    listed = cluster.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "-o", "name").split()
    kinds = ",".join(kind for kind in listed if not kind.startswith("events"))

    def found() -> set[str]:
        objects = json.loads(cluster.kubectl("-n", namespace, "get", kinds, "-o", "json"))["items"]
        return {f"{each['kind']}/{each['metadata']['name']}" for each in objects} - OF_THE_NAMESPACE - given

    deadline = time.monotonic() + WAIT_S
    while (there := found()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return there


@contextlib.contextmanager
def port_forward(cluster: Cluster, namespace: str, service: str) -> Iterator[str]:
    """The URL on this machine at which a Service is reached."""
    command = cluster.command("-n", namespace, "port-forward", f"service/{service}", ":http")
    with tempfile.NamedTemporaryFile() as log:  # it writes a line for each connection, and a pipe would be full one day
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=cluster.environment)

        def port() -> str:
            said = Path(log.name).read_text()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found or child.poll() is None, f"kubectl port-forward: {said}"
            return found[1] if found else ""

        try:
            yield f"http://127.0.0.1:{until(port, what='kubectl port-forward')}"
        finally:
            child.kill()
            child.wait()


def secret(name: str, namespace: str, **data: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def write(path: Path, text: str) -> None:
    """A file that anybody may read, in folders that anybody may write to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o777)
    path.write_text(text)
    path.chmod(0o644)
