"""Queue, cancel and admission: what waits, what is refused, and that an end asked for comes, whatever the stage."""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

from tesk.settings import Settings
from tests.engines.places import LOCAL, containers_and_folders
from tests.engines.running import Tesk, content, sh, started
from tests.servers.containers import IMAGE, NOBODY_IMAGE
from tests.servers.registry import registry

pytestmark = pytest.mark.parametrize("place", LOCAL, indirect=True, scope="session")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    accepted.append(listener.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.close()
        thread.join(10)


async def cancel_and_see(tesk: Tesk, task_id: str) -> dict[str, Any]:
    """Cancels; the end must come within the promised time: two seconds, and the grace period of the settings."""
    state = await tesk.dispatcher.cancel(task_id)
    assert state is not None
    assert state.name in ("CANCELING", "CANCELED")
    task = await tesk.ended(task_id, seconds=30)
    assert task["state"] == "CANCELED"
    return task


async def test_cancelling_a_queued_task_keeps_it_from_running(tesk: Tesk) -> None:
    running = await tesk.create(executors=[sh("sleep 60")], resources={"cpu_cores": 2})
    queued = await tesk.create(executors=[sh("true")], resources={"cpu_cores": 2})
    await tesk.until(running, lambda task: task["state"] == "RUNNING")
    task = await cancel_and_see(tesk, queued)
    assert task["logs"] == []
    await cancel_and_see(tesk, running)


async def test_cancelling_while_inputs_are_fetched(tesk: Tesk, silent_server: str) -> None:
    task_id = await tesk.create(executors=[sh("true")], inputs=[{"path": "/in/a", "url": f"http://{silent_server}/a"}])
    await tesk.until(task_id, lambda task: task["state"] == "INITIALIZING")
    await asyncio.sleep(0.3)
    task = await cancel_and_see(tesk, task_id)
    assert task["logs"][0]["logs"] == []


async def test_cancelling_while_an_image_is_pulled(tesk: Tesk, silent_server: str) -> None:
    task_id = await tesk.create(executors=[{"image": f"{silent_server}/slow/image:1", "command": ["true"]}])
    await tesk.until(task_id, lambda task: task["state"] == "INITIALIZING")
    await asyncio.sleep(0.3)
    await cancel_and_see(tesk, task_id)


async def test_cancelling_a_running_program_lets_it_end_in_its_own_way(tesk: Tesk) -> None:
    script = "trap 'echo got TERM; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    task_id = await tesk.create(executors=[sh(script), sh("echo never")])
    await _has_written(tesk, task_id, "ready\n")
    task = await cancel_and_see(tesk, task_id)
    log = task["logs"][0]
    assert len(log["logs"]) == 1
    assert log["logs"][0]["stdout"] == "ready\ngot TERM\n"
    assert "canceled by the user" in log["system_logs"]


async def test_a_program_that_ignores_term_is_killed_after_the_grace_period(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[sh("trap '' TERM; echo ready; while :; do sleep 1; done")])
    await _has_written(tesk, task_id, "ready\n")
    await cancel_and_see(tesk, task_id)


async def test_cancelling_while_outputs_are_pushed(tesk: Tesk, silent_server: str) -> None:
    task_id = await tesk.create(
        executors=[sh("echo x > /out/a; echo done")], outputs=[{"path": "/out/a", "url": f"http://{silent_server}/a"}]
    )
    await tesk.until(task_id, lambda task: bool(task["logs"] and task["logs"][0]["logs"]))
    await asyncio.sleep(0.3)
    task = await cancel_and_see(tesk, task_id)
    assert task["logs"][0]["logs"][0]["stdout"] == "done\n"


async def test_cancelling_at_any_moment_ends_in_cancelled_or_the_true_end(tesk: Tesk) -> None:
    async def one(delay_s: float) -> str:
        task_id = await tesk.create(executors=[sh("sleep 0.1"), sh("true")], inputs=[content("/in/a")])
        await asyncio.sleep(delay_s)
        await tesk.dispatcher.cancel(task_id)
        return str((await tesk.ended(task_id))["state"])

    states = await asyncio.gather(*(one(n * 0.07) for n in range(20)))
    assert set(states) <= {"CANCELED", "COMPLETE"}
    assert "CANCELED" in states


async def test_cancelling_an_ended_task_changes_nothing(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("exit 2")])
    state = await tesk.dispatcher.cancel(task["id"])
    assert state is not None
    assert state.name == "EXECUTOR_ERROR"
    assert await tesk.task(task["id"]) == task
    assert await tesk.dispatcher.cancel("0000000000000") is None


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


async def test_many_tasks_at_once_all_end_right(tesk: Tesk) -> None:
    codes = [n % 4 for n in range(24)]
    ids = await asyncio.gather(*(tesk.create(executors=[sh(f"exit {code}")], name=str(code)) for code in codes))
    tasks = [await tesk.ended(task_id, seconds=120) for task_id in ids]
    assert [task["logs"][0]["logs"][0]["exit_code"] for task in tasks] == codes
    assert [task["state"] for task in tasks] == ["EXECUTOR_ERROR" if code else "COMPLETE" for code in codes]


async def test_missing_outputs_are_a_warning_or_an_error_as_configured(settings: Settings, shared: Path) -> None:
    outputs = [{"path": "/out/there", "url": f"{shared}/there"}, {"path": "/out/gone", "url": f"{shared}/gone"}]
    executors = [sh("echo x > /out/there")]
    for setting, state in (("warning", "COMPLETE"), ("error", "SYSTEM_ERROR")):
        async with started(msgspec.structs.replace(settings, missing_outputs=setting)) as tesk:
            task = await tesk.run(executors=executors, outputs=outputs)
            assert task["state"] == state
            assert "/out/gone" in "\n".join(task["logs"][0]["system_logs"])
            assert [output["path"] for output in task["logs"][0]["outputs"]] == ["/out/there"]


async def test_outputs_are_pushed_after_a_failed_executor_whose_error_stays(tesk: Tesk, shared: Path) -> None:
    task = await tesk.run(
        executors=[sh("echo x > /out/a; exit 7"), sh("true")],
        outputs=[{"path": "/out/a", "url": f"{shared}/a"}, {"path": "/out/b", "url": "http://127.0.0.1:1/b"}],
    )
    assert (task["state"], task["logs"][0]["logs"][-1]["exit_code"]) == ("EXECUTOR_ERROR", 7)
    assert (shared / "a").read_text() == "x\n"
    assert task["logs"][0]["outputs"] == [{"url": f"{shared}/a", "path": "/out/a", "size_bytes": "2"}]


async def test_a_refused_input_names_the_url_and_the_answer(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("true")], inputs=[{"path": "/in/a", "url": "http://127.0.0.1:1/a"}])
    assert task["state"] == "SYSTEM_ERROR"
    assert "http://127.0.0.1:1/a" in task["logs"][0]["system_logs"][-1]
    assert task["logs"][0]["logs"] == []


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


async def test_finished_tasks_are_deleted_at_their_age(settings: Settings) -> None:
    async with started(msgspec.structs.replace(settings, prune_after_s=0.5)) as tesk:
        task_id = await tesk.create(executors=[sh("true")])
        running = await tesk.create(executors=[sh("sleep 30")])
        async with asyncio.timeout(30):
            while await tesk.store.get(task_id, "MINIMAL"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await cancel_and_see(tesk, running)


async def test_a_container_that_cannot_start_is_a_system_error(settings: Settings, engine_socket: Path) -> None:
    async with started(msgspec.structs.replace(settings, network="container:no-such-one")) as tesk:
        task = await tesk.run(executors=[sh("true")])
        assert task["state"] == "SYSTEM_ERROR"
        assert "executor 0" in task["logs"][0]["system_logs"][-1]
        assert await containers_and_folders(engine_socket, tesk.data) == []


async def test_a_filer_that_is_killed_is_run_again(tesk: Tesk, silent_server: str, shared: Path) -> None:
    slow = await tesk.create(executors=[sh("true")], inputs=[{"path": "/in/a", "url": f"http://{silent_server}/a"}])
    await tesk.until(slow, lambda task: task["state"] == "INITIALIZING")
    await _filers_are_there()
    for process in psutil.Process().children(recursive=True):
        if "tesk.engines.local.zygote" in process.cmdline():
            process.kill()
    task = await tesk.run(executors=[sh("cat /in/b")], inputs=[content("/in/b", "fine\n")])
    assert task["logs"][0]["logs"][0]["stdout"] == "fine\n"
    assert (await tesk.task(slow))["state"] == "INITIALIZING"
    await cancel_and_see(tesk, slow)


async def _filers_are_there() -> None:
    """Returns when the zygote has forked the filer that hangs on the silent server."""
    async with asyncio.timeout(30):
        while len([name for name in _command_lines() if "zygote" in name]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _command_lines() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]


async def test_a_container_removed_by_hand_is_no_success(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[{"image": IMAGE, "command": ["sleep", "60"]}])
    await tesk.until(task_id, lambda task: task["state"] == "RUNNING")
    await tesk.engine._machine.containers.remove(f"tesk-{task_id}-0")  # type: ignore[attr-defined]
    task = await tesk.ended(task_id)
    assert task["state"] in ("SYSTEM_ERROR", "EXECUTOR_ERROR")


async def _has_written(tesk: Tesk, task_id: str, text: str) -> None:
    async with asyncio.timeout(30):
        while True:
            log = await tesk.dispatcher.live_log(task_id)
            if log is not None and log.logs and log.logs[-1].stdout == text:
                return
            await asyncio.sleep(0.02)


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
