"""What has run is not run again, also where nobody has recorded that it was there."""

import asyncio
from typing import Any

import pytest

from tesk import tes
from tesk.life.status import TaskStatus
from tesk.places.base import Demand, Job
from tesk.places.kubernetes.place import KubernetesPlace as Place
from tesk.settings import Settings
from tests.engines import strikes
from tests.engines.gates import Gates, reached
from tests.engines.places import BOTH, KubernetesPlace
from tests.engines.running import sh
from tests.servers.cluster import until

pytestmark = pytest.mark.places(*BOTH)
KIND = {"kubernetes": "job", "pod": "pod"}


async def test_a_task_that_ran_and_was_deleted_before_anybody_recorded_it_does_not_run_again(
    settings: Settings, place: KubernetesPlace, doors: Gates
) -> None:
    document: dict[str, Any] = {"executors": [sh(f"wget -q -O - {doors.url}/on")]}
    task, _ = tes.parse(tes.encode(document))
    task_id = "1m8mx7yrrx900"
    over: asyncio.Future[TaskStatus] = asyncio.get_running_loop().create_future()

    def report(_: str, status: TaskStatus) -> None:
        if status.state.is_terminal and not over.done():
            over.set_result(status)

    async def in_a_life_of_the_server(*, submitted: bool) -> Place:
        server = Place(settings)
        await server.open(report)
        await server.submit(Job(task_id, Demand(0.05, 0.03, 0.1), task, submitted=submitted))
        return server

    first = await in_a_life_of_the_server(submitted=False)
    await reached(doors, "on")
    await first.close()
    await asyncio.to_thread(strikes.delete, place, KIND[place.name], f"tesk-{task_id}")
    await asyncio.to_thread(until, lambda: not strikes.pods(place, task_id), what="the end of its pods")
    second = await in_a_life_of_the_server(submitted=True)
    try:
        async with asyncio.timeout(600):
            status = await over
        assert (status.state, doors.reached["on"]) == (tes.State.SYSTEM_ERROR, 1)
        assert "deleted" in str(status.log.system_logs)
        doors.open_all()
        await second.forget(task_id)
    finally:
        await second.close()
    assert await place.leftovers(settings) == []
