"""Every setting of tesk, once: its name, type, default and meaning.

A setting comes from the flag of `tesk serve` that has its name, else from TESK_NAME in the environment, else from
the TOML file named by --config (or TESK_CONFIG), else from its default. docs/settings.md is this table, and a test
holds the two against each other. A setting that only one engine reads is marked so, and refused with the other.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

LOCAL: Final = {"engine": "local"}
KUBERNETES: Final = {"engine": "kubernetes"}
"""Marks a setting that only this engine reads; with another it is refused."""


class Settings(Struct, frozen=True, kw_only=True):
    """All settings; lists are comma-separated in the environment."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(description="port to listen on; 0 takes a free one", ge=0, le=65535)] = 8080
    data: Annotated[str, Meta(description="folder for the database and the tasks' scratch volumes")] = (
        "~/.local/share/tesk"
    )
    database_url: Annotated[str, Meta(description="SQLite or PostgreSQL URL; empty: a SQLite file in `data`")] = ""
    engine: Annotated[Literal["local", "kubernetes"], Meta(description="where tasks run")] = "local"
    file_roots: Annotated[tuple[str, ...], Meta(description="folders that file: URLs and bare paths may use")] = ()
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="origins of web pages that may call the API; * for any")
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...], Meta(description="further Host names that are answered; *.DOMAIN for all below it, * for any")
    ] = ()
    max_body_bytes: Annotated[int, Meta(description="largest request body", ge=1024)] = 16 * 1024 * 1024
    log_tail_bytes: Annotated[int, Meta(description="bytes kept of each executor's stdout and stderr", ge=0)] = 65536
    prune_after_s: Annotated[float, Meta(description="age at which finished tasks are deleted; 0: never", ge=0)] = 0.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe log entries shown")
    ] = "info"

    default_cpu_cores: Annotated[float, Meta(description="cores of a task that asks for none", ge=0)] = 0.28
    default_ram_gb: Annotated[float, Meta(description="GiB of a task that asks for none", ge=0)] = 1.0
    cpu_cores: Annotated[
        float, Meta(extra=LOCAL, description="cores that tasks may use together; 0: those of the machine", ge=0)
    ] = 0.0
    ram_gb: Annotated[
        float, Meta(extra=LOCAL, description="GiB that tasks may use together; 0: those of the machine", ge=0)
    ] = 0.0
    max_active_tasks: Annotated[
        int, Meta(description="tasks that may run at once; 0: as many as fit, on a cluster 1000", ge=0)
    ] = 0
    max_waiting_tasks: Annotated[
        int,
        Meta(
            extra=KUBERNETES, description="tasks that may wait on a cluster for a node; half of them may be alike", ge=1
        ),
    ] = 50
    max_cpu_cores: Annotated[float, Meta(description="most cores that a task may ask for; 0: any", ge=0)] = 0.0
    max_ram_gb: Annotated[float, Meta(description="most GiB of memory that a task may ask for; 0: any", ge=0)] = 0.0
    max_disk_gb: Annotated[float, Meta(description="most GiB of disk that a task may ask for; 0: any", ge=0)] = 0.0
    max_files: Annotated[int, Meta(description="most inputs, and most outputs, of a task", ge=1)] = 20_000

    engine_socket: Annotated[
        str,
        Meta(
            extra=LOCAL, description="socket of the Docker Engine API; empty: found or started; podman: one of its own"
        ),
    ] = ""
    network: Annotated[
        str, Meta(extra=LOCAL, description="network of executors: bridge, host, none, or one of the engine's")
    ] = "bridge"
    grace_s: Annotated[
        float, Meta(description="time that a program has between TERM and KILL when it is cancelled or overdue", ge=0)
    ] = 10.0
    pull_timeout_s: Annotated[
        float, Meta(extra=LOCAL, description="time within which an image must be pulled", gt=0)
    ] = 1800.0
    engine_patience_s: Annotated[
        float, Meta(extra=LOCAL, description="time that the container engine may be away", ge=0)
    ] = 300.0
    filer_ram_gb: Annotated[
        float, Meta(extra=LOCAL, description="GiB of memory that the filer of one task may have; 0: any", ge=0)
    ] = 1.0

    max_processes: Annotated[
        int, Meta(extra=LOCAL, description="processes and threads of an executor; 0: the engine's limit", ge=0)
    ] = 16384
    executor_capabilities: Annotated[
        tuple[Literal["MKNOD", "NET_RAW"], ...],
        Meta(description="capabilities that executors keep, which they lose otherwise"),
    ] = ()

    kubeconfig: Annotated[
        str, Meta(extra=KUBERNETES, description="kubeconfig file; empty: the cluster around, or as kubectl")
    ] = ""
    kube_context: Annotated[
        str, Meta(extra=KUBERNETES, description="context of the kubeconfig; empty: its current one")
    ] = ""
    namespace: Annotated[
        str, Meta(extra=KUBERNETES, description="namespace of tasks; empty: that of the account or context")
    ] = ""
    instance: Annotated[
        str, Meta(extra=KUBERNETES, description="label that tells this server's objects from another's")
    ] = "tesk"
    kubernetes_qps: Annotated[
        float, Meta(extra=KUBERNETES, description="requests a second to the Kubernetes API", gt=0)
    ] = 200.0
    image: Annotated[
        str, Meta(extra=KUBERNETES, description="this product's image, for taskmasters, filers and reporters")
    ] = "ghcr.io/tesk/tesk:latest"
    image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"],
        Meta(extra=KUBERNETES, description="when the product's image is pulled"),
    ] = "IfNotPresent"
    executor_image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"],
        Meta(description="when executors' images are pulled, whatever their tag is"),
    ] = "IfNotPresent"
    image_pull_secrets: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="Secrets for pulling images")
    ] = ()
    taskmaster_service_account: Annotated[str, Meta(extra=KUBERNETES, description="service account of taskmasters")] = (
        "tesk-taskmaster"
    )
    taskmaster_retries: Annotated[
        int, Meta(extra=KUBERNETES, description="crashes of one taskmaster that are made good", ge=0)
    ] = 20
    storage_class: Annotated[
        str, Meta(extra=KUBERNETES, description="storage class of scratch volumes; empty: the default")
    ] = ""
    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"],
        Meta(extra=KUBERNETES, description="of scratch volumes"),
    ] = "ReadWriteOnce"
    default_disk_gb: Annotated[
        float, Meta(extra=KUBERNETES, description="GiB of a scratch volume whose task asks for none", gt=0)
    ] = 1.0
    cpu_limit: Annotated[
        Literal["none", "request"], Meta(extra=KUBERNETES, description="CPU limit of an executor's container")
    ] = "none"
    memory_limit: Annotated[
        Literal["none", "request"],
        Meta(extra=KUBERNETES, description="memory limit of executors whose task asks for memory"),
    ] = "request"
    pod_security: Annotated[
        Literal["baseline", "restricted"],
        Meta(extra=KUBERNETES, description="Pod Security Standard that executors pass"),
    ] = "baseline"
    run_as_user: Annotated[
        int, Meta(extra=KUBERNETES, description="user id of executors; -1: the image's or the platform's")
    ] = -1
    own_user: Annotated[
        int, Meta(extra=KUBERNETES, description="user id of tesk's own containers; -1: the platform's")
    ] = 65532
    labels: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="further labels of all objects, as key=value")
    ] = ()
    annotations: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="annotations of all objects, as key=value")
    ] = ()
    node_selector: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="nodes that tasks run on, as key=value")
    ] = ()
    tolerations: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="taints that tasks tolerate, as key=value:Effect")
    ] = ()
    preemptible_node_selector: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="nodes of tasks that may be preempted, as key=value")
    ] = ()
    preemptible_tolerations: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="taints that tasks that may be preempted tolerate")
    ] = ()
    zone_label: Annotated[
        str, Meta(extra=KUBERNETES, description="node label that `zones` of a task are values of")
    ] = "topology.kubernetes.io/zone"
    gpu_resource: Annotated[
        str,
        Meta(description="what the backend parameter `gpu` counts: a resource of the cluster, a kind of CDI devices"),
    ] = "nvidia.com/gpu"
    allowed_backend_parameters: Annotated[
        tuple[str, ...],
        Meta(
            description="of gpu, executor_timeout_s; on a cluster of priority_class, runtime_class, service_account, "
            "node_selector.KEY too",
        ),
    ] = ()
    executor_service_account: Annotated[
        str, Meta(extra=KUBERNETES, description="service account of executors (never its token)")
    ] = ""
    filer_environment_secret: Annotated[
        str, Meta(extra=KUBERNETES, description="Secret whose keys are the filer's environment")
    ] = ""
    filer_mounts: Annotated[
        tuple[str, ...], Meta(extra=KUBERNETES, description="what filers see, as /path=secret:NAME or /path=claim:NAME")
    ] = ()
    image_timeout_s: Annotated[
        float, Meta(extra=KUBERNETES, description="time that pulling an image may fail; 0: for ever", ge=0)
    ] = 120.0
    schedule_timeout_s: Annotated[
        float, Meta(extra=KUBERNETES, description="time that a pod may wait for room; 0: for ever", ge=0)
    ] = 0.0
    start_timeout_s: Annotated[
        float, Meta(extra=KUBERNETES, description="time that a pod on its node may fail to start", ge=0)
    ] = 600.0
    executor_timeout_s: Annotated[
        float, Meta(description="time that an executor may run before it gets TERM; 0: for ever", ge=0)
    ] = 0.0
    retries: Annotated[
        int, Meta(extra=KUBERNETES, description="further attempts after a fault of the cluster", ge=0)
    ] = 0

    missing_outputs: Annotated[
        Literal["warning", "error"], Meta(description="what a declared output that does not exist is")
    ] = "warning"
    transfer_retries: Annotated[int, Meta(description="tries again after a passing transfer error", ge=0)] = 5
    transfer_timeout_s: Annotated[
        float, Meta(description="time without a byte after which a transfer is tried again", gt=0)
    ] = 60.0
    transfer_concurrency: Annotated[
        int, Meta(description="files, and parts of large ones, moved at once by one filer, at most", ge=1)
    ] = 8
    transfer_allow: Annotated[
        tuple[str, ...], Meta(description="hosts that transfers may reach: names, .domains, networks; none: all")
    ] = ()
    transfer_deny: Annotated[
        tuple[str, ...], Meta(description="hosts that transfers must not reach: names, .domains, networks")
    ] = ()
    credentials: Annotated[
        tuple[str, ...], Meta(description="TOML files, or folders of them, with the stores' credentials by URL prefix")
    ] = ()

    service_id: Annotated[str, Meta(description="service-info: id, in reverse domain notation")] = "org.ga4gh.tesk"
    service_name: Annotated[str, Meta(description="service-info: name")] = "tesk"
    service_description: Annotated[str, Meta(description="service-info: description")] = "GA4GH Task Execution Service"
    organization_name: Annotated[str, Meta(description="service-info: organization.name")] = "tesk"
    organization_url: Annotated[str, Meta(description="service-info: organization.url")] = "https://www.ga4gh.org"
    storage: Annotated[tuple[str, ...], Meta(description="service-info: further storage locations to list")] = ()


class Setting(NamedTuple):
    """One row of the table: `type` is the annotated type, `choices` the words of a Literal or of a list of them.

    `engine`: the only engine that reads it; empty where both do.
    """

    name: str
    default: Any
    meaning: str
    type: Any
    engine: str = ""

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, tuple)

    @property
    def choices(self) -> tuple[str, ...]:
        plain = get_args(self.type)[0]
        if get_origin(plain) is tuple:
            plain = get_args(plain)[0]
        return get_args(plain) if get_origin(plain) is Literal else ()

    @property
    def environment(self) -> str:
        return f"TESK_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """A list's flag is given once for each of its items, so it is named for one."""
        name = re.sub("ies$", "y", self.name).removesuffix("s") if self.is_list else self.name
        return f"--{name.replace('_', '-')}"


class SettingsError(ValueError):
    """A setting that cannot be used: the message names where it was set and why it is refused."""


def _setting(field: msgspec.structs.FieldInfo) -> Setting:
    about: Meta = field.type.__metadata__[0]
    return Setting(
        field.name, field.default, about.description or "", field.type, (about.extra or {}).get("engine", "")
    )


TABLE: Final = tuple(map(_setting, msgspec.structs.fields(Settings)))


def load(flags: Mapping[str, Any], environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """The settings in force: flags (by setting name), then TESK_NAME, then the TOML file, then the defaults.

    `config` is the file of --config; without it, TESK_CONFIG names one. An empty variable counts as unset. `data`,
    `file_roots` and `credentials` come out as absolute paths. Raises SettingsError, also for a setting that the chosen
    engine does not read.
    """
    if config is None and environ.get("TESK_CONFIG"):
        config = Path(environ["TESK_CONFIG"])
    written = _read(config) if config else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in TABLE:
        for source, value, is_text in _given(setting, flags, environ, config, written):
            values[setting.name] = _convert(setting, source, value, is_text)
            sources[setting.name] = source
            break
    settings = Settings(**values)
    _refuse_ignored(settings.engine, sources)
    return msgspec.structs.replace(
        settings,
        data=_absolute(settings.data),
        file_roots=tuple(map(_absolute, settings.file_roots)),
        credentials=tuple(map(_absolute, settings.credentials)),
    )


def _refuse_ignored(engine: str, sources: Mapping[str, str]) -> None:
    """Raises SettingsError for a setting that was given and that the engine would not read."""
    for setting in TABLE:
        if setting.name in sources and setting.engine not in ("", engine):
            raise SettingsError(
                f"{sources[setting.name]}: only the {setting.engine} engine reads this setting, and engine is {engine}"
                "; leave it out"
            )


def describe() -> list[tuple[str, Any, str]]:
    """(name, default, meaning) of every setting, in order."""
    return [(setting.name, setting.default, setting.meaning) for setting in TABLE]


def table() -> str:
    """The table of docs/settings.md, in Markdown."""
    lines = ["| file | environment | flag | default | engine | meaning |", "|---|---|---|---|---|---|"]
    for setting in TABLE:
        names = f"`{setting.name}` | `{setting.environment}` | `{setting.flag}`"
        lines.append(f"| {names} | {_shown(setting)} | {setting.engine or 'both'} | {_meaning(setting)} |")
    return "\n".join(lines) + "\n"


def _meaning(setting: Setting) -> str:
    choices = f" (one of: {', '.join(setting.choices)})" if len(setting.choices) > 1 else ""
    return setting.meaning.replace("|", "\\|") + choices


def _shown(setting: Setting) -> str:
    if setting.is_list:
        return "none" if not setting.default else f"`{','.join(setting.default)}`"
    if isinstance(setting.default, float):
        return f"`{setting.default:g}`"
    return "empty" if setting.default == "" else f"`{setting.default}`"


def _read(config: Path) -> dict[str, Any]:
    try:
        written = tomllib.loads(config.read_text())
    except OSError as error:
        raise SettingsError(f"{config}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: not TOML: {error}") from None
    known = {setting.name for setting in TABLE}
    for name in written:
        if name not in known:
            raise SettingsError(f"{config}: {name}: no such setting; docs/settings.md lists them all")
    return written


def _given(
    setting: Setting, flags: Mapping[str, Any], environ: Mapping[str, str], config: Path | None, written: dict[str, Any]
) -> Iterator[tuple[str, Any, bool]]:
    """Where the setting is set, strongest first: (what to call the source, the value, is it text to be read)."""
    if flags.get(setting.name) is not None:
        yield setting.flag, flags[setting.name], True
    if text := environ.get(setting.environment):
        items = [item.strip() for item in text.split(",") if item.strip()]
        yield setting.environment, items if setting.is_list else text, True
    if setting.name in written:
        yield f"{config}: {setting.name}", written[setting.name], False


def _convert(setting: Setting, source: str, value: Any, is_text: bool) -> Any:
    try:
        return msgspec.convert(value, setting.type, strict=not is_text)
    except msgspec.ValidationError as error:
        reason = _in_words(str(error))
    if setting.choices:
        reason = f"expected one of {', '.join(setting.choices)}"
    hint = ""
    if isinstance(value, str) and value.startswith("tcp://"):
        hint = "; Kubernetes sets this for a Service named tesk: set enableServiceLinks: false on the pod"
    raise SettingsError(f"{source}: {reason}{hint}")


_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "str": "text",
}


def _in_words(refusal: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$`" as "expected a whole number, got text"."""
    reason = re.sub(r"`(\w+)`", lambda match: _WORDS.get(match[1], match[1]), refusal.partition(" - at ")[0])
    return reason[:1].lower() + reason[1:]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
