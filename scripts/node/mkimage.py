"""mkimage.py FOLDER OUT.tar NAME:TAG [WORD...]: an image of one layer as an OCI archive, which containerd imports.

Only the standard library, and the same bytes each time. WORD... is the image's command.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from typing import Any

OCI = "application/vnd.oci.image"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def layer(root: str) -> bytes:
    """The folder as an uncompressed tar archive."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(folders + files):
                path = os.path.join(folder, name)
                tar.add(path, os.path.relpath(path, root), recursive=False, filter=_plain)
    return raw.getvalue()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    return entry


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{sha256(data)}", "size": len(data)}


def main(root: str, out: str, name: str, command: list[str]) -> None:
    raw = layer(root)
    packed = gzip.compress(raw, 1, mtime=0)
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    configuration = json.dumps({
        "architecture": ARCHITECTURE, "os": "linux",
        "config": {"Env": [path], "Cmd": command, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(raw)}"]},
    }).encode()  # fmt: skip
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json",
        "config": descriptor("config.v1+json", configuration),
        "layers": [descriptor("layer.v1.tar+gzip", packed)],
    }).encode()  # fmt: skip
    entry = descriptor("manifest.v1+json", manifest) | {
        "platform": {"architecture": ARCHITECTURE, "os": "linux"},
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
        },
    }
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files |= {f"blobs/sha256/{sha256(data)}": data for data in (packed, configuration, manifest)}
    with tarfile.open(out, "w") as tar:
        for file, data in files.items():
            info = tarfile.TarInfo(file)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:] or ["/bin/sh"])
