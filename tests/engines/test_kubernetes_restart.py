"""Taskmasters and servers that are killed at each step of a task: each goes on where it was, nothing runs twice."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import UNSET

from tesk.clock import stamp
from tesk.kubernetes.record import Record
from tesk.tes import State
from tests.engines import strikes
from tests.engines.alone import lines
from tests.engines.gates import STEPS, Gates, assert_ran_once, gated, in_every_step, reached, short, steps
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.engines.running import Tesk, running
from tests.engines.serving import END_S, Server
from tests.servers.cluster import until

pytestmark = pytest.mark.places(*KUBERNETES)


async def strike(
    place: KubernetesPlace, killed: list[str], deleted: list[str], then: Callable[[], Any] = lambda: None
) -> None:
    """Kills the processes of some tasks' taskmasters and deletes the pods of others'; until all are at work again."""

    def do() -> None:
        before = {task_id: strikes.taskmaster(place, task_id) for task_id in (*killed, *deleted)}
        for task_id in killed:
            strikes.kill(place, before[task_id]["metadata"]["name"], "taskmaster")
        for task_id in deleted:
            strikes.delete(place, "pod", before[task_id]["metadata"]["name"])
        then()
        for task_id, pod in before.items():
            strikes.await_another_life(place, task_id, pod)

    await asyncio.to_thread(do)


def chosen(ids: dict[str, str]) -> tuple[list[str], list[str]]:
    """Tasks whose taskmaster's process is to be killed, and those whose taskmaster's pod is to be deleted."""
    killed = [task_id for name, task_id in ids.items() if name.startswith("killed")]
    return killed, [task_id for name, task_id in ids.items() if name.startswith("deleted")]


async def test_a_taskmaster_that_is_killed_in_a_step_goes_on_with_it(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    place.cluster.need_node()
    ids: dict[str, str] = {}
    for step, how in zip(STEPS, ("killed", "deleted", "killed", "deleted"), strict=True):
        name = f"{how}-in-{step}"
        ids[name] = await tesk.create(**gated(doors, name, 0, 0))
        doors.open(*steps(name, before=step))
    await reached(doors, *(f"{name}/{name.partition('-in-')[2]}" for name in ids))
    await strike(place, *chosen(ids))
    doors.open_all()
    for task_id in ids.values():
        assert_ran_once(doors, await tesk.ended(task_id))


async def test_a_taskmaster_that_is_killed_between_two_steps_goes_on_with_the_next(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    place.cluster.need_node()
    """Quotas keep it from the next step."""
    second = {name: await tesk.create(**gated(doors, name, 0, 0)) for name in ("killed-second", "deleted-second")}
    for name in second:
        doors.open(f"{name}/inputs")
    await reached(doors, *(f"{name}/executor-0" for name in second))
    await asyncio.to_thread(strikes.limit, place, persistentvolumeclaims=2)
    first = {name: await tesk.create(**gated(doors, name, 0, 0)) for name in ("killed-first", "deleted-first")}
    for task_id in first.values():
        await tesk.until(task_id, lambda task: "exceeded quota" in str(task["logs"]))
    await asyncio.to_thread(strikes.limit, place, persistentvolumeclaims=2, count_pods=8)
    for name in second:
        doors.open(f"{name}/executor-0")
    for task_id in second.values():
        await tesk.until(task_id, lambda task: "exceeded quota" in str(task["logs"]))
    await strike(place, *chosen(first | second), then=lambda: strikes.lift(place))
    doors.open_all()
    for task_id in (first | second).values():
        assert_ran_once(doors, await tesk.ended(task_id))


async def test_a_pod_that_was_made_and_lost_before_that_was_recorded_is_not_made_again(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    """The taskmaster had asked for the pod when it was killed; the pod ran, and is gone too."""
    place.cluster.need_node()
    task_id = await tesk.create(**short(doors, "unrecorded"))
    await reached(doors, "unrecorded/executor-0")
    await tesk.until(task_id, running)

    def strike() -> None:
        before = strikes.taskmaster(place, task_id)
        [executor] = strikes.pods(place, task_id, "executor")
        strikes.kill(place, before["metadata"]["name"], "taskmaster", "STOP")
        strikes.rewrite(place, task_id, unanswered)
        strikes.delete(place, "pod", executor["metadata"]["name"], at_once=True)
        until(lambda: not strikes.pods(place, task_id, "executor"), what="the executor's pod to go")
        strikes.kill(place, before["metadata"]["name"], "taskmaster")

    await asyncio.to_thread(strike)
    task = await tesk.ended(task_id)
    assert task["state"] == "SYSTEM_ERROR", task
    assert "is gone: somebody deleted it" in task["logs"][0]["system_logs"][-1]
    assert doors.reached["unrecorded/executor-0"] == 1, "the executor ran twice"


def unanswered(record: Record) -> None:
    """As it stood between the executor's pod being asked for and the answer."""
    record.state, record.now.started = State.QUEUED, UNSET
    assert list(record.now.pods.values()) != [""]
    record.now.pods = dict.fromkeys(record.now.pods, "")


async def test_a_taskmaster_that_cannot_be_started_again_without_its_secret_gets_it_again(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    task_id = await tesk.create(**gated(doors, "bare", 0, 0))
    doors.open("bare/inputs")
    await reached(doors, "bare/executor-0")
    await asyncio.to_thread(strikes.delete, place, "secret", f"tesk-{task_id}")
    await asyncio.to_thread(strikes.delete, place, "pod", strikes.taskmaster(place, task_id)["metadata"]["name"])
    doors.open_all()
    assert_ran_once(doors, await tesk.ended(task_id))


async def test_a_job_that_is_deleted_by_hand_is_the_end_of_its_task(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    ids = {how: await tesk.create(**gated(doors, how, 0, 0)) for how in ("background", "foreground", "orphan")}
    for how in ids:
        doors.open(f"{how}/inputs", f"{how}/executor-0")
    await reached(doors, *(f"{how}/executor-1" for how in ids))
    for how, task_id in ids.items():
        await tesk.until(task_id, lambda task: running(task) and len(task["logs"][0]["logs"]) == 1)
        await asyncio.to_thread(strikes.delete, place, "job", f"tesk-{task_id}", cascade=how)
    for task_id in ids.values():
        task = await tesk.ended(task_id)
        assert task["state"] == "SYSTEM_ERROR"
        assert "deleted by somebody else" in task["logs"][0]["system_logs"][-1]
        assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [0]


async def test_a_task_ends_whose_taskmaster_has_ended_and_whose_record_was_changed_since(
    tesk: Tesk, place: KubernetesPlace, doors: Gates
) -> None:
    """While no server sees it: what the record says then is all that there is."""
    gone, undone = [await tesk.create(**short(doors, name)) for name in ("gone", "undone")]
    for task_id in (gone, undone):
        await tesk.until(task_id, running)
    await tesk.dispatcher.stop()
    doors.open_all()

    def strike() -> None:
        for task_id in (gone, undone):
            until(lambda: strikes.has_completed(place, task_id), what=f"the end of the Job of {task_id}")  # noqa: B023
        strikes.delete(place, "configmap", f"tesk-{gone}")
        strikes.rewrite(place, undone, lambda record: setattr(record, "state", State.RUNNING))

    await asyncio.to_thread(strike)
    await tesk.restart()
    for task_id, words in ((gone, "is gone"), (undone, "says RUNNING")):
        task = await tesk.ended(task_id)
        assert task["state"] == "SYSTEM_ERROR"
        assert f"the ConfigMap with its record {words}: somebody else changed or deleted it" in lines(task)


async def test_a_server_that_is_killed_takes_up_every_task_where_it_stands(server: Server, doors: Gates) -> None:
    ids = await in_every_step(server, doors)
    cancelled = await server.create(gated(doors, "cancelled", 0, 0))
    doors.open("cancelled/inputs")
    await reached(doors, "cancelled/executor-0")
    await server.cancel(cancelled)
    for n in range(4):
        ids[f"fresh-{n}"] = await server.create(gated(doors, f"fresh-{n}", 0, 0))
    await server.kill()
    for pause_s in (0.3, 1.0, 2.0):
        await server.start()
        await asyncio.sleep(pause_s)
        await server.kill()
    await server.start()
    doors.open_all()
    for task_id in ids.values():
        assert_ran_once(doors, await server.ended(task_id))
    task = await server.ended(cancelled)
    assert (task["state"], task["logs"][0]["system_logs"][-1]) == ("CANCELED", "canceled by the user")


def are_over(place: KubernetesPlace, instance: str) -> bool:
    """True when every Job of an instance has come to its end."""
    jobs = place.cluster.get(place.namespace, "jobs", f"app.kubernetes.io/instance={instance}")
    return all({"Complete", "Failed"} & {each["type"] for each in job["status"].get("conditions", ())} for job in jobs)


async def test_tasks_go_on_without_a_server_and_it_catches_up(
    server: Server, place: KubernetesPlace, doors: Gates
) -> None:
    ids = await in_every_step(server, doors)
    ids["failing"] = await server.create(gated(doors, "failing", 0, 3))
    doors.open(*steps("failing", before="executor-1"))
    await reached(doors, "failing/executor-1")
    await server.kill()
    doors.open_all()
    await asyncio.to_thread(until, lambda: are_over(place, server.settings.instance), END_S, "the end of all Jobs")
    back = stamp(datetime.now(UTC).isoformat())
    await server.start()
    failing = await server.ended(ids.pop("failing"))
    assert (failing["state"], failing["logs"][0]["logs"][1]["exit_code"]) == ("EXECUTOR_ERROR", 3)
    for task_id in ids.values():
        task = await server.ended(task_id)
        assert_ran_once(doors, task)
        assert task["logs"][0]["end_time"] < back
