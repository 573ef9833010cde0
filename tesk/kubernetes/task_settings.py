"""The operator's choices for tasks on a cluster, as the server hands them to each taskmaster in the task's Secret."""

from typing import Literal

from msgspec import Struct

from tesk.filer.plan import FilerSettings
from tesk.kubernetes.bounds import Bounds


class Mount(Struct, frozen=True, omit_defaults=True):
    """A Secret whose keys the filer sees as files in a folder, and a claim likewise with `claim`."""

    path: str
    secret: str = ""
    claim: str = ""


class TaskSettings(Struct, frozen=True, omit_defaults=True):
    """See the settings of the same names. `tolerations` are Kubernetes Toleration objects.

    `bounds`: what the namespace allows, as the server saw it when it made the task's objects.
    """

    namespace: str
    instance: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    executor_image_pull_policy: str = "IfNotPresent"
    taskmaster_service_account: str = "tesk-taskmaster"
    taskmaster_retries: int = 20
    storage_class: str = ""
    access_mode: str = "ReadWriteOnce"
    default_disk_gb: float = 1.0
    default_cpu_cores: float = 0.1
    default_ram_gb: float = 0.25
    cpu_limit: Literal["none", "request"] = "none"
    memory_limit: Literal["none", "request"] = "request"
    pod_security: Literal["baseline", "restricted"] = "baseline"
    executor_capabilities: tuple[str, ...] = ()
    run_as_user: int | None = None
    own_user: int | None = 65532
    image_pull_secrets: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    preemptible_node_selector: dict[str, str] = {}
    preemptible_tolerations: tuple[dict[str, str], ...] = ()
    zone_label: str = "topology.kubernetes.io/zone"
    gpu_resource: str = "nvidia.com/gpu"
    allowed_backend_parameters: tuple[str, ...] = ()
    executor_service_account: str = ""
    filer_environment_secret: str = ""
    filer_mounts: tuple[Mount, ...] = ()
    filer: FilerSettings = FilerSettings()
    log_tail_bytes: int = 65536
    grace_s: float = 10.0
    image_timeout_s: float = 120.0
    schedule_timeout_s: float = 0.0
    start_timeout_s: float = 600.0
    executor_timeout_s: float = 0.0
    retries: int = 0
    bounds: Bounds = Bounds()
