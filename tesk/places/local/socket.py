"""The container engine's API socket: found, or started.

Docker and Podman speak the same API. Where neither offers a socket but podman is installed, tesk runs `podman system
service` itself, on a socket and with a configuration of its own; it ends with the process that started it, while its
containers go on.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import stat
import tempfile
from asyncio.subprocess import Process
from pathlib import Path
from typing import Final

from tesk.places.base import PlaceError

START_TIMEOUT_S: Final = 30.0
LONGEST_PATH: Final = 107
"""Bytes of a socket's path (unix(7), sun_path)."""
SOCKET: Final = "podman.sock"
PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_READ: Final = 23
CAP_SYS_RESOURCE: Final = 24
_prctl: Final = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(signal_number: int = signal.SIGKILL, parent: int = 0) -> None:
    """Asks the kernel to end this process when the one that started it ends (prctl(2), PR_SET_PDEATHSIG).

    `parent`: the process that started this one. Where it has ended before the kernel was asked, this one ends at once.
    """
    _prctl(PR_SET_PDEATHSIG, signal_number)
    if parent and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def found(configured: str = "") -> Path | None:
    """The socket named by the setting or DOCKER_HOST, else the first of the usual ones that answers.

    Raises PlaceError when a socket was named that does not answer.
    """
    named = configured or os.environ.get("DOCKER_HOST", "")
    if named:
        path = Path(named.removeprefix("unix://"))
        if not answers(path):
            raise PlaceError(f"no container engine answers at {named}; start it or correct engine_socket")
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    usual = ["/var/run/docker.sock", f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"]
    if os.getuid() == 0:
        usual.append("/run/podman/podman.sock")
    return next((Path(path) for path in usual if answers(Path(path))), None)


def answers(path: Path) -> bool:
    """True when something listens on the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


async def start_podman(folder: Path) -> tuple[Process, Path]:
    """Starts `podman system service` on a socket in `folder`. The caller ends the process, and then calls `clear`.

    Raises PlaceError when podman is missing or does not come up.
    """
    podman = shutil.which("podman")
    if podman is None:
        raise PlaceError("no container engine: no Docker or Podman socket answers and podman is not installed")
    path, log, configuration = await asyncio.to_thread(prepare, folder)
    environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
    arguments = ["system", "service", "--time=0", f"unix://{path}"]
    own = os.getpid()
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            podman, *arguments, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM, own), start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not answers(path):
                if process.returncode is not None:
                    raise PlaceError(f"podman system service ended at once: {_last_line(log)}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise PlaceError(f"podman system service did not answer in {START_TIMEOUT_S:.0f} s; see {log}") from None
    return process, path


def prepare(folder: Path) -> tuple[Path, Path, Path]:
    """The socket's path, free to be used; the log's; and the configuration, written.

    Where the folder's own path is too long for a socket, `podman.sock` there is a link to one in a folder of its own,
    which is used again until `clear` removes it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, configuration = folder / SOCKET, folder / "containers.conf"
    if path.is_symlink() and _is_ours(path.readlink().parent):
        path = path.readlink()
    elif len(os.fsencode(path)) > LONGEST_PATH:
        link, path = path, Path(tempfile.mkdtemp(prefix="tesk-", dir=_short_folder())) / SOCKET
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    path.unlink(missing_ok=True)
    configuration.write_text(_configuration())
    return path, folder / "podman.log", configuration


def clear(folder: Path) -> None:
    """Removes the socket and, where it had to be elsewhere, the folder that was made for it."""
    path = folder / SOCKET
    if path.is_symlink() and _is_ours(path.readlink().parent):
        path.readlink().unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.readlink().parent.rmdir()
    path.unlink(missing_ok=True)


def _short_folder() -> str:
    """Where a socket's folder can be made: this user's own place for that, else the system's for temporary files."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    fits = len(os.fsencode(own)) + len(f"/tesk-12345678/{SOCKET}") <= LONGEST_PATH
    return own if fits and os.access(own, os.W_OK | os.X_OK) else "/tmp"  # noqa: S108


def _is_ours(folder: Path) -> bool:
    """True for a directory of this user's that is closed to others."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _configuration() -> str:
    """A containers.conf of our own. Without CAP_SYS_RESOURCE limits cannot be raised, which only runc puts up with."""
    lines = ["[engine]", 'events_logger = "file"']
    if not Path("/run/systemd/system").exists():
        lines.append('cgroup_manager = "cgroupfs"')
    if _prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE) != 1 or os.getuid() != 0:
        if shutil.which("runc") and os.getuid() == 0:
            lines.append('runtime = "runc"')
        limits = [_ulimit("nofile", resource.RLIMIT_NOFILE, 65536), _ulimit("nproc", resource.RLIMIT_NPROC, 32768)]
        lines += ["[containers]", f"default_ulimits = [{', '.join(limits)}]"]
    return "\n".join(lines) + "\n"


def _ulimit(name: str, which: int, at_most: int) -> str:
    """The limit to give, soft and hard alike: below this process' own, which cannot be raised."""
    hard = resource.getrlimit(which)[1]
    limit = at_most if hard == resource.RLIM_INFINITY else min(hard, at_most)
    return f'"{name}={limit}:{limit}"'
