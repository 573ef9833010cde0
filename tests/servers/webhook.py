"""A mutating webhook of a cluster, as service meshes and vaults have them: it adds containers to pods."""

import base64
import contextlib
import json
import ssl
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.certificates import certificate
from tests.servers.cluster import Cluster, until


@contextlib.contextmanager
def injecting(cluster: Cluster, namespace: str, folder: Path, patch: list[dict[str, Any]]) -> Iterator[list[str]]:
    """While it runs, every new pod of the namespace is patched (RFC 6902). Gives their roles, the latest last."""
    roles: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = review["request"]
            roles.append(request["object"]["metadata"].get("labels", {}).get("tesk/role", ""))
            answer = {
                "uid": request["uid"], "allowed": True, "patchType": "JSONPatch",
                "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
            }  # fmt: skip
            body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    host = cluster.host
    pem = certificate(folder, host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = ThreadingHTTPServer((host, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    name = f"adds-{uuid.uuid4().hex[:8]}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    where = {
        "url": f"https://{host}:{server.server_port}/",
        "caBundle": base64.b64encode((folder / "crt").read_bytes()).decode(),
    }
    webhook = {
        "name": f"{name}.example.com", "clientConfig": where, "rules": [rule], "failurePolicy": "Fail",
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 30,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }  # fmt: skip
    kind = "MutatingWebhookConfiguration"
    api = "admissionregistration.k8s.io/v1"
    cluster.apply({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]})
    probe = ["run", "probe", "--image=localhost/busybox:1", "--labels=tesk/role=probe", "--dry-run=server"]

    def is_asked() -> bool:
        cluster.kubectl("-n", namespace, *probe, check=False)
        return "probe" in roles

    try:
        until(is_asked, what="a call of the webhook")
        yield roles
    finally:
        cluster.kubectl("delete", kind, name)
        server.shutdown()
        server.server_close()
        thread.join()
