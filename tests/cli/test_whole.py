"""The command line over a whole life: a client that outlives its server, and the demonstration."""

import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import TESK, load_image, serving
from tests.servers.containers import IMAGE
from tests.servers.process import free_port

ROOT = Path(__file__).parents[2]


def test_a_run_outlives_the_server_that_it_waits_for(tmp_path: Path) -> None:
    port = free_port()
    command = ["sh", "-c", "echo begun; sleep 4; echo done"]
    with serving(tmp_path, port) as (first, server):
        load_image(tmp_path)
        run = subprocess.Popen(
            [*TESK, "run", "--server", server.url, "--image", IMAGE, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr
        while "RUNNING" not in (line := run.stderr.readline()):
            assert line, "the task ended before it ran"
        first.kill()
        first.wait(30)
    with run, serving(tmp_path, port):
        written, said = run.communicate(timeout=300)
        assert (run.returncode, written) == (0, "begun\ndone\n"), said


def test_the_demonstration_shows_a_task_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert "COMPLETE" in done.stderr
    assert "license" in done.stdout
    url = done.stdout.splitlines()[-1].removeprefix("server: ")
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url, timeout=5)
    assert list(tmp_path.glob("tesk-*")) == []
    assert "ensure:" not in done.stderr  # what it needs was there already
