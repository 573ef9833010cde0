"""A task's executor as the Docker Engine API wants to have it (pure)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tesk.layout import Layout
from tesk.tes import Executor, Resources

SHIM: Final = "/.tesk/shim"
CONTROL: Final = "/.tesk/control"
FILES: Final = "/.tesk/files"
TASK: Final = "/.tesk/task"
OPEN_UP: Final = ("chmod", "-R", "a+rwX", f"{TASK}/scratch", f"{TASK}/control")
SCRUB: Final = ("rm", "-rf", f"{TASK}/scratch", f"{TASK}/control")
LEAST_MEMORY: Final = 6 * 1024 * 1024
GIB: Final = 1024**3


def name(task_id: str, n: int) -> str:
    """The name of executor N's container."""
    return f"tesk-{task_id}-{n}"


def container(
    executor: Executor, plan: Layout, resources: Resources, *,
    labels: dict[str, str], shim: Path, control: Path, scratch: Path, network: str, cores: float,
) -> dict[str, Any]:  # fmt: skip
    """The body of POST /containers/create. `cores` is what the machine has: no limit may be above it."""
    copies = [f"i{path}" for path in plan.copied_in] + [f"o{path}" for path in plan.copied_out]
    stdio = [executor.workdir or "", executor.stdin or "", executor.stdout or "", executor.stderr or ""]
    return {
        "Image": executor.image,
        "Entrypoint": [f"{SHIM}/busybox", "sh", f"{SHIM}/run", *stdio, str(len(copies)), *copies],
        "Cmd": executor.command,
        "Env": [f"{key}={value}" for key, value in (executor.env or {}).items()],
        "Labels": labels,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "NetworkMode": network,
            "Mounts": _mounts(plan, shim, control, scratch),
            "SecurityOpt": ["no-new-privileges"],
            **_limits(resources, cores),
        },
    }


def on_folder(
    image: str, command: Sequence[str], *, labels: dict[str, str], shim: Path, folder: Path
) -> dict[str, Any]:
    """The body of a container that runs an applet of the shim's busybox as root on a task's folder.

    For a server that is not root: what a container's users have made is theirs, even for the server that mounted it.
    """
    return {
        "Image": image,
        "Entrypoint": [f"{SHIM}/busybox", *command],
        "Cmd": [],
        "User": "0:0",
        "Labels": labels,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {"NetworkMode": "none", "Mounts": [_bind(shim, SHIM, read_only=True), _bind(folder, TASK)]},
    }


def _mounts(plan: Layout, shim: Path, control: Path, scratch: Path) -> list[dict[str, Any]]:
    mounts = [_bind(shim, SHIM, read_only=True), _bind(control, CONTROL)]
    if plan.copied_in or plan.copied_out:
        mounts.append(_bind(scratch, FILES))
    return mounts + [_bind(Path(f"{scratch}{path}"), path) for path in (*plan.mounts, *plan.files)]


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _limits(resources: Resources, cores: float) -> dict[str, int]:
    limits = {}
    if resources.cpu_cores:
        limits["NanoCpus"] = max(10_000_000, int(min(resources.cpu_cores, cores) * 1e9))
    if resources.ram_gb:
        limits["Memory"] = limits["MemorySwap"] = max(LEAST_MEMORY, int(resources.ram_gb * GIB))
    return limits
