"""A real image registry to pull from: the OCI distribution API's reading half, which is files behind nginx."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers.containers import image_layer
from tests.servers.process import free_port, program, serving

CONFIGURATION = """\
daemon off;
master_process off;
pid {scratch}/pid;
error_log stderr warn;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  server {{
    listen {host}:{port};
    root "{root}";
    default_type application/octet-stream;
    location = /v2/ {{ return 200; }}
    location ^~ /v2/private/ {{ return 403; }}
    location ~ /blobs/ {{ {slow} }}
    location ~ /manifests/ {{ default_type application/vnd.docker.distribution.manifest.v2+json; }}
  }}
}}
"""

BALLAST: Final = 4_000_000


@contextlib.contextmanager
def registry(root: Path, name: str, host: str = "127.0.0.1", slow_s: int = 0) -> Iterator[str]:
    """Serves one image, `name:1`, in so many seconds; yields its full name as an executor would give it.

    Nobody may read what is called private/ANYTHING.
    """
    port = free_port()
    _write_image(root / "v2" / name, ballast=bool(slow_s))
    with tempfile.TemporaryDirectory(prefix="tesk-registry-", dir=root.parent) as scratch:
        configuration = Path(scratch) / "nginx.conf"
        slow = f"limit_rate {BALLAST // slow_s};" if slow_s else ""
        configuration.write_text(CONFIGURATION.format(scratch=scratch, host=host, port=port, root=root, slow=slow))
        command = [program("nginx"), "-c", str(configuration), "-p", scratch, "-e", "stderr"]
        with serving(command, port, Path(scratch) / "log", host=host):
            yield f"{host}:{port}/{name}:1"


def _write_image(folder: Path, *, ballast: bool) -> None:
    """With `ballast`, the image has a layer that nobody has yet."""
    (folder / "blobs").mkdir(parents=True)
    (folder / "manifests").mkdir()
    layers = [image_layer(shell=True)]
    if ballast:
        layers.append(image_layer(shell=False, ballast=os.urandom(BALLAST)))
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        }
    ).encode()
    kind = "application/vnd.docker."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}distribution.manifest.v2+json",
        "config": _blob(folder, f"{kind}container.image.v1+json", configuration),
        "layers": [_blob(folder, f"{kind}image.rootfs.diff.tar", layer) for layer in layers],
    }
    text = json.dumps(manifest).encode()
    for tag in ("1", _digest(text)):
        (folder / "manifests" / tag).write_bytes(text)


def _blob(folder: Path, kind: str, data: bytes) -> dict[str, object]:
    (folder / "blobs" / _digest(data)).write_bytes(data)
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
