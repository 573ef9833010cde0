"""What the operator's settings and the task's resources mean for its life on a cluster (pure)."""

from tesk.kubernetes import manifests
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.log_bound import task_bytes
from tesk.life.outcome import time_limit_s
from tesk.life.steps import Policy
from tesk.tes import Resources, Task


def policy(task: Task, cluster: TaskSettings, *, has_volume: bool, may_retry: bool = False) -> Policy:
    """`has_volume`: the task has files, so its inputs are fetched. `may_retry`: a loss is followed by an attempt."""
    asked = (task.resources or Resources()).ram_gb
    return Policy(
        has_inputs=has_volume,
        time_limit_s=time_limit_s(task, cluster.allowed_backend_parameters, cluster.executor_timeout_s),
        memory_limit_mib=manifests.mebibytes(asked) if asked and cluster.memory_limit == "request" else 0,
        log_bytes=task_bytes(cluster.log_tail_bytes),
        may_retry=may_retry,
    )
