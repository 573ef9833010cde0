"""Snakemake and Toil, from PyPI, run a workflow of one step on a server that asks to sign in, with an API token.

The engine of the server runs nothing (tests/api/conftest.py). The test does what the task would, in the same folder.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tesk.identity import SERVER
from tesk.store.base import Query, Row
from tesk.tes import ExecutorLog, State, TaskLog
from tests.api.conftest import Running, running
from tests.people.test_tokens import ALICE, make, write_users
from tests.servers.environments import environment

LIMIT_S: Final = 600.0
TOIL: Final = ("toil-7.0.0", "toil==7.0.0", "toil-batch-system-tes==2.0.0", "setuptools<81")
SNAKEMAKE: Final = (
    "snakemake-9.27.1",
    "snakemake==9.27.1",
    "snakemake-executor-plugin-tes==0.1.3",
    "snakemake-storage-plugin-fs==1.1.3",
    "six",
)
PATH: Final = os.environ["PATH"]

SNAKEFILE = """\
rule all:
    input: "out.txt"
rule hello:
    output: "out.txt"
    shell: "echo hello >{output}"
"""
RSYNC = """\
#!/bin/sh
while [ $# -gt 2 ]; do shift; done
exec cp -r "$1" "$2"
"""
"""Snakemake's plugin for a shared folder copies by rsync, which the machine of the tests may lack."""
TOIL_WORKFLOW = """\
import os
from toil.common import Toil
from toil.job import Job

def hello(job, path):
    with open(path, "w") as file:
        file.write("hello")

if __name__ == "__main__":
    with Toil(Job.Runner.getDefaultArgumentParser().parse_args()) as toil:
        toil.start(Job.wrapJobFn(hello, os.environ["OUT"], memory="100M", disk="1M", cores=1))
"""


def run_engine(
    server: Running, command: list[str], folder: Path, variables: dict[str, str], does: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Runs a workflow engine; `does` does what a task would. The documents of all tasks, once the engine ended well."""
    made: dict[str, dict[str, Any]] = {}
    limit = time.monotonic() + LIMIT_S
    with (folder / "log").open("w") as log:
        engine = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        while engine.poll() is None:
            assert time.monotonic() < limit, (folder / "log").read_text()
            for task in server.do(server.store.page(Query(9, view="FULL"), SERVER)):
                if task.id not in made and isinstance(task, Row):
                    made[task.id] = json.loads(task.document)
                    does(made[task.id])
                    server.do(server.store.advance(task.id, State.COMPLETE, TaskLog(logs=[ExecutorLog(0)])))
            time.sleep(0.2)
    finally:
        engine.kill()
        engine.wait(300)
    assert engine.returncode == 0, (folder / "log").read_text()
    return [*made.values()]


@pytest.mark.parametrize("how", ["token", "password"])
def test_toil_runs_a_workflow(tmp_path: Path, how: str) -> None:
    programs = environment(*TOIL)
    (tmp_path / "workflow.py").write_text(TOIL_WORKFLOW)
    ask = [str(programs / "python"), "-c", "from toil.version import currentCommit; print(currentCommit)"]
    commit = subprocess.run(ask, check=True, capture_output=True, text=True, timeout=300).stdout.strip()
    variables = {
        "PATH": f"{programs}:{PATH}",
        "HOME": str(tmp_path),
        "TOIL_APPLIANCE_SELF": f"toil:{commit}",  # Toil asks no registry for an image of its own commit
        "OUT": str(tmp_path / "out"),
    }

    def work(task: dict[str, Any]) -> None:
        executor = task["executors"][0]
        inside = {**variables, **executor["env"]}
        subprocess.run(executor["command"], check=True, env=inside, cwd=tmp_path, capture_output=True, timeout=600)

    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE)), file_roots=(str(tmp_path),)) as server:
        token = make(server)["token"]
        signs_in = {"TOIL_TES_BEARER_TOKEN": token}
        if how == "password":
            signs_in = {"TOIL_TES_USER": "alice", "TOIL_TES_PASSWORD": token}
        options = ["--batchSystem=tes", "--caching=false", "--retryCount=0", f"--workDir={tmp_path}"]
        command = [str(programs / "python"), "workflow.py", f"{tmp_path}/jobs", f"--tesEndpoint={server.url}", *options]
        (task,) = run_engine(server, command, tmp_path, {**variables, **signs_in}, work)
    assert (tmp_path / "out").read_text() == "hello"
    assert token not in json.dumps(task)


def test_snakemake_runs_a_workflow(tmp_path: Path) -> None:
    programs = environment(*SNAKEMAKE)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "rsync").write_text(RSYNC)
    (tmp_path / "rsync").chmod(0o755)
    stored = tmp_path / "stored"

    def work(_: dict[str, Any]) -> None:
        (stored / "out.txt").write_text("hello\n")

    with running(tmp_path, users_file=str(write_users(tmp_path, ALICE))) as server:
        token = make(server)["token"]
        variables = {"PATH": f"{tmp_path}:{programs}:{PATH}", "HOME": str(tmp_path), "SNAKEMAKE_TES_TOKEN": token}
        options = ["--jobs=1", "--default-storage-provider=fs", f"--default-storage-prefix={stored}"]
        options += ["--seconds-between-status-checks=1", "--container-image=alpine"]
        command = [str(programs / "snakemake"), "--executor=tes", f"--tes-url={server.url}", *options]
        (task,) = run_engine(server, command, tmp_path, variables, work)
    assert task["executors"][0]["command"] == ["/bin/bash", "/tmp/run_snakemake.sh"]
    assert token not in json.dumps(task)
