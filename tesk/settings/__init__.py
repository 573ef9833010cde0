"""Every setting of tesk, once: its group, name, type, default and meaning, and the chart's value that sets it.

A group is a table of the settings file. What else names settings is made from this declaration or held against it by a
test: flags and variables, docs/settings.md, the chart's values, and what of them travels to the pods of a task.
load.py finds the values in force.
"""

import re
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T")
_DECLARED: Final[list[tuple["Group", str, str, Meta]]] = []
"""What the fields of Settings are declared with, in their order."""


class Group(NamedTuple):
    """A table of the settings file. `engine`: the only engine that reads its settings; empty where both do."""

    name: str
    meaning: str
    engine: str = ""

    def __call__(self, default: T, meaning: str, chart: str = "", **bounds: Any) -> T:
        """Declares the next setting and gives its default. `chart`: the path of the chart's value that sets it."""
        _DECLARED.append((self, meaning, chart, Meta(**bounds)))
        return default


SERVER: Final = Group("server", "how clients reach the server")
PEOPLE: Final = Group("people", "who may call, and as whom")
SERVICE: Final = Group("service", "what `GET /service-info` says")
STORE: Final = Group("store", "where tasks are kept, and for how long")
TASKS: Final = Group("tasks", "where tasks run, and what each of them gets")
STORAGE: Final = Group("storage", "how inputs and outputs are moved")
LOCAL: Final = Group("local", "the container engine of this machine", "local")
KUBERNETES: Final = Group("kubernetes", "the cluster and the pods of tasks", "kubernetes")

Texts = tuple[str, ...]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
Limit = Literal["none", "request"]


class Settings(Struct, frozen=True, kw_only=True):
    """All settings by name. A name is unique in all groups; the flag of `tesk serve` has it too."""

    host: str = SERVER("127.0.0.1", "address to listen on", "server.host")
    port: int = SERVER(8080, "port to listen on; 0 takes a free one", ge=0, le=65535)
    cors_origins: Texts = SERVER((), "origins of web pages that may call the API; * for any", "corsOrigins")
    allowed_hosts: Texts = SERVER(
        (), "further Host names that are answered; *.DOMAIN for all below it, * for any", "allowedHosts"
    )
    max_body_bytes: int = SERVER(16 * 1024 * 1024, "largest request body", ge=1024)
    log_level: Literal["debug", "info", "warning", "error"] = SERVER(
        "info", "least severe log entries shown", "server.logLevel"
    )

    anyone: bool = PEOPLE(
        False, "whoever reaches the server may do everything, also from other machines", "people.anyone"
    )
    users_file: str = PEOPLE("", "file of users with passwords, written by `tesk user`", "people.usersSecret")
    issuers: str = PEOPLE("", "TOML file with a table for each OpenID Connect issuer", "people.issuersSecret")
    trusted_addresses: Texts = PEOPLE(
        (), "networks of proxies whose X-Forwarded-User and -Groups count", "people.trustedAddresses"
    )
    tokens: Literal["beside", "alone", "never"] = PEOPLE(
        "beside",
        "API tokens are a way in beside others; alone: also without others, since the operator makes them; never: off",
        "people.tokens",
    )
    token_days: int = PEOPLE(
        365, "days that an API token lasts at most; 90 unless more or less is asked", "people.tokenDays", ge=1
    )
    rules: str = PEOPLE(
        "", "TOML file: who may use which storage, volumes and images, and how much", "people.rulesConfigMap"
    )
    admins: Texts = PEOPLE((), "users who see and end everybody's tasks", "people.admins")
    admin_groups: Texts = PEOPLE((), "groups whose members are admins", "people.adminGroups")
    public_service_info: bool = PEOPLE(True, "service-info is answered without signing in", "people.publicServiceInfo")

    service_id: str = SERVICE("org.ga4gh.tesk", "service-info: id, in reverse domain notation", "serviceInfo.id")
    service_name: str = SERVICE("tesk", "service-info: name", "serviceInfo.name")
    service_description: str = SERVICE(
        "GA4GH Task Execution Service", "service-info: description", "serviceInfo.description"
    )
    organization_name: str = SERVICE("tesk", "service-info: organization.name", "serviceInfo.organizationName")
    organization_url: str = SERVICE(
        "https://www.ga4gh.org", "service-info: organization.url", "serviceInfo.organizationUrl"
    )
    storage: Texts = SERVICE((), "service-info: further storage locations to list", "serviceInfo.storage")

    data: str = STORE("~/.local/share/tesk", "folder for the database and the tasks' scratch volumes")
    database_url: str = STORE("", "SQLite or PostgreSQL URL; empty: a SQLite file in `data`")
    prune_after_s: float = STORE(
        0.0, "age at which finished tasks are deleted; 0: never", "tasks.pruneAfterSeconds", ge=0
    )

    engine: Literal["local", "kubernetes"] = TASKS("local", "where tasks run")
    max_active_tasks: int = TASKS(
        0, "tasks that may run at once; 0: as many as fit, on a cluster 1000", "tasks.maxActive", ge=0
    )
    default_cpu_cores: float = TASKS(0.28, "cores of a task that asks for none", "tasks.defaults.cpuCores", ge=0)
    default_ram_gb: float = TASKS(1.0, "GiB of a task that asks for none", "tasks.defaults.ramGb", ge=0)
    max_cpu_cores: float = TASKS(0.0, "most cores that a task may ask for; 0: any", "tasks.maxima.cpuCores", ge=0)
    max_ram_gb: float = TASKS(0.0, "most GiB of memory that a task may ask for; 0: any", "tasks.maxima.ramGb", ge=0)
    max_disk_gb: float = TASKS(0.0, "most GiB of disk that a task may ask for; 0: any", "tasks.maxima.diskGb", ge=0)
    max_files: int = TASKS(20_000, "most inputs, and most outputs, of a task", ge=1)
    executor_image_pull_policy: PullPolicy = TASKS(
        "IfNotPresent", "when executors' images are pulled, whatever their tag is", "tasks.imagePullPolicy"
    )
    executor_capabilities: tuple[Literal["MKNOD", "NET_RAW"], ...] = TASKS(
        (), "capabilities that executors keep, which they lose otherwise"
    )
    executor_timeout_s: float = TASKS(
        0.0, "time that an executor may run before it gets TERM; 0: for ever", "tasks.timeouts.executor", ge=0
    )
    grace_s: float = TASKS(
        10.0,
        "time that a program has between TERM and KILL when it is cancelled or overdue",
        "tasks.graceSeconds",
        ge=0,
    )
    gpu_resource: str = TASKS(
        "nvidia.com/gpu",
        "what the backend parameter `gpu` counts: a resource of the cluster, a kind of CDI devices",
        "tasks.gpuResource",
    )
    allowed_backend_parameters: Texts = TASKS(
        (),
        "of gpu, executor_timeout_s; on a cluster of priority_class, runtime_class, service_account, "
        "node_selector.KEY too",
        "tasks.allowedBackendParameters",
    )
    log_tail_bytes: int = TASKS(65536, "bytes kept of each executor's stdout and stderr", "tasks.logTailBytes", ge=0)

    file_roots: Texts = STORAGE((), "folders that file: URLs and bare paths may use", "storage.fileRoots")
    missing_outputs: Literal["warning", "error"] = STORAGE(
        "warning", "what a declared output that does not exist is", "storage.missingOutputs"
    )
    transfer_retries: int = STORAGE(5, "tries again after a passing transfer error", "storage.transfers.retries", ge=0)
    transfer_timeout_s: float = STORAGE(
        60.0, "time without a byte after which a transfer is tried again", "storage.transfers.timeoutSeconds", gt=0
    )
    transfer_concurrency: int = STORAGE(
        8, "files, and parts of large ones, moved at once by one filer, at most", "storage.transfers.concurrency", ge=1
    )
    transfer_allow: Texts = STORAGE((), "hosts that transfers may reach: names, .domains, networks; none: all")
    transfer_deny: Texts = STORAGE((), "hosts that transfers must not reach: names, .domains, networks")
    credentials: Texts = STORAGE((), "TOML files, or folders of them, with the stores' credentials by URL prefix")

    engine_socket: str = LOCAL("", "socket of the Docker Engine API; empty: found or started; podman: one of its own")
    network: str = LOCAL("bridge", "network of executors: bridge, host, none, or one of the engine's")
    cpu_cores: float = LOCAL(0.0, "cores that tasks may use together; 0: those of the machine", ge=0)
    ram_gb: float = LOCAL(0.0, "GiB that tasks may use together; 0: those of the machine", ge=0)
    max_processes: int = LOCAL(16384, "processes and threads of an executor; 0: the engine's limit", ge=0)
    filer_ram_gb: float = LOCAL(1.0, "GiB of memory that the filer of one task may have; 0: any", ge=0)
    pull_timeout_s: float = LOCAL(1800.0, "time within which an image must be pulled", gt=0)
    engine_patience_s: float = LOCAL(300.0, "time that the container engine may be away", ge=0)

    kubeconfig: str = KUBERNETES("", "kubeconfig file; empty: the cluster around, or as kubectl")
    kube_context: str = KUBERNETES("", "context of the kubeconfig; empty: its current one")
    namespace: str = KUBERNETES("", "namespace of tasks; empty: that of the account or context")
    instance: str = KUBERNETES("tesk", "label that tells this server's objects from another's")
    kubernetes_qps: float = KUBERNETES(200.0, "requests a second to the Kubernetes API", gt=0)
    max_waiting_tasks: int = KUBERNETES(
        50, "tasks that may wait on a cluster for a node; half of them may be alike", ge=1
    )
    image: str = KUBERNETES("ghcr.io/tesk/tesk:latest", "this product's image, for taskmasters, filers and reporters")
    image_pull_policy: PullPolicy = KUBERNETES("IfNotPresent", "when the product's image is pulled", "image.pullPolicy")
    image_pull_secrets: Texts = KUBERNETES((), "Secrets for pulling images", "image.pullSecrets")
    mode: Literal["taskmaster", "pod", "auto"] = KUBERNETES(
        "taskmaster",
        "taskmaster: a pod for each step, made by a taskmaster; pod: one for the whole task; auto: one where it can be",
        "tasks.mode",
    )
    pod_disk_gb: float = KUBERNETES(
        100.0,
        "most GiB that the one pod of a task has on its node's own disk; more is a volume",
        "tasks.podDiskGb",
        ge=0,
    )
    report_port: int = KUBERNETES(8480, "port for the reports of pods that run a whole task", ge=0, le=65535)
    report_address: str = KUBERNETES(
        "", "HOST:PORT at which these pods reach `report_port`; empty: they do not, and their logs are read"
    )
    taskmaster_service_account: str = KUBERNETES(
        "tesk-taskmaster", "service account of taskmasters", "taskmaster.serviceAccount.name"
    )
    taskmaster_retries: int = KUBERNETES(
        20, "crashes of one taskmaster that are made good", "tasks.taskmasterRetries", ge=0
    )
    storage_class: str = KUBERNETES("", "storage class of scratch volumes; empty: the default", "tasks.storageClass")
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = KUBERNETES(
        "ReadWriteOnce", "of scratch volumes", "tasks.accessMode"
    )
    default_disk_gb: float = KUBERNETES(
        1.0, "GiB of a scratch volume whose task asks for none", "tasks.defaults.diskGb", gt=0
    )
    cpu_limit: Limit = KUBERNETES("none", "CPU limit of an executor's container", "tasks.cpuLimit")
    memory_limit: Limit = KUBERNETES(
        "request", "memory limit of executors whose task asks for memory", "tasks.memoryLimit"
    )
    pod_security: Literal["baseline", "restricted"] = KUBERNETES(
        "baseline", "Pod Security Standard that executors pass", "tasks.podSecurity"
    )
    run_as_user: int = KUBERNETES(-1, "user id of executors; -1: the image's or the platform's", "tasks.runAsUser")
    own_user: int = KUBERNETES(65532, "user id of tesk's own containers; -1: the platform's")
    labels: Texts = KUBERNETES((), "further labels of all objects, as key=value", "tasks.labels")
    annotations: Texts = KUBERNETES((), "annotations of all objects, as key=value", "tasks.annotations")
    node_selector: Texts = KUBERNETES((), "nodes that tasks run on, as key=value", "tasks.nodeSelector")
    tolerations: Texts = KUBERNETES((), "taints that tasks tolerate, as key=value:Effect", "tasks.tolerations")
    preemptible_node_selector: Texts = KUBERNETES(
        (), "nodes of tasks that may be preempted, as key=value", "tasks.preemptible.nodeSelector"
    )
    preemptible_tolerations: Texts = KUBERNETES(
        (), "taints that tasks that may be preempted tolerate", "tasks.preemptible.tolerations"
    )
    zone_label: str = KUBERNETES(
        "topology.kubernetes.io/zone", "node label that `zones` of a task are values of", "tasks.zoneLabel"
    )
    executor_service_account: str = KUBERNETES(
        "", "service account of executors (never its token)", "tasks.serviceAccount"
    )
    filer_environment_secret: str = KUBERNETES(
        "", "Secret whose keys are the filer's environment", "storage.environmentSecret"
    )
    filer_mounts: Texts = KUBERNETES((), "what filers see, as /path=secret:NAME or /path=claim:NAME", "storage.mounts")
    image_timeout_s: float = KUBERNETES(
        120.0, "time that pulling an image may fail; 0: for ever", "tasks.timeouts.image", ge=0
    )
    schedule_timeout_s: float = KUBERNETES(
        0.0, "time that a pod may wait for room; 0: for ever", "tasks.timeouts.schedule", ge=0
    )
    start_timeout_s: float = KUBERNETES(
        600.0, "time that a pod on its node may fail to start", "tasks.timeouts.start", ge=0
    )
    retries: int = KUBERNETES(0, "further attempts after a fault of the cluster", "tasks.retries", ge=0)


class Setting(NamedTuple):
    """One setting as it is declared. `type` has its bounds, `chart` is the path of the chart's value."""

    group: Group
    name: str
    type: Any
    default: Any
    meaning: str
    chart: str

    @property
    def key(self) -> str:
        """Its name in the group's table, where the name of the group is not repeated."""
        return self.name.removeprefix(f"{self.group.name}_")

    @property
    def path(self) -> str:
        """Its name in the file, as TOML writes a key of a table."""
        return f"{self.group.name}.{self.key}"

    @property
    def environment(self) -> str:
        return f"TESK_{self.group.name}_{self.key}".upper()

    @property
    def flag(self) -> str:
        """A list's flag is given once for each of its items, so it is named for one."""
        name = re.sub("(?<=s)es$|s$", "", re.sub("ies$", "y", self.name)) if self.is_list else self.name
        return f"--{name.replace('_', '-')}"

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, tuple)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words of a Literal, or of a list of them."""
        plain = get_args(self.type)[0]
        if get_origin(plain) is tuple:
            plain = get_args(plain)[0]
        return get_args(plain) if get_origin(plain) is Literal else ()


TABLE: Final = tuple(
    Setting(group, field.name, Annotated[field.type, bounds], field.default, meaning, chart)
    for field, (group, meaning, chart, bounds) in zip(msgspec.structs.fields(Settings), _DECLARED, strict=True)
)
