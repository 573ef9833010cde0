"""The operator's settings for tasks on a cluster, as the server hands them to each taskmaster in the task's Secret."""

from typing import Literal

from msgspec import Struct, field

from tesk.declared import declared
from tesk.filer.plan import FilerSettings
from tesk.kubernetes.bounds import Bounds


class Mount(Struct, frozen=True, omit_defaults=True):
    """A Secret whose keys the filer sees as files in a folder, and a claim likewise with `claim`."""

    path: str
    secret: str = ""
    claim: str = ""


class Volume(Struct, frozen=True, omit_defaults=True):
    """A claim with reference data, which executors see at `path`, read-only."""

    path: str
    claim: str


class TaskSettings(Struct, frozen=True, omit_defaults=True):
    """See the settings of the same names. `tolerations` are Kubernetes Toleration objects.

    `bounds`: what the namespace allows, as the server saw it when it made the task's objects.
    """

    namespace: str
    instance: str
    image: str
    image_pull_policy: str = declared("image_pull_policy")
    executor_image_pull_policy: str = declared("executor_image_pull_policy")
    taskmaster_service_account: str = declared("taskmaster_service_account")
    taskmaster_retries: int = declared("taskmaster_retries")
    mode: Literal["taskmaster", "pod", "auto"] = declared("mode")
    pod_disk_gb: float = declared("pod_disk_gb")
    storage_class: str = declared("storage_class")
    access_mode: str = declared("access_mode")
    default_disk_gb: float = declared("default_disk_gb")
    default_cpu_cores: float = declared("default_cpu_cores")
    default_ram_gb: float = declared("default_ram_gb")
    cpu_limit: Literal["none", "request"] = declared("cpu_limit")
    memory_limit: Literal["none", "request"] = declared("memory_limit")
    pod_security: Literal["baseline", "restricted"] = declared("pod_security")
    executor_capabilities: tuple[str, ...] = declared("executor_capabilities")
    run_as_user: int | None = None
    own_user: int | None = declared("own_user")
    image_pull_secrets: tuple[str, ...] = declared("image_pull_secrets")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    preemptible_node_selector: dict[str, str] = {}
    preemptible_tolerations: tuple[dict[str, str], ...] = ()
    zone_label: str = declared("zone_label")
    gpu_resource: str = declared("gpu_resource")
    allowed_backend_parameters: tuple[str, ...] = declared("allowed_backend_parameters")
    executor_service_account: str = declared("executor_service_account")
    filer_environment_secret: str = declared("filer_environment_secret")
    filer_mounts: tuple[Mount, ...] = ()
    volumes: tuple[Volume, ...] = ()
    filer: FilerSettings = field(default_factory=FilerSettings)
    log_tail_bytes: int = declared("log_tail_bytes")
    grace_s: float = declared("grace_s")
    image_timeout_s: float = declared("image_timeout_s")
    schedule_timeout_s: float = declared("schedule_timeout_s")
    start_timeout_s: float = declared("start_timeout_s")
    executor_timeout_s: float = declared("executor_timeout_s")
    retries: int = declared("retries")
    bounds: Bounds = Bounds()
