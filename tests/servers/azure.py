"""An Azure blob store of one's own: Azurite in memory, and obstore as the tests' own client of it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.store import AzureStore

from tests.known_secrets import known
from tests.servers.process import free_port, program, serving

VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
KEY = known(
    "the key of the Azure account",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)
"""The account and key that Azurite documents."""


class Container(NamedTuple):
    """The blobs of a container below a prefix, as a folder: what `write` and `tree` of the tests take."""

    store: AzureStore
    prefix: str = ""

    def __truediv__(self, name: str) -> "Container":
        return self._replace(prefix=f"{self.prefix}{name}/")

    def read_bytes(self) -> bytes:
        return bytes(obstore.get(self.store, self.prefix.rstrip("/")).bytes())

    def changed(self) -> datetime:
        return obstore.head(self.store, self.prefix.rstrip("/"))["last_modified"]

    def put(self, files: Mapping[str, bytes | None]) -> None:
        for name, content in files.items():
            if content is not None:
                obstore.put(self.store, self.prefix + name, content, use_multipart=False)
            elif not any(other.startswith(f"{name}/") for other in files):
                obstore.put(
                    self.store, self.prefix + name, b"", attributes={"hdi_isfolder": "true"}, use_multipart=False
                )

    def tree(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for chunk in obstore.list(self.store, self.prefix.rstrip("/") or None):
            for meta in chunk:
                path = meta["path"].removeprefix(self.prefix)
                parts = path.split("/")
                found |= {"/".join(parts[:n]): None for n in range(1, len(parts))}
                got = obstore.get(self.store, meta["path"])
                found[path] = None if got.attributes.get("hdi_isfolder") == "true" else bytes(got.bytes())
        return found


class Azure(NamedTuple):
    endpoint: str

    def environment(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }

    def make(self, container: str) -> Container:
        store = AzureStore(
            container,
            account_name=ACCOUNT,
            account_key=KEY,
            endpoint=self.endpoint,
            client_options={"allow_http": True},
        )
        _create(self.endpoint, container)
        return Container(store)


def _create(endpoint: str, container: str) -> None:
    """Creates a container, which obstore does not do, with a request signed by the account's key."""
    import base64
    import email.utils
    import hashlib
    import hmac
    import urllib.request

    date = email.utils.formatdate(usegmt=True)
    signed = f"x-ms-date:{date}\nx-ms-version:2021-12-02\n/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    text = "PUT" + "\n" * 12 + signed
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02", "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    request = urllib.request.Request(f"{endpoint}/{container}?restype=container", None, headers, method="PUT")
    urllib.request.urlopen(request, timeout=300).close()


def cached() -> Path:
    """Where scripts/ensure installs it."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "tesk" / f"azurite-{VERSION}" / "node_modules/azurite/dist/src/blob/main.js"


@contextlib.contextmanager
def azure_server() -> Iterator[Azure]:
    port = free_port()
    command = [program("node"), str(cached()), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    with (
        tempfile.TemporaryDirectory(prefix="tesk-azure-") as scratch,
        serving(command, port, Path(scratch) / "log", cwd=Path(scratch)),
    ):
        yield Azure(f"http://127.0.0.1:{port}/{ACCOUNT}")
