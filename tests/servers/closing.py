"""Before a real API server: all goes through, and each connection is closed after its answer, as by one that ends."""

import contextlib
import http.client
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.certificates import certificate


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: str
    port: int
    trusted: ssl.SSLContext

    def do_GET(self) -> None:
        there = http.client.HTTPSConnection(self.host, self.port, timeout=300, context=self.trusted)
        with contextlib.closing(there):
            there.request("GET", self.path, headers={"Authorization": self.headers["Authorization"]})
            answer = there.getresponse()
            self.send_response_only(answer.status)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):  # nobody reads any more
                while piece := answer.read1(65536):
                    self.wfile.write(piece)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def closing(host: str, port: int, ca: Path, folder: Path) -> Iterator[tuple[int, Path]]:
    """(port on loopback, its certificate): leads to host and port."""

    class Handler(_Handler):
        pass

    Handler.host, Handler.port, Handler.trusted = host, port, ssl.create_default_context(cafile=str(ca))
    pem = certificate(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    server = _Server(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, name="closing", daemon=True).start()
    try:
        yield server.server_address[1], pem
    finally:
        server.shutdown()
        server.server_close()
