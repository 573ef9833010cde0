"""The node of scripts/cluster: it runs pods, and leaves nothing of itself on this machine."""

import os
import subprocess
from pathlib import Path

from tests.servers.cluster import BUSYBOX, RUN, SCRIPT, until

NAME = f"test-{RUN}-{os.environ.get('PYTEST_XDIST_WORKER', 'node')}-node"
"""Two of these tests may run at the same time."""


def cluster(*words: str, check: bool = True) -> str:
    environment = {**os.environ, "CLUSTER": NAME}
    done = subprocess.run([SCRIPT, *words], env=environment, capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def traces(link: str = "") -> set[str]:
    """Links, mounts, cgroups and processes that belong to the node."""
    links = {f"link {path.name}" for path in Path("/sys/class/net").iterdir() if path.name == link}
    mounts = {f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if NAME in line}
    walk = os.walk("/sys/fs/cgroup")  # unlike Path.glob, it passes over what goes meanwhile
    cgroups = {f"cgroup {folder}" for folder, _, _ in walk if folder.endswith(f"/tesk-{NAME}")}
    processes = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if f"tesk/cluster/{NAME}/".encode() in words:
            processes.add(f"process {words!r}")
    return links | mounts | cgroups | processes


def test_a_node_runs_a_pod_and_its_end_leaves_nothing() -> None:
    before = traces()
    try:
        cluster("up", "newest", NAME)
        assert "up, Kubernetes" in cluster("status", NAME)
        cluster("kubectl", "run", "x", f"--image={BUSYBOX}", "--restart=Never", "--", "true")
        phase = ["kubectl", "get", "pod", "x", "-o", "jsonpath={.status.phase}"]
        until(lambda: cluster(*phase) == "Succeeded", what="the pod's end")
        link = cluster("in", "sh", "-c", "ip -o link show type veth | grep -o tkp[0-9]*").strip().replace("tkp", "tk")
        assert {trace.split()[0] for trace in traces(link) - before} == {"link", "cgroup", "process"}
    finally:
        cluster("down", NAME)
    assert traces(link) - before == set()
    assert cluster("status", NAME, check=False) == f"{NAME}: down\n"


def test_a_component_that_is_stopped_stays_down_until_it_is_started() -> None:
    try:
        cluster("up", "newest", NAME)
        cluster("stop", "kube-apiserver")
        until(lambda: not cluster("kubectl", "get", "nodes", check=False), what="the API server's end")
        cluster("start", "kube-apiserver")
        until(lambda: "node1" in cluster("kubectl", "get", "nodes", check=False), what="the API server's return")
    finally:
        cluster("down", NAME)
