"""What tasks cost the Kubernetes API: requests, by the API server's own count, and its CPU time."""

import re
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from tests.servers.cluster import Cluster

KINDS = ("pods", "jobs", "secrets", "configmaps", "serviceaccounts", "events", "persistentvolumeclaims")
"""What is asked for on behalf of tasks, by whomever: the server, controllers, the scheduler, kubelets."""
COUNTED = re.compile(r'^apiserver_request_total{.*[{,]resource="(\w+)".*} (\S+)$', re.MULTILINE)


class Cost(NamedTuple):
    """What the API server has done so far."""

    requests: float
    cpu_s: float

    def since(self, before: "Cost", count: int) -> "Cost":
        """For each of so many."""
        return Cost((self.requests - before.requests) / count, (self.cpu_s - before.cpu_s) / count)


def cost(cluster: Cluster) -> Cost:
    counted = COUNTED.findall(cluster.kubectl("get", "--raw", "/metrics"))
    requests = sum(float(number) for kind, number in counted if kind in KINDS)
    return Cost(requests, sum(map(_cpu_s, _servers(cluster))))


def _servers(cluster: Cluster) -> list[psutil.Process]:
    found = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "kube-apiserver"]
    own = [each for each in found if f"/tesk-{cluster.name}/" in Path(f"/proc/{each.pid}/cgroup").read_text()]
    return own or found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
