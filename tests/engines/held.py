"""Local tasks whose program runs until the test lets it go: so that a test strikes while it runs, for certain."""

import asyncio
from typing import Any

from tests.engines.running import Document, Tesk, running, sh

WAIT = "for _ in $(seq 6000); do [ ! -e /work/go ] || break; sleep 0.1; done"
HELD = f"echo ran >> /work/ran; {WAIT}; echo out"


async def held(tesk: Tesk, *then: Document, **more: Any) -> str:
    """A task whose first executor runs, says so in /work/ran and waits to be let go. `then`: further executors."""
    task_id = await tesk.create(executors=[sh(HELD), *then], volumes=["/work"], **more)
    await has_made(tesk, task_id, "work/ran")
    await tesk.until(task_id, running)
    return task_id


async def has_made(tesk: Tesk, task_id: str, path: str) -> None:
    """Returns when there is a file at a path of the task's scratch folder."""
    async with asyncio.timeout(180):
        while not (tesk.data / f"tasks/{task_id}/scratch" / path).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def let_go(tesk: Tesk, task_id: str) -> None:
    (tesk.data / f"tasks/{task_id}/scratch/work/go").touch()
