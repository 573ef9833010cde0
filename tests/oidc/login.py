"""`tesk login` and the other commands, run with a home of their own, and a person who signs in at the provider."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.servers.oidc_provider import sign_in

TESK: Final = (sys.executable, "-m", "tesk")
ALICE: Final = {"login": "alice", "password": "any"}


def environment(server: str, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TESK_")}
    return {**kept, "TESK_SERVER": server, "XDG_CONFIG_HOME": str(home), "BROWSER": "true"}


def tesk(server: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TESK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment(server, home))


def log_in(server: str, home: Path, *arguments: str, fill: Mapping[str, str] = ALICE) -> str:
    """Runs `tesk login` and fills in the forms where it leads; what it wrote last."""
    command = [*TESK, "login", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(server, home)) as process:
        assert process.stderr
        line = process.stderr.readline()
        found = re.match(r"open (\S+)", line)
        assert found, line + process.stderr.read()
        sign_in(found[1], fill)
        rest = process.stderr.read()
        assert process.wait(300) == 0, rest
    return rest


def file(home: Path) -> Path:
    """The one that the login has left."""
    (path,) = (home / "tesk" / "logins").glob("*.json")
    return path


def change(home: Path, **changes: Any) -> dict[str, Any]:
    """Changes the login, and gives it."""
    document: dict[str, Any] = json.loads(file(home).read_text()) | changes
    file(home).write_text(json.dumps(document))
    return document
