"""The image that the demonstration's task runs in: the distribution's static busybox and nothing else."""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

IMAGE: Final = "localhost/tesk-demo:1"


def image() -> bytes:
    """The image as `docker load` reads it: one layer, its configuration and the manifest (Docker image spec 1.2)."""
    layer = tar_of({}, root_file_system())
    configuration = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    })  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {"config.json": configuration.encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return tar_of(files, [])


def root_file_system() -> list[tuple[tarfile.TarInfo, bytes]]:
    """busybox and a link for each of its programs."""
    busybox = shutil.which("busybox")
    assert busybox, "scripts/ensure has installed it"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    program = tarfile.TarInfo("bin/busybox")
    program.mode = 0o755
    entries = [(program, Path(busybox).read_bytes())]
    for applet in set(applets) - {"busybox"}:
        link = tarfile.TarInfo(f"bin/{applet}")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        entries.append((link, b""))
    return entries


def tar_of(files: dict[str, bytes], entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for entry, data in [*((tarfile.TarInfo(name), data) for name, data in files.items()), *entries]:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
