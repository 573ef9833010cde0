"""A real proxy that asks people to sign in and tells the server behind it who they are: nginx, by Basic."""

import base64
import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import free_port, program, serving

CONFIGURATION = """\
daemon off;
master_process off;
pid {scratch}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      auth_basic "lab";
      auth_basic_user_file {scratch}/users;
      proxy_pass {upstream};
      proxy_set_header Host $http_host;
      proxy_set_header Authorization "";
      proxy_set_header X-Forwarded-User $remote_user;
      proxy_set_header X-Forwarded-Groups "lab-a";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


@contextlib.contextmanager
def signing_proxy(upstream: str, folder: Path, **passwords: str) -> Iterator[str]:
    """Its URL. `passwords`: by name. Who signs in is in the group lab-a."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tesk-proxy-", dir=folder) as scratch:
        digests = {name: hashlib.sha1(word.encode()).digest() for name, word in passwords.items()}
        lines = [f"{name}:{{SHA}}{base64.b64encode(digest).decode()}\n" for name, digest in digests.items()]
        (Path(scratch) / "users").write_text("".join(lines))
        configuration = Path(scratch) / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(scratch=scratch, port=port, upstream=upstream))
        command = [program("nginx"), "-c", str(configuration), "-p", scratch, "-e", "stderr"]
        with serving(command, port, Path(scratch) / "log"):
            yield f"http://127.0.0.1:{port}"
