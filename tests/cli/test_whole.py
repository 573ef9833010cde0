"""The command line over a whole life: a client that outlives its server, and the demonstration."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import load_image, serving
from tests.servers.cluster import until
from tests.servers.containers import IMAGE
from tests.servers.process import free_port

ROOT = Path(__file__).parents[2]


PATIENT = """
import sys
from tesk.__main__ import main
from tesk.cli import client
client.RETRIES_S = (1.0,) * 600
sys.exit(main())
"""
"""`tesk` on a busy machine, on which a server takes long to start."""


def test_a_run_outlives_the_server_that_it_waits_for(tmp_path: Path) -> None:
    port = free_port()
    command = ["sh", "-c", "echo begun; touch /work/begun; until [ -e /work/go ]; do sleep 0.1; done; echo done"]
    with serving(tmp_path, port) as (first, server):
        load_image(tmp_path)
        run = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PATIENT,
                "run",
                "--server",
                server.url,
                "--cpu=0.5",
                "--image",
                IMAGE,
                "--volume=/work",
                *command,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr
        while "RUNNING" not in (line := run.stderr.readline()):
            assert line, "the task ended before it ran"
        begun = until(lambda: holding(tmp_path, "begun"), what="the command's begin")
        first.kill()
        first.wait(300)
    with run, serving(tmp_path, port) as (_, again):
        (begun / "go").touch()
        written, said = run.communicate(timeout=300)
        assert (run.returncode, written) == (0, "begun\ndone\n"), said
        used_what_its_log_says(again.url)


def holding(root: Path, name: str) -> Path | None:
    """The folder below that has a file of this name, found while others come and go."""
    return next((Path(folder) for folder, _, files in os.walk(root) if name in files), None)


def used_what_its_log_says(url: str) -> None:
    """The only task of the server, which asked for half a core, and outlived the kill of one."""
    [task] = httpx.get(f"{url}/v1/tasks", params={"view": "BASIC"}).json()["tasks"]
    times = [task["logs"][0][name] for name in ("start_time", "end_time")]
    start, end = map(datetime.fromisoformat, times)
    months = {time[:7] for time in times}
    answers = [httpx.get(f"{url}/api/v1/usage", params={"month": month}).json() for month in months]
    used = [line for answer in answers for line in answer["usage"]]
    assert sum(line["tasks"] for line in used) == 1
    milliseconds = (end - start) / timedelta(milliseconds=1)
    assert sum(line["core_seconds"] for line in used) == pytest.approx(0.5 * milliseconds / 1000, abs=0.001)


def test_the_demonstration_shows_a_task_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert "COMPLETE" in done.stderr
    assert "license" in done.stdout
    url = done.stdout.splitlines()[-1].removeprefix("server: ")
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url, timeout=300)
    assert list(tmp_path.glob("tesk-*")) == []
    assert "ensure:" not in done.stderr  # what it needs was there already
