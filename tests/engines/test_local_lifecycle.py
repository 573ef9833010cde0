"""Admission, pulls and what the container engine does wrong: a task's life where it is the local engine's own."""

import asyncio
import contextlib
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

from tesk.life.transfer import Transfer
from tesk.places.local import filers
from tesk.settings import Settings
from tests.engines.held import WAIT, held, let_go
from tests.engines.places import LOCAL, Place, containers_and_folders
from tests.engines.running import Tesk, cancelled, content, sh, started
from tests.servers.containers import APP_IMAGE, IMAGE, NOBODY_IMAGE
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
        first = await held(tesk, resources={"cpu_cores": 1})
        large = await tesk.create(executors=[sh("true")], resources={"cpu_cores": 2})
        small = await tesk.create(executors=[sh("true")], resources={"cpu_cores": 1})
        assert [(await tesk.task(task_id))["state"] for task_id in (large, small)] == ["QUEUED", "QUEUED"]
        let_go(tesk, first)
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


async def test_the_policy_says_whether_an_image_is_pulled_that_is_here_or_is_not(
    settings: Settings, engine_socket: Path
) -> None:
    absent = "localhost:1/no/such:1"
    for policy, image, words in (
        ("Always", IMAGE, f"error: image {IMAGE}: "),
        ("Never", absent, f"error: image {absent}: not on this machine, and executor_image_pull_policy is Never"),
        ("Never", IMAGE, ""),
    ):
        chosen = msgspec.structs.replace(settings, executor_image_pull_policy=policy)
        async with started(chosen) as tesk:
            task = await tesk.run(executors=[{"image": image, "command": ["echo", "ran"]}])
            assert task["state"] == ("SYSTEM_ERROR" if words else "COMPLETE")
            assert words in "".join(task["logs"][0].get("system_logs") or [])
            assert await containers_and_folders(engine_socket, tesk.data) == []


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
        with contextlib.suppress(psutil.NoSuchProcess):  # a filer ends with its zygote
            process.kill()
    task = await tesk.run(executors=[sh("cat /in/b")], inputs=[content("/in/b", "fine\n")])
    assert task["logs"][0]["logs"][0]["stdout"] == "fine\n"
    assert (await tesk.task(slow))["state"] == "INITIALIZING"
    await cancelled(tesk, place, slow)


async def _filers_are_there() -> None:
    """Returns when the zygote has forked the filer that hangs on the silent server."""
    async with asyncio.timeout(120):
        while len(_zygotes()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _zygotes() -> list[psutil.Process]:
    """The zygote and what it has forked; not what has just ended, whose command line cannot be read."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "tesk.places.local.zygote" in process.cmdline():
                found.append(process)
    return found


async def test_a_container_removed_by_hand_is_no_success(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[{"image": IMAGE, "command": ["sleep", "1000"]}])
    await tesk.until(task_id, lambda task: task["state"] == "RUNNING")
    await tesk.engine._machine.containers.remove(f"tesk-{task_id}-0")  # type: ignore[attr-defined]
    task = await tesk.ended(task_id)
    assert task["state"] in ("SYSTEM_ERROR", "EXECUTOR_ERROR")


async def test_a_task_that_had_begun_is_not_begun_again_where_nothing_of_it_is_left(tesk: Tesk, tmp_path: Path) -> None:
    """As when the server is started with another data folder, or on another machine."""
    task_id = await held(tesk)
    folder = tesk.data / "tasks" / task_id
    await tesk.dispatcher.stop()
    folder.rename(tmp_path / "elsewhere")
    await tesk.restart()
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR"
    assert "nothing of it is left on this machine" in task["logs"][0]["system_logs"][-1]
    assert task["logs"][0]["end_time"]
    assert (tmp_path / "elsewhere/scratch/work/ran").read_text() == "ran\n"


async def test_a_task_goes_on_from_what_a_power_cut_has_left_of_its_facts(tesk: Tesk) -> None:
    """Its program is found again, its inputs are not fetched over its files; which facts were lost is said."""
    script = "cat /in/a; echo changed > /in/a; while [ -e /in/wait ]; do sleep 0.1; done; cat /in/a"
    task_id = await tesk.create(executors=[sh(script)], inputs=[content("/in/a"), content("/in/wait")])
    folder = tesk.data / "tasks" / task_id
    await tesk.has_written(task_id, "x")
    await tesk.dispatcher.stop()
    spoilt = ["began", "image", "inputs", "started-0"]
    for name in spoilt:
        (folder / "facts" / name).write_bytes(b"")
    await tesk.restart()
    await tesk.has_written(task_id, "x")
    (folder / "scratch/in/wait").unlink()
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE"
    assert task["logs"][0]["logs"][0]["stdout"] == "xchanged\n"
    words = "cannot be read, as after a power cut; it counts as absent"
    assert task["logs"][0]["system_logs"] == [f"warning: the fact {name!r} {words}" for name in spoilt]


async def test_inputs_of_an_earlier_boot_are_fetched_again(tesk: Tesk, place: Place, silent_registry: Silent) -> None:
    """What no fsync has followed may be cut short. For want of a power cut the fact is given another boot."""
    image = {"image": f"{silent_registry.address}/image:1", "command": ["true"]}
    task_id = await tesk.create(executors=[image], inputs=[content("/mnt/in/a")])
    folder = tesk.data / "tasks" / task_id
    async with asyncio.timeout(180):
        while not (folder / "facts/inputs").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await tesk.dispatcher.stop()
    (folder / "scratch/mnt/in/a").write_text("")
    (folder / "facts/inputs").write_text('{"done": "", "boot": "another"}')
    await tesk.restart()

    def is_fetched() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return (folder / "scratch/mnt/in/a").read_text() == "x"
        return False

    async with asyncio.timeout(180):
        while not is_fetched():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await cancelled(tesk, place, task_id)


async def test_after_a_restart_files_lie_where_they_were_put_before(tesk: Tesk) -> None:
    script = f"sed -i s/one/two/ /app/in; echo begun; {WAIT}"
    task_id = await tesk.create(
        executors=[
            {"image": APP_IMAGE, "command": ["sh", "-c", script]},
            {"image": APP_IMAGE, "command": ["sh", "-c", "/app/program; cat /app/in"]},
        ],
        inputs=[content("/app/in", "one\n")],
        volumes=["/work"],
    )
    await tesk.has_written(task_id, "begun\n")
    await tesk.restart()
    let_go(tesk, task_id)
    task = await tesk.ended(task_id)
    assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["begun\n", "/app/program ran\ntwo\n"]


async def test_a_program_of_an_earlier_boot_is_a_loss_and_no_end(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[sh("echo begun; sleep 60")])
    await tesk.has_written(task_id, "begun\n")
    await tesk.dispatcher.stop()
    (tesk.data / "tasks" / task_id / "facts/started-0").write_text('{"at": "", "boot": "another"}')
    await tesk.restart()
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR"
    assert task["logs"][0]["system_logs"][-1].startswith("error: this machine was started anew while the task ran")


async def test_a_time_limit_holds_over_a_restart(settings: Settings, engine_socket: Path) -> None:
    """Its time goes on while no server is there: that was an hour, by the fact that tells of its start."""
    limited = msgspec.structs.replace(settings, executor_timeout_s=1800.0, grace_s=15.0)
    async with started(limited) as tesk:
        task_id = await tesk.create(executors=[sh("trap 'echo told' TERM; echo begun; while :; do sleep 0.1; done")])
        await tesk.has_written(task_id, "begun\n")
        await tesk.dispatcher.stop()
        fact = tesk.data / "tasks" / task_id / "facts/started-0"
        earlier = datetime.now(UTC) - timedelta(hours=1)
        fact.write_bytes(msgspec.json.encode(msgspec.json.decode(fact.read_bytes()) | {"at": earlier.isoformat()}))
        await tesk.restart()
        task = await tesk.ended(task_id)
        assert (task["state"], task["logs"][0]["logs"][0]["exit_code"]) == ("EXECUTOR_ERROR", 137)
        assert task["logs"][0]["logs"][0]["stdout"] == "begun\ntold\n"
        assert [line for line in task["logs"][0]["system_logs"] if "ended after its time limit of 1800 s" in line]
        assert await containers_and_folders(engine_socket, tesk.data) == []


async def test_of_too_many_outputs_the_first_are_listed_and_the_report_is_read_beside_the_event_loop(
    tesk: Tesk, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some 40,000 are: the bound is lowered here."""
    readers: list[threading.Thread] = []

    def read(report: Path) -> Transfer:
        readers.append(threading.current_thread())
        return filers.read_report(report)

    monkeypatch.setattr(filers, "OUTPUTS_BYTES", 3000)
    monkeypatch.setattr("tesk.places.local.run.read_report", read)
    out = {"path": "/out", "url": f"file://{shared}/out", "type": "DIRECTORY"}
    task = await tesk.run(executors=[sh("cd /out; seq 200 | xargs touch")], volumes=["/out"], outputs=[out])
    assert task["state"] == "COMPLETE", task["logs"]
    shown = len(task["logs"][0]["outputs"])
    assert 5 < shown < 100
    words = f"200 outputs were pushed; the list of them is too long to be kept, {shown} are shown"
    assert task["logs"][0]["system_logs"] == [f"warning: {words}"]
    assert len(list((shared / "out").iterdir())) == 200
    assert readers
    assert threading.main_thread() not in readers


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
    async with asyncio.timeout(600):
        out, _ = await process.communicate()
    assert out.decode().splitlines()[-1:] == ["COMPLETE []"]
    assert (Path(settings.file_roots[0]) / "d/e/f").read_text() == "x\n"


UNPRIVILEGED = """\
import asyncio, sys
sys.path.insert(0, ".")
from pathlib import Path
import msgspec
from tesk.places.local.folder import is_master_of_files
from tesk.places.local import filers
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
