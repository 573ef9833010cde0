"""A workflow engine runs a workflow of two steps on the server: cwl-tes 0.3.0, from PyPI, with the CWL of its day.

It has no option for an API token, since it reads what it takes by --token as a JWT: the token is in a netrc file.
"""

import os
import subprocess
from urllib.parse import urlsplit

from tests.servers.containers import IMAGE
from tests.servers.environments import environment
from tests.whole.conftest import Server

PACKAGES = ("cwl-tes-0.3.0", "cwl-tes==0.3.0", "setuptools<81", "bagit==1.8.1")
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


def test_cwl_tes_runs_a_workflow(server: Server) -> None:
    cwl_tes = environment(*PACKAGES, build_constraints=BUILD_CONSTRAINTS) / "cwl-tes"
    folder = server.shared / "cwl"
    (folder / "tmp").mkdir(parents=True)
    (folder / "workflow.cwl").write_text(WORKFLOW)
    (folder / "sort.cwl").write_text(TOOL.format(image=IMAGE, command="[sort, -r]", name="sorted"))
    (folder / "head.cwl").write_text(TOOL.format(image=IMAGE, command="[head, -n, '2']", name="first"))
    (folder / "input.txt").write_text("a\nc\nb\n")
    (folder / "netrc").write_text(f"machine {urlsplit(server.url).hostname} login token password {server.token}\n")
    places = ["--outdir", f"{folder}/out", "--tmpdir-prefix", f"{folder}/tmp/", "--tmp-outdir-prefix", f"{folder}/tmp/"]
    done = subprocess.run(
        [cwl_tes, "--tes", server.url, *places, "workflow.cwl", "--text", "input.txt"],
        cwd=folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "TMPDIR": f"{folder}/tmp", "NETRC": f"{folder}/netrc"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "out/first.txt").read_text() == "c\nb\n"
