"""A real image registry to pull from: the OCI distribution API's reading half, which is files behind nginx."""

import contextlib
import hashlib
import json
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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
    location ~ /manifests/ {{ default_type application/vnd.docker.distribution.manifest.v2+json; }}
  }}
}}
"""


@contextlib.contextmanager
def registry(root: Path, name: str, host: str = "127.0.0.1") -> Iterator[str]:
    """Serves one image, `name:1`; yields its full name as an executor would give it.

    Nobody may read what is called private/ANYTHING.
    """
    with _serving(root, name, host) as (full_name, _):
        yield full_name


@contextlib.contextmanager
def holding_registry(root: Path, name: str, host: str = "127.0.0.1") -> Iterator[tuple[str, Callable[[], None]]]:
    """(the full name of its image, what lets it go): until then it answers nobody, so that a pull takes as long."""
    with _serving(root, name, host) as (full_name, child):
        child.send_signal(signal.SIGSTOP)
        try:
            yield full_name, lambda: child.send_signal(signal.SIGCONT)
        finally:
            child.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def _serving(root: Path, name: str, host: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    _write_image(root / "v2" / name)
    with tempfile.TemporaryDirectory(prefix="tesk-registry-", dir=root.parent) as scratch:
        configuration = Path(scratch) / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(scratch=scratch, host=host, port=port, root=root))
        command = [program("nginx"), "-c", str(configuration), "-p", scratch, "-e", "stderr"]
        with serving(command, port, Path(scratch) / "log", host=host) as child:
            yield f"{host}:{port}/{name}:1", child


def _write_image(folder: Path) -> None:
    (folder / "blobs").mkdir(parents=True)
    (folder / "manifests").mkdir()
    layers = [image_layer(shell=True)]
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
