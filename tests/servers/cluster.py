"""A real Kubernetes for the tests: the node of scripts/cluster, or an existing cluster that TESK_TEST_KUBECONFIG names.

TESK_TEST_CLUSTER names a node of scripts/cluster that stays up, for tests that leave the node as it is; other nodes are
started and ended here.
TESK_TEST_IMAGE_ARCHIVE: where the product's image is kept between runs.
"""

import contextlib
import fcntl
import functools
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from tesk.places.kubernetes import config, rights
from tesk.places.kubernetes.client import GROUPS
from tests import known_secrets
from tests.servers import containers
from tests.servers.watched import KINDS as WATCHED
from tests.servers.watched import Watcher, look_at

ROOT: Final = Path(__file__).parents[2]
SCRIPT: Final = str(ROOT / "scripts" / "cluster")
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tesk"
PRODUCT: Final = "localhost/tesk:dev"
BUSYBOX: Final = "localhost/busybox:1"
START_S: Final = 1800.0
WAIT_S: Final = 600.0
RUN: Final = os.environ.setdefault("TESK_TEST_RUN", str(os.getpid()))
"""Names a run of the suite; its further processes inherit the variable from the first one."""
KINDS: Final = ("jobs", "pods", "configmaps", "secrets", "persistentvolumeclaims")
"""Kinds of which a task makes objects."""
OF_A_NAMESPACE: Final = (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt"))
"""What Kubernetes itself puts into every namespace, a moment after it was made; pods need it, and quotas count it."""

APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}

Object = dict[str, Any]


class Cluster(NamedTuple):
    """`name`: of the node of scripts/cluster, empty for an existing cluster. `kubeconfig`: an administrator's."""

    name: str
    kubeconfig: Path

    def kubectl(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """What kubectl prints; `given` is its standard input."""
        done = subprocess.run(
            self.command(*arguments), input=given, capture_output=True, text=True, timeout=900, env=self.environment
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Makes objects, or makes those that are there like them."""
        if not (api := self._api):
            listed = {"apiVersion": "v1", "kind": "List", "items": [*objects]}
            self.kubectl("apply", "-f", "-", given=json.dumps(listed))
            return
        for each in objects:
            options = {"fieldManager": "tests", "force": "true"}
            answer = api.patch(_path(api, each), params=options, headers=APPLY, content=json.dumps(each))
            assert answer.is_success, f"{each['kind']} {each['metadata']['name']}: {answer.text}"

    def delete(self, namespace: str, kind: str, name: str, **options: str) -> None:
        """Begins to delete an object, if it is there. `options`: those of the API's request."""
        if api := self._api:
            answer = api.delete(f"{_of(kind, namespace)}/{name}", params={"propagationPolicy": "Background", **options})
            assert answer.is_success or answer.status_code == 404, f"{kind} {name}: {answer.text}"
            return
        words = {"gracePeriodSeconds": "--force --grace-period", "propagationPolicy": "--cascade"}
        flags = [f"{words[key]}={value.lower()}" for key, value in options.items()]
        command = f"-n {namespace} delete {kind} {name} --wait=false --ignore-not-found"
        self.kubectl(*command.split(), *" ".join(flags).split())

    def get(self, namespace: str, kind: str, selector: str = "", *, name: str = "") -> list[Object]:
        """The objects of a kind in a namespace; those with certain labels, or the one of a name."""
        fields = f"metadata.name={name}" if name else ""
        if api := self._api:
            asked = {"labelSelector": selector, "fieldSelector": fields}
            found = api.get(_of(kind, namespace), params=asked).raise_for_status().text
        else:
            options = ["-l", selector, "--field-selector", fields, "-o", "json"]
            found = self.kubectl("-n", namespace, "get", kind, *options)
        items: list[Object] = json.loads(found)["items"]
        return items

    def log(self, namespace: str, pod: str, container: str = "") -> str:
        """What a container of a pod, or its only one, has printed so far; nothing as long as it has not started."""
        if api := self._api:
            answer = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", params={"container": container})
            return answer.text if answer.is_success else ""
        return self.kubectl("-n", namespace, "logs", pod, "-c", container, check=False)

    def on_node(self, *command: str, check: bool = True) -> str:
        """Runs a command on the node."""
        return self._script("in", *command, check=check)

    def need_node(self) -> None:
        """Skips a test on an existing cluster, before it has begun what would be left there."""
        self.on_node("true")

    def stop(self, component: str) -> None:
        """Keeps a component (etcd, kube-apiserver, kubelet, …) down."""
        self._script("stop", component)

    def start(self, component: str) -> None:
        """Lets a component come up again."""
        self._script("start", component)

    def load(self, *archives: Path) -> None:
        """Takes images in, as OCI archives or as `docker save` writes them."""
        self._script("import", *map(str, archives))

    def trust(self, registry: str) -> None:
        """Lets the node pull from a registry (host and port) that speaks plain HTTP."""
        self.need_node()
        folder = self.kubeconfig.parent / "certs.d" / registry
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(f'[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n')

    @property
    def _api(self) -> httpx.Client | None:
        return _client(self.kubeconfig, self.kubeconfig.stat().st_mtime_ns)

    @property
    def client_options(self) -> dict[str, Any] | None:
        """Those of an HTTP client that asks the API server itself; None where only kubectl can sign in."""
        return _client_options(self.kubeconfig)

    @property
    def host(self) -> str:
        """The address at which pods reach this machine; of an existing cluster, from which its nodes are reached."""
        if self.name:
            return self.on_node("ip", "route", "show", "default").split()[2]
        kind = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
        node = self.kubectl("get", "nodes", "-o", f"jsonpath={kind}").split()[0]
        with socket.socket(socket.AF_INET6 if ":" in node else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((node, 9))
            return str(probe.getsockname()[0])

    def command(self, *arguments: str) -> list[str]:
        """A kubectl command, to be run in `environment`."""
        return [*([SCRIPT] if self.name else []), "kubectl", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CLUSTER": self.name, "KUBECONFIG": str(self.kubeconfig)}

    def _script(self, *words: str, check: bool = True) -> str:
        if not self.name:
            pytest.skip(f"not on an existing cluster, whose node is out of reach: scripts/cluster {' '.join(words)}")
        done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, timeout=900, env=self.environment)
        assert not check or done.returncode == 0, f"scripts/cluster {' '.join(words)}: {done.stderr}"
        return done.stdout


@functools.cache
def _client(kubeconfig: Path, written_ns: int) -> httpx.Client | None:
    """Asks the API server itself, which costs less than kubectl; None where only kubectl can sign in."""
    options = _client_options(kubeconfig)
    return httpx.Client(**options) if options else None


def _client_options(kubeconfig: Path) -> dict[str, Any] | None:
    access = config.load(str(kubeconfig), {})
    if access.plugin or access.token_file:
        return None
    headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
    verify = config.tls(access)
    return {"base_url": access.server, "verify": verify, "headers": headers, "timeout": 300, "trust_env": False}


def _of(kind: str, namespace: str) -> str:
    """The path of all objects of a kind in a namespace."""
    group = f"apis/{GROUPS[kind]}" if kind in GROUPS else "api"
    return f"/{group}/v1/namespaces/{namespace}/{kind}"


def _path(api: httpx.Client, made: Object) -> str:
    """The path of an object."""
    version, metadata = made["apiVersion"], made["metadata"]
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    kind = _kinds(api, root)[made["kind"]]
    folder = f"/namespaces/{metadata.get('namespace', 'default')}" if kind["namespaced"] else ""
    return f"{root}{folder}/{kind['name']}/{metadata['name']}"


@functools.cache
def _kinds(api: httpx.Client, root: str) -> dict[str, Object]:
    """What the API tells of each kind of one of its versions."""
    listed = api.get(root).raise_for_status().json()["resources"]
    return {each["kind"]: each for each in listed if "/" not in each["name"]}


@contextlib.contextmanager
def cluster(folder: Path, name: str, version: str = "", *, shared: bool = False) -> Iterator[Cluster]:
    """A cluster that has the tests' images. One that is `shared` stays up until `end`."""
    existing = os.environ.get("TESK_TEST_KUBECONFIG")
    if existing:
        yield Cluster("", Path(existing))
        return
    version = version or os.environ.get("KUBE_VERSION", "")
    started = subprocess.run(
        [SCRIPT, "up", version, name], capture_output=True, text=True, timeout=START_S, check=False
    )
    assert started.returncode == 0, f"scripts/cluster up: {started.stderr}"
    running = Cluster(name, Path(started.stdout.strip()))
    try:
        _load_once(running, folder)
        yield running
    finally:
        if not shared:
            end(name)


def end(name: str) -> None:
    """Ends a node of scripts/cluster, if it is up."""
    if subprocess.run([SCRIPT, "status", name], capture_output=True, timeout=300, check=False).returncode == 0:
        subprocess.run([SCRIPT, "down", name], check=True, timeout=300)


def _load_once(running: Cluster, folder: Path) -> None:
    """Takes the tests' images in, unless another process of this run has done so."""
    mark = running.kubeconfig.parent / "images-of-the-tests"
    with mark.open("a+") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        taken.seek(0)
        if taken.read() != RUN:
            running.load(*archives(folder))
            taken.truncate(0)
            taken.write(RUN)


def archives(folder: Path) -> list[Path]:
    """The product's image, built from its Dockerfile, and the images of the tests' executors."""
    product = Path(os.environ.get("TESK_TEST_IMAGE_ARCHIVE") or CACHE / "image" / "tesk.tar")
    subprocess.run([str(ROOT / "scripts" / "image"), str(product), PRODUCT], check=True, timeout=START_S)
    made = [product]
    for number, (image, options) in enumerate(containers.IMAGES.items()):
        made.append(folder / f"{number}.tar")
        made[-1].write_bytes(containers.image_archive(image, **options))
    return made


@contextlib.contextmanager
def namespace(cluster: Cluster, security: str = "baseline") -> Iterator[str]:
    """A namespace that enforces a Pod Security Standard and has the taskmasters' service account."""
    name = f"tesk-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": security}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        *account(name, "tesk-taskmaster", rights.TASKMASTER),
    )
    for kind, first in OF_A_NAMESPACE:
        until(lambda: cluster.get(name, kind, name=first), what=f"{first} of {name}")  # noqa: B023
    try:
        with watched(cluster, name):
            yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Looks for known secrets in what is in a namespace until its end, and in its events."""
    options = cluster.client_options
    watcher = Watcher(namespace, options) if options else None
    try:
        yield
        look_at_rest(cluster, namespace)
    finally:
        if watcher:
            watcher.stop()


def look_at_rest(cluster: Cluster, namespace: str) -> None:
    """Looks for known secrets in what is in a namespace, and in the logs of tesk's own containers there. A user's
    program writes what it likes."""
    for kind in (*WATCHED, "events"):
        for each in cluster.get(namespace, kind):
            look_at(kind, each)
    for pod in cluster.get(namespace, "pods"):
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            if container["image"] == PRODUCT:
                where = f"the log of {container['name']} of pods/{pod['metadata']['name']}"
                known_secrets.look(where, cluster.log(namespace, pod["metadata"]["name"], container["name"]))


def account(namespace: str, name: str, needed: Mapping[str, tuple[str, ...]]) -> list[Object]:
    """A service account and its rights, by resource."""
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": name, "namespace": namespace}
    subject = {"kind": "ServiceAccount", **metadata}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules(needed)},
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata, "subjects": [subject],
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        },
    ]  # fmt: skip


def may(cluster: Cluster, namespace: str, name: str, verb: str, kind: str) -> bool:
    """Whether a service account has a right just now. The API server takes a moment to know of a Role that changed."""
    account = f"--as=system:serviceaccount:{namespace}:{name}"
    return cluster.kubectl("-n", namespace, "auth", "can-i", verb, kind, account, check=False).strip() == "yes"


def rules(needed: Mapping[str, tuple[str, ...]]) -> list[Object]:
    """Rights by resource as the rules of a Role."""
    return [
        {"apiGroups": [GROUPS.get(kind, "")], "resources": [kind], "verbs": list(verbs)}
        for kind, verbs in needed.items()
        if verbs
    ]


def share(cluster: Cluster, namespace: str, folder: Path, claim: str = "shared") -> None:
    """Makes a folder of this machine a claim of a namespace."""
    folder.chmod(0o777)
    volume = f"{namespace}-{claim}"
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume}
    cluster.apply(
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": str(folder)},
            },
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**spec, "resources": {"requests": {"storage": "1Gi"}}},
        },
    )  # fmt: skip


def leftovers(cluster: Cluster, namespace: str, seconds: float = WAIT_S, of: str = "") -> list[str]:
    """What tesk's tasks have left in a namespace after a while. One kind after the other is waited for, since each look
    at all of them is as many requests."""
    selector = "app.kubernetes.io/managed-by=tesk" + (f",{of}" if of else "")

    def found(*kinds: str) -> list[str]:
        return [
            f"{kind}/{each['metadata']['name']}" for kind in kinds for each in cluster.get(namespace, kind, selector)
        ]

    deadline = time.monotonic() + seconds
    while (left := found(*KINDS)) and time.monotonic() < deadline:
        while found(left[0].partition("/")[0]) and time.monotonic() < deadline:
            time.sleep(0.2)
    return left


def until(true: Callable[[], Any], seconds: float = WAIT_S, what: str = "what the test waits for") -> Any:
    """Returns the first true value of a function."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.1)
    return value
