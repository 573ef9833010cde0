"""A real HTTP server over a folder: nginx with WebDAV's PUT, MKCOL and DELETE, and Basic authentication if asked.

With `listing` it also says what a directory holds: "dav" by PROPFIND, "index" by its index pages.
"""

import base64
import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.known_secrets import known
from tests.servers.process import free_port, program, serving

MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
LISTING = {"": "", "dav": "dav_ext_methods PROPFIND OPTIONS;", "index": "autoindex on;"}
CONFIGURATION = """\
{modules}
daemon off;
master_process off;
pid {scratch}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  client_max_body_size 0;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port}{tls};
    {also}
    root "{root}";
    location / {{
      dav_methods PUT DELETE MKCOL;
      dav_access user:rw group:r all:r;
      {more}
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(
    root: Path,
    *,
    user: str = "",
    password: str = "",
    make_parents: bool = True,
    certificate: Path | None = None,
    also: str = "",
    listing: str = "",
    ranges: bool = True,
) -> Iterator[str]:
    """Yields the URL of `root`. Without `make_parents` a PUT into a missing folder is answered with 409.

    `certificate` is a PEM file with its key; with it the URL is https. `also` is a further address of this machine to
    listen on, which the URL then names.
    """
    if password:
        known("the password of the HTTP server", password)
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tesk-nginx-", dir=root.parent) as scratch:
        more = LISTING[listing] + ("create_full_put_path on;" if make_parents else "")
        more += "" if ranges else "max_ranges 0;"
        modules = f"load_module {program('the WebDAV module of nginx', MODULE)};" if listing == "dav" else ""
        if user:
            digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
            (Path(scratch) / "users").write_text(f"{user}:{{SHA}}{digest}\n")
            more += f'auth_basic "test"; auth_basic_user_file "{scratch}/users";'
        tls = f" ssl; ssl_certificate {certificate}; ssl_certificate_key {certificate}" if certificate else ""
        listen = f"listen {also}:{port}{tls};" if also else ""
        configuration = Path(scratch) / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                modules=modules, scratch=scratch, port=port, root=root, more=more, tls=tls, also=listen
            )
        )
        command = [program("nginx"), "-c", str(configuration), "-p", scratch, "-e", "stderr"]
        with serving(command, port, Path(scratch) / "log"):
            yield f"http{'s' if certificate else ''}://{also or '127.0.0.1'}:{port}"
