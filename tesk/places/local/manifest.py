"""A task's executor as the Docker Engine API wants to have it (pure)."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tesk import parameters
from tesk.layout import Layout
from tesk.places.base import PlaceError
from tesk.places.local.containers import StartError
from tesk.rules import VolumeRule
from tesk.settings import Settings
from tesk.tes import Executor, Resources

SHIM: Final = "/.tesk/shim"
CONTROL: Final = "/.tesk/control"
LOOK: Final = "look"
"""What the look at an image is called: its container, its control folder, and its answer in there."""
OPENED: Final = "/.tesk/opened"
WITHHELD: Final = ("MKNOD", "NET_RAW")
LEAST_MEMORY: Final = 6 * 1024 * 1024
GIB: Final = 1024**3
_OF_RECORDS: Final = re.compile(r'[,"\r\n]')
NVIDIA: Final = "nvidia.com/gpu"
PODMAN_WITH_DEVICES: Final = (5, 4)
UNCHECKED: Final = {"Test": ["NONE"]}
"""No health check: one would run a program of the image's beside ours, and as often as the image likes."""


def name(task_id: str, n: int | str) -> str:
    """The name of executor N's container, or of another by its word."""
    return f"tesk-{task_id}-{n}"


def container(
    executor: Executor, plan: Layout, resources: Resources, *, last: bool,
    labels: dict[str, str], shim: Path, control: Path, scratch: Path, settings: Settings, cores: float,
    given: Mapping[str, str], devices: Sequence[dict[str, Any]] = (), volumes: Collection[VolumeRule] = (),
) -> dict[str, Any]:  # fmt: skip
    """The body of POST /containers/create. `cores` is what the machine has: no limit may be above it.

    `given`: the task's backend parameters; `devices`: see device_requests; `volumes`: reference data.
    """
    kept = list(settings.executor_capabilities)
    copies = plan.copies(last=last) + (plan.taken if last else [])
    stdio = [executor.workdir or "", executor.stdin or "", executor.stdout or "", executor.stderr or ""]
    shim_words = [f"{SHIM}/shim", "run", *stdio, str(len(copies)), *copies]
    program = {"Entrypoint": shim_words, "Cmd": executor.command}
    if parameters.ENTRYPOINT in given:
        program = {"Cmd": [*shim_words, *executor.command]}
    return {
        "Image": executor.image,
        **program,
        "Env": [f"{key}={value}" for key, value in (executor.env or {}).items()],
        "Healthcheck": UNCHECKED,
        "Labels": labels,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "NetworkMode": settings.network,
            **_mounts(plan, shim, control, scratch, volumes),
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": [name for name in WITHHELD if name not in kept],
            "CapAdd": kept,
            **({"DeviceRequests": [*devices]} if devices else {}),
            **_limits(resources, cores, settings.max_processes, given),
        },
    }


def device_requests(count: int, kind: str, engine: str, version: str) -> list[dict[str, Any]]:
    """What gives a container the first GPUs of the machine. Raises PlaceError for an engine that would give none.

    Docker finds NVIDIA's by itself, as `docker run --gpus` has it; everything else are CDI devices by name. Podman
    before 5.4 leaves out of a container what its API for Docker's clients is asked for here, and says nothing.
    """
    if engine == "Docker" and kind == NVIDIA:
        return [{"Driver": "", "Count": count, "Capabilities": [["gpu"]]}]
    if engine == "Podman" and tuple(map(int, re.findall(r"\d+", version)[:2])) < PODMAN_WITH_DEVICES:
        least = ".".join(map(str, PODMAN_WITH_DEVICES))
        raise PlaceError(f"backend parameter gpu: Podman {version} gives no devices through its API; {least} does")
    return [{"Driver": "cdi", "DeviceIDs": [f"{kind}={number}" for number in range(count)]}]


def looking(image: str, paths: Sequence[str], *, labels: dict[str, str], shim: Path, control: Path) -> dict[str, Any]:
    """The body of a container of an image in which the shim looks at paths; the answer is the file LOOK of `control`.

    It runs as an executor of the image would, with the same rights, and nothing of the image's runs.
    """
    mounts = [_bind(shim, SHIM, read_only=True), _bind(control, CONTROL)]
    body = _ours(image, ["look", f"{CONTROL}/{LOOK}", *paths], labels, mounts)
    body["HostConfig"]["CapDrop"] = [*WITHHELD]
    return body


def on_folders(
    image: str, command: str, folders: Sequence[Path], *, labels: dict[str, str], shim: Path
) -> dict[str, Any]:
    """The body of a container that runs a command of the shim as root on `folders`: "open-up" or "empty".

    For a server that is not root: what a container's users have made is theirs, even for the server that mounted it.
    Of the image only the files are used, since an engine wants some; nothing of it runs.
    """
    places = {f"{OPENED}/{folder.name}": folder for folder in folders}
    mounts = [_bind(shim, SHIM, read_only=True), *(_bind(folder, at) for at, folder in places.items())]
    body = _ours(image, [command, *places], labels, mounts)
    body["HostConfig"]["CapAdd"] = ["DAC_OVERRIDE", "FOWNER"]
    return body | {"User": "0:0"}


def _ours(image: str, words: list[str], labels: dict[str, str], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of a container in which the shim does something else than to run an executor's program."""
    return {
        "Image": image,
        "Entrypoint": [f"{SHIM}/shim", *words],
        "Cmd": [],
        "WorkingDir": "/",
        "Healthcheck": UNCHECKED,
        "Labels": labels,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": mounts,
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": ["ALL"],
        },
    }


def _mounts(plan: Layout, shim: Path, control: Path, scratch: Path, volumes: Collection[VolumeRule]) -> dict[str, Any]:
    """What is mounted, each in the one of HostConfig's two ways in which its path is nothing but a path.

    Podman makes a record of comma-separated values of each of the Mounts, without quotes: what follows a comma in a
    path would be a further option, such as another source. Binds are cut at colons. Raises StartError for what neither
    can take.
    """
    mounts, binds = [_bind(shim, SHIM, read_only=True), _bind(control, CONTROL), *map(_volume, volumes)], []
    for path in plan.bound:
        source = f"{scratch}{path}"
        if not _OF_RECORDS.search(source):
            mounts.append(_bind(Path(source), path))
        elif ":" not in source:
            binds.append(f"{source}:{path}")
        else:
            raise StartError(
                f"{path!r} cannot be mounted: it holds a colon and a comma, quote or line break; rename it"
            )
    return {"Mounts": mounts, "Binds": binds}


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _volume(volume: VolumeRule) -> dict[str, Any]:
    """What other file systems are mounted below the folder is not shown: there many engines let programs write."""
    bind = _bind(Path(volume.folder), volume.path, read_only=True)
    return bind | {"BindOptions": {"NonRecursive": True}}


def _limits(resources: Resources, cores: float, processes: int, given: Mapping[str, str]) -> dict[str, int]:
    limits = {}
    if processes:
        limits["PidsLimit"] = processes
    if resources.cpu_cores:
        limits["NanoCpus"] = max(10_000_000, int(min(resources.cpu_cores, cores) * 1e9))
    if resources.ram_gb:
        limits["Memory"] = limits["MemorySwap"] = max(LEAST_MEMORY, int(resources.ram_gb * GIB))
    if shared := parameters.shared_memory_bytes(given, limits.get("Memory", 0)):
        limits["ShmSize"] = shared
    return limits
