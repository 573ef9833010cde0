"""Admission, pulls and what the container engine does wrong: a task's life where it is the local engine's own."""

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

from tesk.settings import Settings
from tests.engines.places import LOCAL, Place, containers_and_folders
from tests.engines.running import Tesk, cancelled, content, sh, started
from tests.servers.containers import IMAGE, NOBODY_IMAGE
from tests.servers.registry import registry
from tests.servers.silent import Silent

pytestmark = pytest.mark.places(*LOCAL)


async def test_a_task_that_can_never_fit_fails_at_once_and_says_why(tesk: Tesk) -> None:
    for resources, words in (({"cpu_cores": 5000}, "5000 cores"), ({"ram_gb": 500_000}, "500000 GiB")):
        task = await tesk.run(executors=[sh("true")], resources=resources)
        assert task["state"] == "SYSTEM_ERROR"
        assert words in task["logs"][0]["system_logs"][0]


async def test_tasks_wait_their_turn_and_a_large_one_is_not_passed_by(settings: Settings, engine_socket: Path) -> None:
    async with started(msgspec.structs.replace(settings, cpu_cores=2.0)) as tesk:
        first = await tesk.create(executors=[sh("sleep 1")], resources={"cpu_cores": 1})
        large = await tesk.create(executors=[sh("true")], resources={"cpu_cores": 2})
        small = await tesk.create(executors=[sh("true")], resources={"cpu_cores": 1})
        await tesk.until(first, lambda task: task["state"] == "RUNNING")
        assert [(await tesk.task(task_id))["state"] for task_id in (large, small)] == ["QUEUED", "QUEUED"]
        ends = [(await tesk.ended(task_id))["logs"][0] for task_id in (first, large, small)]
        assert ends[0]["end_time"] <= ends[1]["start_time"] <= ends[1]["end_time"] <= ends[2]["start_time"]
        assert await containers_and_folders(engine_socket, tesk.data) == []


async def test_an_absent_image_is_pulled_and_a_present_one_is_not(tesk: Tesk, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", "lab/tool") as image:
        task = await tesk.run(executors=[{"image": image, "command": ["echo", "pulled"]}])
        assert task["state"] == "COMPLETE", task["logs"]
        said = task["logs"][0]["system_logs"]
        assert said[0] == f"image {image}: pulling"
        assert said[-1].startswith(f"image {image}: pulled in ")
    task = await tesk.run(executors=[{"image": image, "command": ["echo", "again"]}])
    assert task["logs"][0]["logs"][0]["stdout"] == "again\n"
    assert "system_logs" not in task["logs"][0]


async def test_an_image_that_cannot_be_had_is_named_before_anything_runs(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("echo ran"), {"image": "localhost:1/no/such:1", "command": ["true"]}])
    assert task["state"] == "SYSTEM_ERROR"
    assert task["logs"][0]["logs"] == []
    said = "\n".join(task["logs"][0]["system_logs"])
    assert "image localhost:1/no/such:1: pulling" in said
    assert "error: image localhost:1/no/such:1" in said


async def test_a_container_that_cannot_start_is_a_system_error(settings: Settings, engine_socket: Path) -> None:
    async with started(msgspec.structs.replace(settings, network="container:no-such-one")) as tesk:
        task = await tesk.run(executors=[sh("true")])
        assert task["state"] == "SYSTEM_ERROR"
        assert "executor 0" in task["logs"][0]["system_logs"][-1]
        assert await containers_and_folders(engine_socket, tesk.data) == []


async def test_a_filer_that_is_killed_is_run_again(tesk: Tesk, place: Place, silent_server: Silent) -> None:
    slow = await tesk.create(
        executors=[sh("true")], inputs=[{"path": "/in/a", "url": f"http://{silent_server.address}/a"}]
    )
    await tesk.until(slow, lambda task: task["state"] == "INITIALIZING")
    await _filers_are_there()
    for process in _zygotes():
        process.kill()
    task = await tesk.run(executors=[sh("cat /in/b")], inputs=[content("/in/b", "fine\n")])
    assert task["logs"][0]["logs"][0]["stdout"] == "fine\n"
    assert (await tesk.task(slow))["state"] == "INITIALIZING"
    await cancelled(tesk, place, slow)


async def _filers_are_there() -> None:
    """Returns when the zygote has forked the filer that hangs on the silent server."""
    async with asyncio.timeout(30):
        while len(_zygotes()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _zygotes() -> list[psutil.Process]:
    """The zygote and what it has forked; not what has just ended, whose command line cannot be read."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "tesk.engines.local.zygote" in process.cmdline():
                found.append(process)
    return found


async def test_a_container_removed_by_hand_is_no_success(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[{"image": IMAGE, "command": ["sleep", "60"]}])
    await tesk.until(task_id, lambda task: task["state"] == "RUNNING")
    await tesk.engine._machine.containers.remove(f"tesk-{task_id}-0")  # type: ignore[attr-defined]
    task = await tesk.ended(task_id)
    assert task["state"] in ("SYSTEM_ERROR", "EXECUTOR_ERROR")


async def test_a_task_that_had_begun_is_not_begun_again_where_nothing_of_it_is_left(tesk: Tesk, tmp_path: Path) -> None:
    """As when the server is started with another data folder, or on another machine."""
    task_id = await tesk.create(executors=[sh("echo ran >> /work/ran; sleep 60")], volumes=["/work"])
    folder = tesk.data / "tasks" / task_id
    async with asyncio.timeout(60):
        while not (folder / "scratch/work/ran").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await tesk.until(task_id, lambda task: task["state"] == "RUNNING")
    await tesk.dispatcher.stop()
    folder.rename(tmp_path / "elsewhere")
    await tesk.restart()
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR"
    assert "nothing of it is left on this machine" in task["logs"][0]["system_logs"][-1]
    assert task["logs"][0]["end_time"]
    assert (tmp_path / "elsewhere/scratch/work/ran").read_text() == "ran\n"


async def test_a_server_without_power_over_others_files_pushes_and_scrubs_them(
    settings: Settings, engine_socket: Path, tmp_path: Path
) -> None:
    """A server that is not root: it may use the engine, but what containers write belongs to their users."""
    script = "umask 077; mkdir /out/d /out/d/e; echo x > /out/d/e/f"
    document = {
        "executors": [{"image": NOBODY_IMAGE, "command": ["sh", "-c", script]}],
        "outputs": [{"path": "/out/d", "url": f"{settings.file_roots[0]}/d", "type": "DIRECTORY"}],
    }  # fmt: skip
    program = tmp_path / "unprivileged.py"
    program.write_text(UNPRIVILEGED)
    given = msgspec.json.encode({"settings": settings, "document": document, "socket": str(engine_socket)}).decode()
    drop = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown",
        sys.executable,
        str(program),
        given,
    ]
    process = await asyncio.create_subprocess_exec(*drop, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])
    async with asyncio.timeout(100):
        out, _ = await process.communicate()
    assert out.decode().splitlines()[-1:] == ["COMPLETE []"]
    assert (Path(settings.file_roots[0]) / "d/e/f").read_text() == "x\n"


UNPRIVILEGED = """\
import asyncio, sys
sys.path.insert(0, ".")
from pathlib import Path
import msgspec
from tesk.engines.local.folder import is_master_of_files
from tesk.settings import Settings
from tests.engines.places import containers_and_folders
from tests.engines.running import started

async def main():
    assert not is_master_of_files()
    given = msgspec.json.decode(sys.argv[1])
    async with started(msgspec.convert(given["settings"], Settings)) as tesk:
        task = await tesk.run(**given["document"])
        print(task["state"], await containers_and_folders(Path(given["socket"]), tesk.data), flush=True)

asyncio.run(main())
"""
