"""A client of a running server, as workflow engines are: it posts tasks and asks how they are on a kept connection.

It asks often, and on the same machine: with aiohttp that takes a quarter of the processor's time of httpx.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median, quantiles
from typing import Any

import aiohttp

UNFINISHED = ("QUEUED", "INITIALIZING", "RUNNING")
POSTS_AT_ONCE = 16


class Client:
    """`every_s`: how often a task is asked for that is waited for. `pause_s`: for cleaning up after a timed one."""

    def __init__(self, url: str, every_s: float, pause_s: float) -> None:
        self._tasks = f"{url}/ga4gh/tes/v1/tasks"
        self._http = session()
        self._every_s, self._pause_s = every_s, pause_s

    async def close(self) -> None:
        await self._http.close()

    async def create(self, task: dict[str, Any]) -> str:
        async with self._http.post(self._tasks, json=task) as answer:
            answer.raise_for_status()
            return str((await answer.json())["id"])

    async def get(self, task_id: str) -> dict[str, Any]:
        """The FULL view."""
        return await self._ask(f"{task_id}?view=FULL")

    async def _ask(self, task: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await fetched(self._http, f"{self._tasks}/{task}"))
        return found

    async def reached(self, task_id: str, state: str) -> None:
        while (await self._ask(task_id))["state"] != state:  # noqa: ASYNC110
            await asyncio.sleep(self._every_s)

    async def ended(self, task_id: str, every_s: float = 0.0, expected: str = "COMPLETE") -> None:
        while True:
            state = (await self._ask(task_id))["state"]
            if state not in UNFINISHED:
                break
            await asyncio.sleep(every_s or self._every_s)
        assert state == expected, await self.get(task_id)

    async def timed(self, task: dict[str, Any]) -> float:
        """Seconds from POST to COMPLETE."""
        began = time.perf_counter()
        await self.ended(await self.create(task))
        elapsed = time.perf_counter() - began
        await asyncio.sleep(self._pause_s)
        return elapsed

    async def rate(self, task: dict[str, Any], count: int) -> tuple[float, float]:
        """Tasks per second of `count` posted at once, and the p99 of a GET meanwhile, in ms."""
        gate = asyncio.Semaphore(POSTS_AT_ONCE)

        async def create() -> str:
            async with gate:
                return await self.create(task)

        began = time.perf_counter()
        ids = await asyncio.gather(*(create() for _ in range(count)))
        async with asking(lambda: self._ask(ids[-1])) as took:
            for task_id in ids:
                await self.ended(task_id, every_s=0.25)
        return count / (time.perf_counter() - began), p99_ms(took)


def session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))


async def fetched(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as answer:
        return await answer.read()


@contextlib.asynccontextmanager
async def asking(ask: Callable[[], Awaitable[object]]) -> AsyncIterator[list[float]]:
    """Asks something again and again meanwhile; how many seconds each took."""
    took: list[float] = []

    async def repeat() -> None:
        while True:
            began = time.perf_counter()
            await ask()
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)

    repeating = asyncio.create_task(repeat())
    yield took
    repeating.cancel()


def p99_ms(took: list[float]) -> float:
    return quantiles(took, n=100)[98] * 1000


async def interleaved(rounds: int, *measures: Callable[[], Awaitable[float]]) -> list[float]:
    """Medians, taken in turn."""
    taken = [[await measure() for measure in measures] for _ in range(rounds)]
    return [median(column) for column in zip(*taken, strict=True)]
