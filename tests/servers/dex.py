"""Dex, the OpenID Connect provider of many Kubernetes clusters, with one user who has a password."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import free_port, serving

_ENSURE = Path(__file__).parents[2] / "scripts" / "ensure"
CLIENT = "tesk-cli"
EMAIL = "alice@example.org"
PASSWORD = "password"
_HASH = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
"""Of the password, as Dex's own example has it (bcrypt)."""


def cached() -> Path:
    """Where scripts/ensure builds it."""
    version = re.search(r"^DEX=(\S+)", _ENSURE.read_text(), re.MULTILINE)
    assert version
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "tesk" / f"dex-{version[1]}" / "dex"


@contextlib.contextmanager
def dex() -> Iterator[str]:
    """A running Dex: its issuer."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/dex"
    config = {
        "issuer": issuer,
        "storage": {"type": "memory"},
        "web": {"http": f"127.0.0.1:{port}"},
        "oauth2": {"skipApprovalScreen": True},
        "staticClients": [{"id": CLIENT, "name": "tesk login", "public": True}],
        "enablePasswordDB": True,
        "staticPasswords": [{"email": EMAIL, "hash": _HASH, "username": "alice", "userID": "4711"}],
    }
    with tempfile.TemporaryDirectory(prefix="tesk-dex-") as scratch:
        file = Path(scratch) / "dex.yaml"
        file.write_text(json.dumps(config))
        with serving([str(cached()), "serve", str(file)], port, Path(scratch) / "log"):
            yield issuer
