"""Tasks in the shape that workflow engines give them: their paths, stdio and outputs, run for real."""

from pathlib import Path
from typing import Any

import pytest

from tests.engines.running import Tesk, content, sh
from tests.servers.containers import IMAGE, NOBODY_IMAGE


def output(path: str, shared: Path, **more: str) -> dict[str, Any]:
    return {"path": path, "url": f"{shared}{path}", **more}


@pytest.mark.oldest
async def test_nextflow(tesk: Tesk, shared: Path) -> None:
    """Scripts in /work, untyped outputs wanted after a failure too, a bin folder at its old path, links, spaces."""
    command_run = (
        "cd /work; mv 'sample 1.txt' moved; mkdir results; echo r > results/r; ln -s /work/results/r link.txt\n"
    )
    command_run += "mkdir -p d/e; echo 1 > one.txt; echo 2 > d/e/two.txt; touch q.html q.zip x.bai x.csi 'l[1].dat'\n"
    command_run += "echo hi > a.bam; echo hi > b.bam; tool.sh; echo 3 > .exitcode; exit 3\n"
    (shared / "sample 1.txt").write_text("sample\n")
    task = await tesk.run(
        inputs=[
            content("/work/.command.run", command_run),
            content("/home/alice/pipeline/bin/tool.sh", "#!/bin/sh\necho tool ran\n"),
            {"path": "/work/sample 1.txt", "url": f"{shared}/sample 1.txt", "type": "FILE"},
        ],
        outputs=[
            *(
                output(f"/work/{name}", shared)
                for name in (".command.log", ".exitcode", ".command.out", "results", "link.txt")
            ),
            *(
                {"path": f"/work/{pattern}", "path_prefix": "/work", "url": f"{shared}/work"}
                for pattern in ("*.bam", "*.{html,zip}", "**.txt")
            ),
            *(output(f"/work/{name}", shared) for name in ("x.{bai,csi}", "l[1].dat")),
        ],
        executors=[
            {
                "image": IMAGE,
                "command": ["sh", "-o", "pipefail", "-c", "sh /work/.command.run 2>&1 | tee /work/.command.log"],
                "workdir": "/work",
                "env": {"PATH": "/home/alice/pipeline/bin:/bin"},
            }
        ],
    )
    assert (task["state"], task["logs"][0]["logs"][0]["exit_code"]) == ("EXECUTOR_ERROR", 3)
    assert (shared / "work/.command.log").read_text() == "tool ran\n"
    assert (shared / "work/.exitcode").read_text() == "3\n"
    assert (shared / "work/results/r").read_text() == (shared / "work/link.txt").read_text() == "r\n"
    assert sorted(path.name for path in (shared / "work").glob("?.*")) == [
        *("a.bam", "b.bam", "q.html", "q.zip", "x.bai", "x.csi"),
    ]
    assert (shared / "work/one.txt").read_text() + (shared / "work/d/e/two.txt").read_text() == "1\n2\n"
    assert (shared / "work/l[1].dat").exists()
    assert (shared / "sample 1.txt").read_text() == "sample\n"
    assert ".command.out" in "\n".join(task["logs"][0]["system_logs"])


async def test_snakemake(tesk: Tesk) -> None:
    """One script in a fresh, writable /tmp, which is the working directory."""
    task = await tesk.run(
        inputs=[content("/tmp/run_snakemake.sh", "ls -a /tmp; pwd; echo x > y; cat y\n")],
        executors=[{"image": NOBODY_IMAGE, "command": ["sh", "/tmp/run_snakemake.sh"], "workdir": "/tmp"}],
    )
    assert task["logs"][0]["logs"][0]["stdout"] == ".\n..\nrun_snakemake.sh\n/tmp\nx\n"


@pytest.mark.oldest
async def test_cwl_tes(tesk: Tesk, shared: Path) -> None:
    """A random top-level working directory, stdout in it, and the whole of it pushed beside the single file."""
    (shared / "in").write_text("b\na\n")
    task = await tesk.run(
        inputs=[{"path": "/var/lib/cwl/stg1/in", "url": f"file://{shared}/in", "type": "FILE"}],
        outputs=[
            {"path": "/JxGRyz/out.txt", "url": f"file://{shared}/out.txt", "type": "FILE"},
            {"path": "/JxGRyz", "url": f"file://{shared}/all/", "type": "DIRECTORY"},
        ],
        executors=[sh("sort /var/lib/cwl/stg1/in; touch more", workdir="/JxGRyz", stdout="/JxGRyz/out.txt")],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    assert (shared / "out.txt").read_text() == (shared / "all/out.txt").read_text() == "a\nb\n"
    assert (shared / "all/more").exists()


async def test_cromwell(tesk: Tesk, shared: Path) -> None:
    """All below one folder: a script that is input and output, streams that it writes as well, fifos, links, globs."""
    root = "/cromwell-executions/wf/1/call-x/execution"
    script = f"""cd {root}
        mkfifo out.fifo; tee {root}/stdout < out.fifo & echo hello > out.fifo; wait; rm out.fifo
        mkdir glob-1; echo g > g; ln g glob-1/g; echo 0 > rc.tmp; mv rc.tmp rc"""
    task = await tesk.run(
        inputs=[content(f"{root}/script", script)],
        outputs=[
            *(output(f"{root}/{name}", shared, type="FILE") for name in ("script", "stdout", "stderr", "rc")),
            output(f"{root}/glob-1/", shared, type="DIRECTORY"),
        ],
        executors=[
            {
                "image": IMAGE,
                "command": ["sh", f"{root}/script"],
                "stdout": f"{root}/stdout",
                "stderr": f"{root}/stderr",
            }
        ],
    )
    assert task["state"] == "COMPLETE", task["logs"]
    there = shared / root.lstrip("/")
    assert "hello" in (there / "stdout").read_text()
    assert ((there / "rc").read_text(), (there / "glob-1/g").read_text()) == ("0\n", "g\n")
    assert (there / "script").read_text() == script


@pytest.mark.oldest
async def test_galaxy_and_pulsar(tesk: Tesk) -> None:
    """Three executors of different images and users share one volume; arguments of 100 kB and more."""
    unpack = ["sh", "-c", 'mkdir /pulsar_staging/a; printf %s "$0" | wc -c > /pulsar_staging/a/size', "A" * 110_000]
    task = await tesk.run(
        volumes=["/pulsar_staging/"],
        executors=[
            {"image": IMAGE, "command": unpack},
            {"image": NOBODY_IMAGE, "command": ["sh", "-c", "cat /pulsar_staging/a/size; echo x > /pulsar_staging/b"]},
            {"image": IMAGE, "command": ["sh", "-c", "cat /pulsar_staging/b; rm -r /pulsar_staging/*"]},
        ],
    )
    assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["", "110000\n", "x\n"]
