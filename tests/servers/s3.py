"""A real S3 server: versitygw over a folder. Buckets are its directories, objects its files."""

import contextlib
import hashlib
import http.client
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tesk.filer.schemes.s3.sigv4 import Key, escaped, query_of, signed
from tests.known_secrets import known
from tests.servers.process import free_port, program, serving

VERSION = "v1.8.0"
KEY: Final = known("the key of the S3 server", "test/secret+key-of-s3")


class S3(NamedTuple):
    """Where it listens and the one key that it knows."""

    url: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The AWS variables that make a client use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Message, bytes]:
        """Status, head and body of the answer to a request for /bucket/key."""
        host = urlsplit(self.url).netloc
        sent = signed(
            method,
            host,
            path,
            Key(self.access_key, self.secret_key),
            "us-east-1",
            datetime.now(UTC),
            parameters=parameters,
            headers=headers,
            digest=hashlib.sha256(body).hexdigest(),
        )
        with contextlib.closing(http.client.HTTPConnection(host, timeout=300)) as connection:
            connection.request(method, f"{escaped(path)}?{query_of(parameters or {})}".rstrip("?"), body, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


def cached() -> Path:
    """Where scripts/ensure puts the built server."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "tesk" / f"versitygw-{VERSION}" / "versitygw"


@contextlib.contextmanager
def s3_server(root: Path, host: str = "127.0.0.1", owners: Mapping[str, tuple[str, str]] | None = None) -> Iterator[S3]:
    """`root/BUCKET` directories are buckets; make them with mkdir, before or while it runs.

    `owners`: of buckets that one more key each may use, and no other of these: the key and its secret.

    With a `host` that is not loopback's it listens on all addresses of this machine, of which `host` is one.
    """
    port = free_port()
    store = S3(f"http://{host}:{port}", "test-access-key", KEY)
    listen = f"127.0.0.1:{port}" if host == "127.0.0.1" else f":{port}"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tesk-s3-") as scratch:
        sidecar = Path(scratch) / "sidecar"
        sidecar.mkdir()
        command = [program("versitygw", cached()), "--port", listen]
        command += ["--access", store.access_key, "--secret", store.secret_key, "--quiet", "--keep-alive"]
        if owners:
            command += ["--iam-dir", scratch]
        command += ["posix", "--sidecar", str(sidecar), str(root)]
        with serving(command, port, Path(scratch) / "log"):
            for bucket, (key, secret) in (owners or {}).items():
                (root / bucket).mkdir(exist_ok=True)
                _administer(store, "create-user", "--access", key, "--secret", secret, "--role", "user")
                _administer(store, "change-bucket-owner", "--bucket", bucket, "--owner", key)
            yield store


def _administer(store: S3, *words: str) -> None:
    access = ["--access", store.access_key, "--secret", store.secret_key, "--endpoint-url", store.url]
    subprocess.run([program("versitygw", cached()), "admin", *access, *words], check=True, timeout=60)
