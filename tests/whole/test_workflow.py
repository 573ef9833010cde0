"""A workflow engine runs a workflow of two steps on the server: cwl-tes 0.3.0, from PyPI, with the CWL of its day."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.containers import IMAGE
from tests.whole.conftest import Server

PACKAGES = ["cwl-tes==0.3.0", "setuptools<81", "bagit==1.8.1"]
BUILD_CONSTRAINTS = "setuptools<58\n"

WORKFLOW = """\
cwlVersion: v1.0
class: Workflow
inputs: {text: File}
outputs: {first: {type: File, outputSource: head/first}}
steps:
  sort: {run: sort.cwl, in: {text: text}, out: [sorted]}
  head: {run: head.cwl, in: {text: sort/sorted}, out: [first]}
"""
TOOL = """\
cwlVersion: v1.0
class: CommandLineTool
hints: {{DockerRequirement: {{dockerPull: "{image}"}}}}
baseCommand: {command}
inputs: {{text: {{type: File, inputBinding: {{position: 1}}}}}}
stdout: {name}.txt
outputs: {{{name}: {{type: stdout}}}}
"""


@pytest.fixture(scope="session")
def cwl_tes() -> str:
    """The program, in an environment of its own that is kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tesk"
    kept = cache / "cwl-tes-0.3.0"
    if not (kept / "ready").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        (kept / "constraints").write_text(BUILD_CONSTRAINTS)
        uv = [str(Path(__file__).parents[2] / "scripts" / "uv")]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, kept / "venv"], check=True, timeout=300)
        install = [*uv, "pip", "install", "-q", f"--python={kept}/venv", f"--build-constraint={kept}/constraints"]
        subprocess.run([*install, *PACKAGES], check=True, timeout=600)
        (kept / "ready").touch()
    return str(kept / "venv/bin/cwl-tes")


def test_cwl_tes_runs_a_workflow(server: Server, cwl_tes: str) -> None:
    folder = server.shared / "cwl"
    (folder / "tmp").mkdir(parents=True)
    (folder / "workflow.cwl").write_text(WORKFLOW)
    (folder / "sort.cwl").write_text(TOOL.format(image=IMAGE, command="[sort, -r]", name="sorted"))
    (folder / "head.cwl").write_text(TOOL.format(image=IMAGE, command="[head, -n, '2']", name="first"))
    (folder / "input.txt").write_text("a\nc\nb\n")
    places = ["--outdir", f"{folder}/out", "--tmpdir-prefix", f"{folder}/tmp/", "--tmp-outdir-prefix", f"{folder}/tmp/"]
    done = subprocess.run(
        [cwl_tes, "--tes", server.url, *places, "workflow.cwl", "--text", "input.txt"],
        cwd=folder, capture_output=True, text=True, timeout=600, env={**os.environ, "TMPDIR": f"{folder}/tmp"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "out/first.txt").read_text() == "c\nb\n"
