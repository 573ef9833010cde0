"""Real container engines and images for the tests, made without a registry.

Docker's daemon runs with folders and a socket of its own; Podman's service is started as tesk starts it. Images are
made from the distribution's static busybox.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tesk.places.local import socket as sockets

APPLETS = (  # noqa: SIM905
    "sh cat echo ls env printf true false sleep seq sort id mkdir rm cp mv ln wc head tail tee md5sum test stat dd "
    "touch chmod kill grep pwd mkfifo sync usleep yes timeout wget nc sed"
).split()
START_LIMIT_S = 300.0
IMAGE = "localhost/tesk-test:1"
NOBODY_IMAGE = "localhost/tesk-nobody:1"
BARE_IMAGE = "localhost/tesk-bare:1"
NUMERIC_IMAGE = "localhost/tesk-1234:1"
ENTRY_IMAGE = "localhost/tesk-entry:latest"
ENTRY = b"""#!/bin/sh
export ENTRY=ran
[ -z "$FAIL" ] || { echo no licence >&2; exit 5; }
[ -z "$STAY" ] || { "$@"; exit $?; }
exec "$@"
"""
APP_IMAGE = "localhost/tesk-app:1"
WORKER_IMAGE = "localhost/tesk-worker:1"
WORKER = 1234
PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
worker:x:1234:1234:worker:/home/worker:/bin/sh
"""
PROGRAM = b'#!/bin/sh\necho "$0 ran"\n'
IMAGES: dict[str, dict[str, Any]] = {
    IMAGE: {},
    NOBODY_IMAGE: {"user": "nobody", "entrypoint": ["/bin/false"]},
    BARE_IMAGE: {"shell": False},
    NUMERIC_IMAGE: {"user": "1234:1234"},
    ENTRY_IMAGE: {"entrypoint": ["/etc/entry"]},
    APP_IMAGE: {"programs": {"app/program": 0, "data/reference/program": 0}},
    WORKER_IMAGE: {"user": "worker", "programs": {"app/program": 0, "home/worker/program": WORKER}},
}
"""The images of the tests' executors, with the options of `image_archive`."""


@contextlib.contextmanager
def docker_daemon(folder: Path, *options: str) -> Iterator[Path]:
    """A Docker daemon of our own; its socket. It and all it started end with the context, unless by an option."""
    dockerd = shutil.which("dockerd")
    assert dockerd, "dockerd is missing; scripts/test installs it (package docker.io)"
    socket, pid = folder / "docker.sock", folder / "docker.pid"
    arguments = [
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--host=unix://{socket}",
        f"--pidfile={pid}",
        *options,
    ]
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen([dockerd, *arguments], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_LIMIT_S
    try:
        while not sockets.answers(socket):
            if process.poll() is not None:  # it gives its containerd 15 s, which a busy machine may need longer than
                said = (folder / "dockerd.log").read_text()
                assert "timeout waiting for containerd" in said, said[-2000:]
                assert said.count("Starting up") < 5, said[-2000:]
                with (folder / "dockerd.log").open("ab") as log:
                    process = subprocess.Popen([dockerd, *arguments], stdout=log, stderr=log, start_new_session=True)
            assert time.monotonic() < deadline, "dockerd did not answer"
            time.sleep(0.05)
        yield socket
    finally:
        process.terminate()
        try:
            process.wait(START_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def podman_service(folder: Path, end: signal.Signals = signal.SIGTERM) -> Iterator[Path]:
    """Podman's API service, with the configuration that tesk gives it; its socket."""
    podman = shutil.which("podman")
    assert podman, "podman is missing; scripts/test installs it"
    socket, log, configuration = sockets.prepare(folder)
    registries = folder / "registries.conf"
    registries.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    environment = {
        **os.environ, "CONTAINERS_CONF": str(configuration), "CONTAINERS_REGISTRIES_CONF": str(registries),
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [podman, "system", "service", "--time=0", f"unix://{socket}"],
            env=environment,
            stdout=out,
            stderr=out,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not sockets.answers(socket):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "podman did not answer"
            time.sleep(0.05)
        yield socket
    finally:
        process.send_signal(end)
        try:
            process.wait(START_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def image_archive(
    name: str, *, user: str = "", entrypoint: Sequence[str] = (), shell: bool = True, health: str = "",
    programs: Mapping[str, int] = MappingProxyType({}),
) -> bytes:  # fmt: skip
    """An image as `docker load` reads it: busybox and its applets, or one static program and no shell.

    `health`: what its health check runs, many times a second. `programs`: paths of programs that say their names, each
    in a folder of the user with this number.
    """
    layer = image_layer(shell=shell, programs=programs)
    configuration = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/bin:/bin"], "User": user, "Entrypoint": [*entrypoint], "WorkingDir": "/srv",
            **({"Healthcheck": {"Test": ["CMD-SHELL", health], "Interval": 50_000_000}} if health else {}),
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }).encode()  # fmt: skip
    digest = hashlib.sha256(configuration).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, data in (
            (f"{digest}.json", configuration), ("layer.tar", layer), ("manifest.json", json.dumps(manifest).encode()),
        ):  # fmt: skip
            _add(tar, path, data)
    return archive.getvalue()


def image_layer(*, shell: bool, programs: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """The files of an image as a tar archive."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox is missing; scripts/test installs it (package busybox-static)"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("srv", 0o755), ("tmp", 0o1777), ("usr/local/bin", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "etc/passwd", PASSWD)
        _add(tar, "etc/image-file", b"from the image\n")
        _add(tar, "etc/not-executable", b"#!/bin/sh\n")
        _add(tar, "etc/entry", ENTRY, 0o755)
        for path, owner in programs.items():
            entry = tarfile.TarInfo(path.rpartition("/")[0])
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
            tar.addfile(entry)
            _add(tar, path, PROGRAM, 0o755)
        if not shell:
            _add(tar, "bin/cat", Path(busybox).read_bytes(), 0o755)
            return layer.getvalue()
        _add(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return layer.getvalue()


def _add(tar: tarfile.TarFile, path: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
