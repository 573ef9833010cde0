"""A small DRS server: the documents it is given, by id, and for each access id a URL; or the files of a folder."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

ROOT = "/ga4gh/drs/v1/objects/"


class Drs:
    """`documents` and `accesses` may be changed while it runs; `asked` are the paths and Authorizations so far.

    `callers` are the other ends of the connections that were made.
    """

    def __init__(self, port: int, folder: Path | None = None, folder_url: str = "") -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.documents: dict[str, dict[str, Any]] = {}
        self.accesses: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.callers: set[Any] = set()
        self.later = 0
        self._folder = folder
        self._folder_url = folder_url

    def answer(self, path: str) -> tuple[int, Any]:
        name, _, access = urlsplit(path).path.removeprefix(ROOT).partition("/access/")
        found = self.accesses.get((unquote(name), unquote(access))) if access else self.documents.get(unquote(name))
        if self.later:
            self.later -= 1
            return 202, {}
        found = found or self._of_folder(unquote(name).strip("/"))
        return (200, found) if found else (404, {"msg": "no such object", "status_code": 404})

    def _of_folder(self, name: str) -> dict[str, Any] | None:
        """What is in the folder by that path: a directory is a bundle, a file an object that is fetched over HTTP."""
        if self._folder is None or not (path := self._folder / name).exists():
            return None
        if path.is_dir():
            return {"contents": [{"name": each.name, "id": f"{name}/{each.name}"} for each in path.iterdir()]}
        method = {"type": "https", "access_url": {"url": f"{self._folder_url}/{quote(name)}"}}
        return {"size": path.stat().st_size, "access_methods": [method]}


@contextlib.contextmanager
def drs_server(folder: Path | None = None, folder_url: str = "") -> Iterator[Drs]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        drs: ClassVar[Drs]

        def do_GET(self) -> None:
            self.drs.callers.add(self.client_address)
            self.drs.asked.append((self.path, self.headers.get("Authorization", "")))
            status, document = self.drs.answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.drs = Drs(server.server_port, folder, folder_url)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Handler.drs
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
