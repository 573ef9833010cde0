"""What is shown of a secret in a URL: documents have the URL that was asked for, sentences for readers none of it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cli.conftest import Server, Tesk
from tests.servers.containers import IMAGE


class Store(BaseHTTPRequestHandler):
    """Takes what is put by who knows the password and has a signature, but below /closed."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        is_known = self.headers.get("Authorization", "").startswith("Basic ") and "sig=hunter2" in self.path
        self.send_response(201 if is_known and not self.path.startswith("/closed") else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"me:hunter2@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_secrets_of_urls_are_in_documents_and_nowhere_else(
    tesk: Tesk, on_terminal: Callable[..., str], server: Server, store: str
) -> None:
    script = "mkdir -p /out/d; echo x >/out/a; echo x >/out/d/b"
    urls = {name: f"http://{store}/{name}?sig=hunter2" for name in ("a", "d", "closed")}
    outputs = [f"/out/a={urls['a']}", f"/out/d/={urls['d']}"]
    done = tesk("run", "--json", *(f"--output={each}" for each in outputs), "--image", IMAGE, "--", "sh", "-c", script)
    task = json.loads(done.stdout)
    assert {file["path"]: file["url"] for file in task["logs"][0]["outputs"]} == {
        "/out/a": urls["a"],
        "/out/d/b": f"http://{store}/d/b?sig=hunter2",
    }
    assert [output["url"] for output in task["outputs"]] == [urls["a"], urls["d"]]
    listed = json.loads(tesk("list", "--view", "FULL", "--limit", "1").stdout)
    assert listed == [task]

    failed = tesk("run", "--json", f"--output=/out/a={urls['closed']}", "--image", IMAGE, "--", "sh", "-c", script)
    refused = json.loads(failed.stdout)
    assert refused["state"] == "SYSTEM_ERROR"
    said = " ".join(refused["logs"][0]["system_logs"])
    assert "/closed?…: " in said
    broken = tesk("run", "--output=/out/a=http://me:hunter2@ho st/?sig=hunter2", "--image", IMAGE, "true")
    assert "percent-encoded" in broken.stderr
    shown = [on_terminal("get", each["id"]) for each in (task, refused)] + [on_terminal("list")]
    log = (server.shared.parent / "log").read_text()
    for text in (done.stderr, failed.stderr, broken.stderr, said, log, *shown):
        assert "hunter2" not in text
