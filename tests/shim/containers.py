"""A container for the shim alone: a root folder and a process namespace of its own, with no engine."""

import io
import os
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.containers import image_layer

SHIM = Path(__file__).parents[2] / "tesk/shim/shim"
PATIENCE_S = 300
NOBODY = 65534
PATH = {"PATH": "/usr/local/bin:/bin"}


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is missing"
    return found


class Ended(NamedTuple):
    """How a run of the shim ended: `marks` are the files of the control folder, but for the streams."""

    code: int
    out: str
    err: str
    marks: dict[str, str]


class Container:
    """A root folder with the tests' image and the shim's folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with tarfile.open(fileobj=io.BytesIO(image_layer(shell=True))) as layer:
            layer.extractall(root, filter="tar")
        for name in (".tesk/control", ".tesk/files", ".tesk/shim", "proc", "dev", "sys/fs/cgroup", "out"):
            (root / name).mkdir(parents=True)
        for name in (".tesk/control", ".tesk/files", "out"):
            (root / name).chmod(0o777)
        (root / "dev/null").touch()
        (root / ".tesk/shim/shim").write_bytes(SHIM.read_bytes())
        (root / ".tesk/shim/shim").chmod(0o755)

    def start(
        self, *words: str, env: dict[str, str] = PATH, user: int = 0, entry: tuple[str, ...] = (),
        mounts: Sequence[tuple[Path, str]] = (),
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """`entry`: a command that is given the shim's. `mounts`: folders, and where they are in the container."""
        own = [program("unshare"), "--fork", "--pid", "--kill-child", "--mount", f"--mount-proc={self.root}/proc"]
        if os.geteuid():
            own.insert(1, "--map-root-user")
        binds = []
        for folder, path in mounts:
            at = self.root / path.lstrip("/")
            at.mkdir(parents=True, exist_ok=True)
            binds.append(f"{program('mount')} --bind {shlex.quote(str(folder))} {shlex.quote(str(at))}")
        if binds:
            own += ["sh", "-c", " && ".join([*binds, 'exec "$@"']), "sh"]
        drop = ["--userspec", f"{user}:{user}"] if user else []
        return subprocess.Popen(
            [*own, program("chroot"), *drop, str(self.root), *entry, "/.tesk/shim/shim", *words],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(
        self, *command: str, workdir: str = "", stdin: str = "", stdout: str = "", stderr: str = "",
        copies: tuple[str, ...] = (), **more: Any,
    ) -> Ended:  # fmt: skip
        words = ["run", workdir, stdin, stdout, stderr, str(len(copies)), *copies, *command]
        return self.ended(self.start(*words, **more))

    def ended(self, process: subprocess.Popen[bytes]) -> Ended:
        try:
            said, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        control = self.root / ".tesk/control"
        found = {path.name: path.read_text(errors="replace") for path in control.iterdir() if path.is_file()}
        assert not said, said
        return Ended(process.returncode, found.pop("stdout", ""), found.pop("stderr", ""), found)

    def sh(self, script: str, **more: Any) -> Ended:
        return self.run("sh", "-c", script, **more)


def first_of(unshare: int) -> int:
    """The first process of a namespace, by its number outside."""
    return int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text())


def until(holds: Callable[[], bool]) -> None:
    """Waits until it is so. A file that is not there yet is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
        except FileNotFoundError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.01)
