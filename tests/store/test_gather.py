"""Gathering: what waits is asked together, each gets its own answer, and nothing is left without one."""

import asyncio
from collections.abc import Sequence

import pytest

from tesk.identity import SERVER
from tesk.store.base import NewTask, Store
from tesk.store.gather import Gatherer, Question, fail, give


class Doubling:
    """Answers twice the number once `free` is set; refuses batches with a negative one."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.batches: list[list[int]] = []

    async def reached(self) -> None:
        """Returns when a batch is being answered."""
        async with asyncio.timeout(300):
            while not self.batches:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def work(self, batch: Sequence[Question]) -> None:
        self.batches.append([question.content for question in batch])
        await self.free.wait()
        if min(self.batches[-1]) < 0:
            fail(batch, ValueError("negative"))
        for question in batch:
            give(question, question.content * 2)


async def test_what_waits_is_asked_together() -> None:
    doubling = Doubling()
    gatherer = Gatherer(doubling.work, 1)
    asked = [asyncio.create_task(gatherer.ask(0))]
    await doubling.reached()
    asked += [asyncio.create_task(gatherer.ask(n)) for n in (1, 2, 2)]
    await asyncio.sleep(0)  # each has asked
    doubling.free.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 4]
    assert doubling.batches == [[0], [1, 2, 2]]
    await gatherer.close(300)


async def test_one_who_goes_away_takes_nothing_from_the_others() -> None:
    doubling = Doubling()
    gatherer = Gatherer(doubling.work, 1)
    asked = [asyncio.create_task(gatherer.ask(n)) for n in (1, 2, 3)]
    await doubling.reached()
    asked[1].cancel()
    doubling.free.set()
    assert [await asked[0], await asked[2]] == [2, 6]
    await gatherer.close(300)


async def test_after_a_failure_the_next_is_answered() -> None:
    doubling = Doubling()
    doubling.free.set()
    gatherer = Gatherer(doubling.work, 1)
    with pytest.raises(ValueError, match="negative"):
        await gatherer.ask(-1)
    assert await gatherer.ask(4) == 8
    await gatherer.close(300)


async def test_closing_answers_what_was_asked() -> None:
    doubling = Doubling()
    gatherer = Gatherer(doubling.work, 2)
    asked = asyncio.create_task(gatherer.ask(4))
    await doubling.reached()
    closing = asyncio.create_task(gatherer.close(300))
    doubling.free.set()
    await closing
    assert await asked == 8


async def test_tasks_read_at_once_are_each_its_own(store: Store) -> None:
    ids = [await store.create(NewTask(basic=b'{"n":%d}' % n, full=b'{"full":%d}' % n)) for n in range(20)]
    wanted = [*ids, "0000000000000", *reversed(ids)]
    numbers = [*range(20), None, *reversed(range(20))]
    for view, key in (("BASIC", "n"), ("FULL", "full")):
        rows = await asyncio.gather(*(store.get(task_id, view, SERVER) for task_id in wanted))
        found = [None if row is None else (row[0], row[3:4]) for row in rows]
        assert found == [
            None if n is None else (task_id, (f'{{"{key}":{n}}}'.encode(),))
            for task_id, n in zip(wanted, numbers, strict=True)
        ]
