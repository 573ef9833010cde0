"""A task's way through its life on every engine: ends asked for at every stage, outputs, and transfers that fail."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from tesk.identity import SERVER
from tesk.settings import Settings
from tesk.store.base import Row
from tests.engines.alone import lines
from tests.engines.places import LOCAL, Place
from tests.engines.running import Tesk, cancelled, content, running, sh, started
from tests.servers.silent import Silent


async def test_cancelling_a_queued_task_keeps_it_from_running(settings: Settings, place: Place) -> None:
    async with started(msgspec.structs.replace(settings, max_active_tasks=1)) as tesk:
        first = await tesk.create(executors=[sh("sleep 1000")])
        queued = await tesk.create(executors=[sh("true")])
        await tesk.until(first, running)
        assert (await cancelled(tesk, place, queued))["logs"] == []
        await cancelled(tesk, place, first)
        assert await place.leftovers(settings) == []


async def test_a_queued_task_says_what_it_waits_for(settings: Settings, place: Place) -> None:
    async with started(msgspec.structs.replace(settings, max_active_tasks=1)) as tesk:
        first, second, third = [await tesk.create(executors=[sh("sleep 1000")]) for _ in range(3)]
        await tesk.until(first, lambda task: task["state"] != "QUEUED")
        await tesk.has_said(second, "waiting: as many tasks run as may at once (max_active_tasks)")
        await tesk.has_said(
            third,
            "waiting for its turn; the first in line is waiting: as many tasks run as may at once (max_active_tasks)",
        )
        for task_id in (second, third, first):
            await cancelled(tesk, place, task_id)
        assert (await tesk.task(second))["logs"] == []


async def test_cancelling_while_inputs_are_fetched(tesk: Tesk, place: Place, silent_server: Silent) -> None:
    task_id = await tesk.create(
        executors=[sh("true")], inputs=[{"path": "/in/a", "url": f"http://{silent_server.address}/a"}]
    )
    await silent_server.visited()
    task = await cancelled(tesk, place, task_id)
    assert task["logs"][0]["logs"] == []
    assert task["logs"][0]["system_logs"] == ["canceled by the user"]


@pytest.mark.oldest
@pytest.mark.parametrize("settings", [{"image_timeout_s": 600.0}], indirect=True)
async def test_cancelling_while_an_image_is_pulled(tesk: Tesk, place: Place, silent_registry: Silent) -> None:
    task_id = await tesk.create(executors=[{"image": f"{silent_registry.address}/slow/image:1", "command": ["true"]}])
    await silent_registry.visited()
    await tesk.until(task_id, lambda task: task["state"] == "INITIALIZING")
    assert (await cancelled(tesk, place, task_id))["logs"][0]["logs"] == []


@pytest.mark.oldest
@pytest.mark.parametrize("settings", [{"grace_s": 120.0}], indirect=True)
async def test_cancelling_a_running_program_lets_it_end_in_its_own_way(tesk: Tesk, place: Place) -> None:
    """What it has started is told too, in whichever session it is."""
    wait = "echo ready; while :; do usleep 50000; done"
    child = f"trap 'echo child got TERM; exit 0' TERM; {wait}"
    script = f'busybox setsid sh -c "$CHILD" & trap "wait; echo got TERM; exit 0" TERM; {wait}'
    task_id = await tesk.create(executors=[sh(script, env={"CHILD": child}), sh("echo never")])
    await tesk.has_written(task_id, "ready\n" * 2)
    task = await cancelled(tesk, place, task_id)
    log = task["logs"][0]
    assert len(log["logs"]) == 1
    assert log["logs"][0]["stdout"] == "ready\nready\nchild got TERM\ngot TERM\n"
    assert log["system_logs"][-1] == "canceled by the user"


async def test_a_program_that_ignores_term_is_killed_after_the_grace_period(tesk: Tesk, place: Place) -> None:
    task_id = await tesk.create(executors=[sh("trap '' TERM; echo ready; while :; do sleep 1; done")])
    await tesk.has_written(task_id, "ready\n")
    task = await cancelled(tesk, place, task_id)
    assert task["logs"][0]["logs"][0]["stdout"] == "ready\n"


async def test_cancelling_while_outputs_are_pushed(tesk: Tesk, place: Place, silent_server: Silent) -> None:
    task_id = await tesk.create(
        executors=[sh("echo x > /out/a; echo done")],
        outputs=[{"path": "/out/a", "url": f"http://{silent_server.address}/a"}],
    )
    await silent_server.visited()
    task = await cancelled(tesk, place, task_id)
    assert task["logs"][0]["logs"][0]["stdout"] == "done\n"


async def test_cancelling_at_any_moment_ends_in_cancelled_or_the_true_end(tesk: Tesk, place: Place) -> None:
    is_local = place.name in ("podman", "docker")
    pause_s, whole_s = (0.0, 1.4) if is_local else (0.3, 7.0)

    async def one(n: int) -> str:
        await asyncio.sleep(n * pause_s)
        task_id = await tesk.create(executors=[sh("sleep 0.1"), sh("true")], inputs=[content("/in/a")])
        await asyncio.sleep(n * 7 % 20 / 20 * whole_s)
        await tesk.dispatcher.cancel(task_id, SERVER)
        state = str((await tesk.ended(task_id))["state"])
        async with asyncio.timeout(180):  # a Job controller that lags makes a pod, and takes it away once it knows
            while state == "CANCELED" and await place.running(tesk.settings, task_id):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        return state

    states = await asyncio.gather(*map(one, range(20)))
    print(states)
    assert set(states) <= {"CANCELED", "COMPLETE"}
    assert "CANCELED" in states


@pytest.mark.parametrize("settings", [{"executor_timeout_s": 40.0, "grace_s": 20.0}], indirect=True)
async def test_an_executor_that_runs_past_its_time_is_ended_and_keeps_what_it_wrote(tesk: Tesk) -> None:
    scripts = {
        "echo begun; sleep 1000": 143,
        "trap 'echo cleaned; exit 0' TERM; echo begun; sleep 1000 & wait": 143,
        "trap 'echo not cleaned' TERM; echo begun; while :; do sleep 0.1; done": 137,
    }

    async def overdue(script: str, code: int) -> None:
        task = await tesk.run(executors=[sh(script, ignore_error=True), sh("echo never")])
        assert task["state"] == "EXECUTOR_ERROR"
        assert "ended after its time limit of 40 s" in lines(task)
        assert "ignored" not in lines(task)
        (log,) = task["logs"][0]["logs"]
        assert (log["exit_code"], log["stdout"].startswith("begun\n")) == (code, True)
        assert ("cleaned" in log["stdout"]) == ("cleaned" in script)

    in_time = tesk.run(executors=[sh("sleep 15")] * 3)
    task, _ = await asyncio.gather(in_time, asyncio.gather(*(overdue(*case) for case in scripts.items())))
    assert task["state"] == "COMPLETE"


async def test_cancelling_an_ended_task_changes_nothing(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("exit 2")])
    state = await tesk.dispatcher.cancel(task["id"], SERVER)
    assert state is not None
    assert state.name == "EXECUTOR_ERROR"
    assert await tesk.task(task["id"]) == task
    assert await tesk.dispatcher.cancel("0000000000000", SERVER) is None


@pytest.mark.places(*LOCAL)
async def test_many_tasks_at_once_all_end_right(tesk: Tesk) -> None:
    """On a cluster: test_kubernetes_storm."""
    codes = [n % 4 for n in range(24)]
    ids = await asyncio.gather(*(tesk.create(executors=[sh(f"exit {code}")], name=str(code)) for code in codes))
    tasks = [await tesk.ended(task_id) for task_id in ids]
    assert [task["logs"][0]["logs"][0]["exit_code"] for task in tasks] == codes
    assert [task["state"] for task in tasks] == ["EXECUTOR_ERROR" if code else "COMPLETE" for code in codes]


async def test_missing_outputs_are_a_warning_or_an_error_as_configured(
    settings: Settings, place: Place, shared: Path
) -> None:
    outputs = [{"path": "/out/there", "url": f"{shared}/there"}, {"path": "/out/gone", "url": f"{shared}/gone"}]
    for setting, state in (("warning", "COMPLETE"), ("error", "SYSTEM_ERROR")):
        async with started(msgspec.structs.replace(settings, missing_outputs=setting)) as tesk:
            task = await tesk.run(executors=[sh("echo x > /out/there")], outputs=outputs)
            assert task["state"] == state
            assert "/out/gone" in "\n".join(task["logs"][0]["system_logs"])
            assert [output["path"] for output in task["logs"][0]["outputs"]] == ["/out/there"]
            assert await place.leftovers(settings) == []


async def test_outputs_are_pushed_after_a_failed_executor_whose_error_stays(tesk: Tesk, shared: Path) -> None:
    task = await tesk.run(
        executors=[sh("echo x > /out/a; exit 7"), sh("true")],
        outputs=[{"path": "/out/a", "url": f"{shared}/a"}, {"path": "/out/b", "url": "http://127.0.0.1:1/b"}],
    )
    assert (task["state"], task["logs"][0]["logs"][-1]["exit_code"]) == ("EXECUTOR_ERROR", 7)
    assert (shared / "a").read_text() == "x\n"
    assert task["logs"][0]["outputs"] == [{"url": f"{shared}/a", "path": "/out/a", "size_bytes": "2"}]


async def test_types_are_filled_in_as_inputs_and_outputs_turn_out_to_be(tesk: Tesk, shared: Path) -> None:
    """What the client has said stays, and what has matched both, or nothing, has none."""
    (shared / "folder").mkdir()
    (shared / "folder/a").write_text("a")
    out = f"file://{shared}/out"
    task_id = await tesk.create(
        executors=[sh("mkdir /out/d /out/x; echo f > /out/f; echo y > /out/y")],
        inputs=[
            content("/in/c"),
            {"path": "/in/folder", "url": f"file://{shared}/folder"},
            {"path": "/in/a", "url": f"file://{shared}/folder/a"},
        ],
        outputs=[
            {"path": "/out/d", "url": f"{out}/d"},
            {"path": "/out/f", "url": f"{out}/f"},
            {"path": "/out/[xy]", "path_prefix": "/out", "url": f"{out}/"},
            {"path": "/out/none", "url": f"{out}/none"},
            {"path": "/out/f", "url": f"{out}/g", "type": "DIRECTORY"},
        ],
    )
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE", task["logs"]
    assert [each.get("type") for each in task["inputs"]] == ["FILE", "DIRECTORY", "FILE"]
    assert [each.get("type") for each in task["outputs"]] == ["DIRECTORY", "FILE", None, None, "DIRECTORY"]
    assert task["inputs"][0]["content"] == "x"
    basic = await tesk.store.get(task_id, "BASIC", SERVER)
    assert isinstance(basic, Row)
    assert [each.get("type") for each in json.loads(basic.document)["inputs"]] == ["FILE", "DIRECTORY", "FILE"]


@pytest.mark.oldest
async def test_a_refused_input_names_the_url_and_the_answer(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("true")], inputs=[{"path": "/in/a", "url": "http://127.0.0.1:1/a"}])
    assert task["state"] == "SYSTEM_ERROR"
    assert "http://127.0.0.1:1/a" in task["logs"][0]["system_logs"][-1]
    assert task["logs"][0]["logs"] == []


async def test_finished_tasks_are_deleted_at_their_age(settings: Settings, place: Place) -> None:
    async with started(msgspec.structs.replace(settings, prune_after_s=0.5)) as tesk:
        task_id = await tesk.create(executors=[sh("true")])
        still = await tesk.create(executors=[sh("sleep 1000")])
        async with asyncio.timeout(180):
            while await tesk.store.get(task_id, "MINIMAL", SERVER):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await tesk.store.get(still, "MINIMAL", SERVER)
    async with started(settings) as tesk:
        await cancelled(tesk, place, still)
        assert await place.leftovers(settings) == []
