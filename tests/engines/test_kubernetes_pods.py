"""Tasks that run in one pod each: what is made for them, how the server learns of them, and what a lost pod means.

What is alike in all places is shown by the tests that run in all: test_executors.py, test_lifecycle.py and others.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tesk.identity import SERVER
from tesk.kubernetes import names
from tesk.places.kubernetes import debug
from tesk.settings import Settings
from tesk.store.base import Row
from tests.engines import strikes
from tests.engines.alone import lines
from tests.engines.gates import Gates, reached
from tests.engines.places import POD, KubernetesPlace
from tests.engines.running import Document, Tesk, cancelled, content, running, sh, started
from tests.engines.test_kubernetes_disruptions import delete, evict, remove
from tests.servers.cluster import until

pytestmark = pytest.mark.places(*POD)

IN_POD = pytest.mark.parametrize("settings", [{"mode": "pod"}], indirect=True)
"""For tests that run elsewhere too, where the mode is another."""


async def logs_of(tesk: Tesk, task_id: str) -> list[Document]:
    """The logs as a client sees them, with the line about the mode."""
    row = await tesk.store.get(task_id, "FULL", SERVER)
    assert isinstance(row, Row)
    return list(json.loads(row.logs or b"[]"))


async def objects_of(place: KubernetesPlace, task_id: str) -> dict[str, list[str]]:
    """Names by kind."""
    found = {}
    for kind in ("pods", "jobs", "secrets", "configmaps", "persistentvolumeclaims"):
        of = await asyncio.to_thread(place.cluster.get, place.namespace, kind, f"tesk/task={task_id}")
        found[kind] = [each["metadata"]["name"] for each in of]
    return {kind: of for kind, of in found.items() if of}


async def held(tesk: Tesk, doors: Gates, name: str, **more: Any) -> str:
    """A task whose last executor runs and waits at a door; the end of the first has been told."""
    task_id = await tesk.create(executors=[sh("echo first"), sh(f"wget -q -O - {doors.url}/{name}")], **more)
    await reached(doors, name)
    await tesk.until(task_id, lambda task: running(task) and len(task["logs"][0]["logs"]) == 1)
    return task_id


@pytest.mark.oldest
@IN_POD
async def test_a_task_is_a_pod_and_a_secret_and_says_so(tesk: Tesk, place: KubernetesPlace, doors: Gates) -> None:
    task_id = await held(tesk, doors, "on")
    assert await objects_of(place, task_id) == {"pods": [f"tesk-{task_id}"], "secrets": [f"tesk-{task_id}"]}
    doors.open_all()
    assert (await tesk.ended(task_id))["state"] == "COMPLETE"
    (log,) = await logs_of(tesk, task_id)
    assert log["system_logs"] == ["runs as one pod"]
    assert [entry["stdout"] for entry in log["logs"]] == ["first\n", "on\n"]


@pytest.mark.parametrize("settings", [{"mode": "auto"}], indirect=True)
async def test_what_had_better_not_be_one_pod_has_a_taskmaster_and_says_why(tesk: Tesk, place: KubernetesPlace) -> None:
    first, second = await asyncio.gather(
        tesk.run(executors=[sh("cat /data/a")], inputs=[content("/data/a")]),
        tesk.run(executors=[sh("cat /mnt/in/a")], inputs=[content("/mnt/in/a")]),
    )
    assert [task["state"] for task in (first, second)] == ["COMPLETE"] * 2
    said = [(await logs_of(tesk, task["id"]))[0]["system_logs"][0] for task in (first, second)]
    reason = "whether an image has something in /data is known only once it is there"
    assert said == [f"runs with a taskmaster: {reason}", "runs as one pod"]


@pytest.mark.parametrize("settings", [{"report_address": ""}, {"report_address": "127.0.0.1:1"}], indirect=True)
async def test_where_pods_cannot_reach_the_server_it_reads_their_logs(tesk: Tesk, doors: Gates) -> None:
    task_id = await held(tesk, doors, "on")
    doors.open_all()
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE", task["logs"]
    assert [entry["stdout"] for entry in task["logs"][0]["logs"]] == ["first\n", "on\n"]


async def test_a_server_that_starts_again_finds_what_runs_and_what_has_ended_meanwhile(
    settings: Settings, place: KubernetesPlace, doors: Gates
) -> None:
    async with started(settings) as tesk:
        first, second = await held(tesk, doors, "one"), await held(tesk, doors, "two")
    doors.open("one")
    await asyncio.sleep(3)
    async with started(settings) as tesk:
        assert (await tesk.ended(first))["logs"][0]["logs"][1]["stdout"] == "one\n"
        assert (await tesk.task(second))["state"] == "RUNNING"
        doors.open("two")
        assert (await tesk.ended(second))["logs"][0]["logs"][1]["stdout"] == "two\n"
        assert await place.leftovers(settings) == []


@pytest.mark.parametrize("mode", ["taskmaster", "auto"])
async def test_a_task_goes_on_as_it_has_begun_whatever_the_mode_becomes(
    settings: Settings, place: KubernetesPlace, doors: Gates, mode: Any
) -> None:
    async with started(settings) as tesk:
        task_id = await held(tesk, doors, "on")
    async with started(msgspec.structs.replace(settings, mode=mode)) as tesk:
        doors.open_all()
        task = await tesk.ended(task_id)
        assert task["state"] == "COMPLETE", task["logs"]
        assert (await logs_of(tesk, task_id))[0]["system_logs"] == ["runs as one pod"]
        assert await place.leftovers(settings) == []


@pytest.mark.oldest
@IN_POD
async def test_files_and_volumes_are_on_a_directory_of_the_node(tesk: Tesk, shared: Path) -> None:
    task = await tesk.run(
        executors=[sh("cat /mnt/in/a /data/b > /out/c"), sh("cat /out/c > /mnt/v/c; cat /mnt/v/c", workdir="/mnt/v")],
        inputs=[content("/mnt/in/a", "a"), content("/data/b", "b")], volumes=["/mnt/v"],
        outputs=[{"path": "/out/c", "url": f"{shared}/c"}],
    )  # fmt: skip
    assert task["state"] == "COMPLETE", lines(task)
    assert (task["logs"][0]["logs"][1]["stdout"], (shared / "c").read_text()) == ("ab", "ab")


@pytest.mark.parametrize("settings", [{"retries": 1}], indirect=True)
@pytest.mark.parametrize(
    ("strike", "words"),
    [(evict, "evicted, as when its node is drained"), (delete, "was deleted by somebody else"), (remove, "somebody")],
)
async def test_a_lost_pod_is_followed_by_another(
    tesk: Tesk, place: KubernetesPlace, doors: Gates, strike: Any, words: str
) -> None:
    task_id = await held(tesk, doors, "on")
    await asyncio.to_thread(strike, place.cluster, place.namespace, f"tesk-{task_id}")
    await asyncio.to_thread(until, lambda: doors.reached["on"] == 2, what="another attempt")
    doors.open_all()
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE", task["logs"]
    first, second = task["logs"]
    assert words in first["system_logs"][-1]
    assert first["system_logs"][-1].endswith("; trying again")
    assert [entry["stdout"] for entry in first["logs"]] == ["first\n"]
    assert [entry["stdout"] for entry in second["logs"]] == ["first\n", "on\n"]


@pytest.mark.parametrize("settings", [{"retries": 1}], indirect=True)
async def test_a_lost_pod_is_followed_by_another_though_the_mode_has_changed_since(
    settings: Settings, place: KubernetesPlace, doors: Gates
) -> None:
    async with started(settings) as tesk:
        task_id = await held(tesk, doors, "on")
    async with started(msgspec.structs.replace(settings, mode="taskmaster")) as tesk:
        await asyncio.to_thread(delete, place.cluster, place.namespace, f"tesk-{task_id}")
        await asyncio.to_thread(until, lambda: doors.reached["on"] == 2, what="another attempt")
        doors.open_all()
        task = await tesk.ended(task_id)
        assert task["state"] == "COMPLETE", task["logs"]
        assert [len(log["logs"]) for log in task["logs"]] == [1, 2]
        assert await place.leftovers(settings) == []


@pytest.mark.parametrize(
    ("strike", "words"),
    [(evict, "evicted, as when its node is drained"), (delete, "was deleted by somebody else"), (remove, "somebody")],
)
async def test_a_lost_pod_is_a_system_error_without_retries(
    tesk: Tesk, place: KubernetesPlace, doors: Gates, strike: Any, words: str
) -> None:
    task_id = await held(tesk, doors, "on")
    await asyncio.to_thread(strike, place.cluster, place.namespace, f"tesk-{task_id}")
    task = await tesk.ended(task_id)
    assert (task["state"], words in lines(task)) == ("SYSTEM_ERROR", True), task["logs"]
    assert [entry["stdout"] for entry in task["logs"][0]["logs"]] == ["first\n"]


@pytest.mark.parametrize("settings", [{"retries": 1}], indirect=True)
async def test_a_pod_that_goes_while_no_server_runs_is_a_lost_pod_too(
    settings: Settings, place: KubernetesPlace, doors: Gates
) -> None:
    async with started(settings) as tesk:
        task_id = await held(tesk, doors, "on")
    await asyncio.to_thread(remove, place.cluster, place.namespace, f"tesk-{task_id}")
    await asyncio.to_thread(until, lambda: not strikes.pods(place, task_id), what="the end of its pod")
    doors.open_all()
    async with started(settings) as tesk:
        task = await tesk.ended(task_id)
        assert task["state"] == "COMPLETE", task["logs"]
        assert task["logs"][0]["system_logs"] == ["error: its pod was deleted by somebody else; trying again"]
        assert [len(log["logs"]) for log in task["logs"]] == [1, 2]
        assert await place.leftovers(settings) == []


@pytest.mark.oldest
@IN_POD
@pytest.mark.parametrize(
    ("strike", "words"),
    [(strikes.kill, "runner ended with code 137"), (strikes.use_up_memory, "runner ran out of memory")],
)
async def test_a_runner_that_is_killed_is_a_lost_pod(
    tesk: Tesk, place: KubernetesPlace, doors: Gates, strike: Any, words: str
) -> None:
    task_id = await held(tesk, doors, "on")
    await asyncio.to_thread(strike, place, f"tesk-{task_id}", names.RUNNER_CONTAINER)
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR"
    assert f"pod tesk-{task_id}: {words}" in lines(task)


@pytest.mark.oldest
@IN_POD
async def test_the_image_of_a_later_executor_that_cannot_be_had_ends_the_task(
    tesk: Tesk, place: KubernetesPlace
) -> None:
    missing = {"image": "registry.invalid/none:1", "command": ["true"]}
    task = await tesk.run(executors=[sh("sleep 3600"), missing])
    assert task["state"] == "SYSTEM_ERROR"
    assert "executor 1: image registry.invalid/none:1 cannot be pulled" in lines(task)


async def test_an_executor_that_outgrows_its_memory_says_so(tesk: Tesk) -> None:
    grow = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"
    task = await tesk.run(executors=[sh(grow), sh("echo never")], resources={"ram_gb": 0.04})
    assert task["state"] == "EXECUTOR_ERROR", task["logs"]
    assert "executor 0" in lines(task)
    assert "out of memory, limit 41 MiB" in lines(task)


async def test_more_on_the_disk_than_asked_for_is_an_eviction(tesk: Tesk) -> None:
    fill = "head -c 300000000 /dev/zero > /mnt/v/a; sleep 3600"
    task = await tesk.run(executors=[sh(fill)], volumes=["/mnt/v"], resources={"disk_gb": 0.1})
    assert task["state"] == "SYSTEM_ERROR"
    assert "evicted" in lines(task)
    assert "exceeds the limit" in lines(task)


@pytest.mark.oldest
@IN_POD
async def test_cancelling_keeps_what_was_written_and_leaves_nothing(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    task_id = await tesk.create(executors=[sh("echo first"), sh(f"echo begun; wget -q -O - {doors.url}/on")])
    await reached(doors, "on")
    await tesk.has_written(task_id, "begun\n")
    task = await cancelled(tesk, place, task_id)
    assert [entry["stdout"] for entry in task["logs"][0]["logs"]] == ["first\n", "begun\n"]
    assert await place.leftovers(tesk.settings) == []


async def test_a_dump_says_of_a_pod_what_the_server_makes_of_it(tesk: Tesk, settings: Settings, doors: Gates) -> None:
    task_id = await held(tesk, doors, "on")
    found = json.loads(json.dumps(await debug.look(settings, task_id)))
    assert found["observed"]["mode"] == "pod"
    assert debug.replay(found).status is not None
    doors.open_all()
    await tesk.ended(task_id)
