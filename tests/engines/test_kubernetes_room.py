"""Many tasks where there is room for few: none keeps the room that others need to go on."""

import asyncio

import msgspec
import pytest

from tesk.settings import Settings
from tests.engines import strikes
from tests.engines.places import BOTH, KubernetesPlace
from tests.engines.running import cancelled, sh, started

pytestmark = pytest.mark.places(*BOTH)


async def test_taskmasters_do_not_take_all_the_room_that_their_executors_need(
    place: KubernetesPlace, settings: Settings
) -> None:
    settings = msgspec.structs.replace(settings, max_waiting_tasks=1)
    await asyncio.to_thread(strikes.limit, place, pods=2)
    try:
        async with started(settings) as tesk:
            ids = [await tesk.create(executors=[sh("echo x")]) for _ in range(3)]
            for task_id in ids:
                assert (await tesk.ended(task_id))["state"] == "COMPLETE"
            assert await place.leftovers(settings) == []
    finally:
        await asyncio.to_thread(strikes.lift, place)


async def test_tasks_that_no_node_can_take_hold_back_their_like_and_nobody_else(
    place: KubernetesPlace, settings: Settings
) -> None:
    async with started(msgspec.structs.replace(settings, max_waiting_tasks=2)) as tesk:
        giant = await tesk.create(executors=[sh("true")], resources={"ram_gb": 1000})
        await tesk.until(giant, lambda task: bool(task["logs"]) and "nsufficient memory" in str(task["logs"][-1]))
        held = await tesk.create(executors=[sh("true")], resources={"ram_gb": 1000})
        why = "half of the tasks that may wait for a node do, and some ask for no more: 1 of 2 (max_waiting_tasks)"
        await tesk.has_said(held, f"waiting: {why}")
        for _ in range(2):
            assert (await tesk.run(executors=[sh("true")]))["state"] == "COMPLETE", "a smaller task goes"
        await cancelled(tesk, place, giant)
        await tesk.until(held, lambda task: bool(task["logs"]) and "nsufficient memory" in str(task["logs"][-1]))
        await cancelled(tesk, place, held)
