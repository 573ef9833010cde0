"""Quotas with a real engine: what is beyond them waits and says so, others pass, and what runs counts over restarts."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tesk.settings import Settings
from tests.engines.alone import lines
from tests.engines.places import LOCAL, Place
from tests.engines.running import Document, running, sh
from tests.engines.serving import Server, serving

pytestmark = pytest.mark.places(*LOCAL)

RULES = """
[quotas.users."*"]
running_tasks = 1

[quotas.groups.lab]
cpu_cores = 0.5
"""
AT_ONCE = "waiting: the quota of user ann: 1 task at once"
CORES = "waiting: the quota of group lab: 0.5 cores at once; it asks for 0.3, and tasks that run have 0.3"


async def create(server: Server, user: str, group: str = "") -> str:
    task = {"executors": [sh("sleep 600")], "resources": {"cpu_cores": 0.3}, "tags": {"group": group}}
    return await server.create(task, headers={"X-Forwarded-User": user, "X-Forwarded-Groups": "lab"})


def says(line: str) -> Callable[[Document], bool]:
    return lambda task: task["state"] == "QUEUED" and "logs" in task and lines(task) == line


async def test_what_is_beyond_a_quota_waits_and_others_pass(settings: Settings, place: Place, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    chosen = msgspec.structs.replace(
        settings, rules=str(tmp_path / "rules.toml"), trusted_addresses=("127.0.0.1/32",), admins=("root",)
    )
    async with serving(chosen) as server:
        server.headers["X-Forwarded-User"] = "root"
        first, second = [await create(server, "ann", "lab") for _ in range(2)]
        third = await create(server, "ben", "lab")
        other = await create(server, "cy")
        for task_id in (first, other):
            await server.until(task_id, running)
        await server.until(second, says(AT_ONCE))
        await server.until(third, says(CORES))

        await server.kill()
        await server.start()
        await server.ready()
        await server.until(second, says(AT_ONCE))
        await server.until(third, says(CORES))

        await server.cancel(first)
        await server.until(second, running)
        await server.until(third, says(CORES))
        for task_id in (second, third, other):
            await server.cancel(task_id)
        for task_id in (first, second, third, other):
            await server.ended(task_id)
        assert "logs" not in await server.task(third), "it never ran"
        assert await place.leftovers(settings) == []
