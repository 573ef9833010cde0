"""A small DRS server: the documents it is given, by id, and for each access id a URL."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

ROOT = "/ga4gh/drs/v1/objects/"


class Drs:
    """`documents` and `accesses` may be changed while it runs; `asked` are the paths and Authorizations so far.

    `callers` are the other ends of the connections that were made.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.documents: dict[str, dict[str, Any]] = {}
        self.accesses: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.callers: set[Any] = set()
        self.later = 0

    def answer(self, path: str) -> tuple[int, Any]:
        name, _, access = urlsplit(path).path.removeprefix(ROOT).partition("/access/")
        found = self.accesses.get((unquote(name), unquote(access))) if access else self.documents.get(unquote(name))
        if self.later:
            self.later -= 1
            return 202, {}
        return (200, found) if found else (404, {"msg": "no such object", "status_code": 404})


@contextlib.contextmanager
def drs_server() -> Iterator[Drs]:
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
    Handler.drs = Drs(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Handler.drs
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
