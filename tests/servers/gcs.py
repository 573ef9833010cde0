"""A Google Cloud Storage of one's own: fake-gcs-server, in memory, and a plain client of its JSON API for the tests."""

import contextlib
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from tests.servers.process import free_port, program, serving

VERSION = "v1.56.1"


class Shelf(NamedTuple):
    """The keys of a bucket below a prefix, as a folder: what `write` and `tree` of the tests take."""

    store: "Gcs"
    bucket: str
    prefix: str = ""

    def __truediv__(self, name: str) -> "Shelf":
        return self._replace(prefix=f"{self.prefix}{name}/")

    def read_bytes(self) -> bytes:
        return self.store.get(self.bucket, self.prefix.rstrip("/"))

    def changed(self) -> datetime:
        return self.store.created(self.bucket, self.prefix.rstrip("/"))

    def put(self, files: Mapping[str, bytes | None]) -> None:
        for name, content in files.items():
            if content is not None:
                self.store.put(self.bucket, self.prefix + name, content)
            elif not any(other.startswith(f"{name}/") for other in files):
                self.store.put(self.bucket, f"{self.prefix}{name}/", b"")

    def tree(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for key in self.store.keys(self.bucket, self.prefix):
            path = key.removeprefix(self.prefix)
            if not path:
                continue
            parts = path.rstrip("/").split("/")
            found |= {"/".join(parts[:n]): None for n in range(1, len(parts))}
            found[path.rstrip("/")] = None if path.endswith("/") else self.store.get(self.bucket, key)
        return found


class Gcs(NamedTuple):
    url: str

    def environment(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": self.url}

    def make(self, bucket: str) -> Shelf:
        self._ask("POST", "/storage/v1/b", json.dumps({"name": bucket}).encode(), "application/json")
        return Shelf(self, bucket)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._ask("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}", content)

    def get(self, bucket: str, key: str) -> bytes:
        try:
            return self._ask("GET", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media")
        except urllib.error.HTTPError as error:
            raise FileNotFoundError(key) from error

    def created(self, bucket: str, key: str) -> datetime:
        told = json.loads(self._ask("GET", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}"))
        return datetime.fromisoformat(told["timeCreated"])

    def keys(self, bucket: str, prefix: str) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            asked = f"/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}&pageToken={quote(token, safe='')}"
            answer = json.loads(self._ask("GET", asked))
            found += [item["name"] for item in answer.get("items", [])]
            token = answer.get("nextPageToken", "")
            if not token:
                return found

    def _ask(self, method: str, path: str, body: bytes | None = None, what: str = "application/octet-stream") -> bytes:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": what}, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            content: bytes = answer.read()
            return content


def cached() -> Path:
    """Where scripts/ensure puts the built server."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "tesk" / f"fake-gcs-server-{VERSION}" / "fake-gcs-server"


@contextlib.contextmanager
def gcs_server() -> Iterator[Gcs]:
    port = free_port()
    store = Gcs(f"http://127.0.0.1:{port}")
    command = [program("fake-gcs-server", cached()), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-external-url", store.url, "-public-host", f"127.0.0.1:{port}"]
    with tempfile.TemporaryDirectory(prefix="tesk-gcs-") as scratch, serving(command, port, Path(scratch) / "log"):
        yield store
