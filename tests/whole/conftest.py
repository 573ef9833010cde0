"""A real `tesk serve` with Podman behind it, as a client meets it that signs in with an API token."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests import known_secrets
from tests.servers import containers
from tests.servers.s3 import S3, s3_server

START_S = 300.0


class Server(NamedTuple):
    """Its URL, a token for it, the folder that file: URLs may use, and the S3 server whose credentials it has."""

    url: str
    token: str
    shared: Path
    s3: S3
    s3_root: Path

    def run(self, task: dict[str, Any], seconds: float = 900.0) -> dict[str, Any]:
        """Posts a task and waits for its end; the FULL view."""
        with httpx.Client(base_url=self.url, timeout=180, headers={"X-API-Key": self.token}) as client:
            answer = client.post("/ga4gh/tes/v1/tasks", json=task)
            assert answer.status_code == 200, answer.text
            limit = time.monotonic() + seconds
            while True:
                view: dict[str, Any] = client.get(f"/ga4gh/tes/v1/tasks/{answer.json()['id']}?view=FULL").json()
                if view["state"] not in ("QUEUED", "INITIALIZING", "RUNNING"):
                    known_secrets.look_at_task(view, task)
                    return view
                assert time.monotonic() < limit, view
                time.sleep(0.05)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("whole")
    shared = folder / "shared"
    shared.mkdir()
    log_path = folder / "log"
    with s3_server(folder / "s3") as s3, known_secrets.log_file("the log of a server", log_path):
        arguments = ["--port=0", f"--data={folder}/data", f"--file-root={shared}", "--engine-socket=podman"]
        arguments += ["--tokens=alone"]
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tesk", "serve", *arguments],
                stdout=subprocess.PIPE, stderr=log, text=True,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **s3.environment()},
            )  # fmt: skip
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("server: "), log_path.read_text()
            url = line.removeprefix("server: ").strip()
            _until_ready(url, log_path)
            _load_image(folder / "data" / "run" / "podman.sock")
            yield Server(url, _new_token(folder / "data"), shared, s3, folder / "s3")
        finally:
            process.terminate()
            process.wait(300)


def _new_token(data: Path) -> str:
    command = [sys.executable, "-m", "tesk", "token", "create", "--user=alice", "--name=whole"]
    environment = {"PATH": os.environ["PATH"], "TESK_STORE_DATA": str(data)}
    made = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return known_secrets.known("a token of alice", made)


def _until_ready(url: str, log: Path) -> None:
    limit = time.monotonic() + START_S
    while httpx.get(f"{url}/readyz", timeout=300).status_code != 200:
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)


def _load_image(socket: Path) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=300) as engine:
        archive = containers.image_archive(containers.IMAGE)
        engine.post("http://engine/images/load", content=archive).raise_for_status()
