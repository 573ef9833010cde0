"""The writing thread: shares commits, strands nobody, and lets one bad write harm no other."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tesk.store.base import StoreError
from tesk.store.committer import BATCH, Committer, Write


class Recorder:
    """Commits numbers; fails a batch that has a negative one; waits at `gate` while it is closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def commit(self, writes: Sequence[Write]) -> list[Any]:
        self.entered.set()
        assert self.gate.wait(300)
        numbers = [write.arguments for write in writes]
        if min(numbers) < 0:
            raise ValueError(f"bad: {min(numbers)}")
        self.batches.append(numbers)
        return [number * 2 for number in numbers]


async def test_writes_that_wait_share_the_next_commit_in_their_order() -> None:
    recorder = Recorder()
    committer = Committer(recorder.commit, "test")
    recorder.gate.clear()
    first = asyncio.create_task(committer.put("n", 0))
    assert await asyncio.to_thread(recorder.entered.wait, 300)
    others = [asyncio.create_task(committer.put("n", n)) for n in range(1, BATCH + 11)]
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await asyncio.gather(first, *others) == [n * 2 for n in range(BATCH + 11)]
    assert recorder.batches == [[0], list(range(1, BATCH + 1)), list(range(BATCH + 1, BATCH + 11))]
    await committer.close()


async def test_a_bad_write_fails_alone() -> None:
    recorder = Recorder()
    committer = Committer(recorder.commit, "test")
    numbers = [1, -2, 3, 4, -5, 6]
    answers = await asyncio.gather(*(committer.put("n", n) for n in numbers), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "bad: -2", "6", "8", "bad: -5", "12"]
    await committer.close()


async def test_no_request_is_stranded_between_an_empty_queue_and_the_next_batch() -> None:
    """Many clients that send the next write the moment one is answered: the queue runs empty all the time."""
    recorder = Recorder()
    committer = Committer(recorder.commit, "test")

    async def client(n: int) -> int:
        total = 0
        for step in range(300):
            total += await committer.put("n", step)
            for _ in range(n % 3):
                await asyncio.sleep(0)
        return total

    async with asyncio.timeout(300):
        totals = await asyncio.gather(*(client(n) for n in range(8)))
    assert totals == [300 * 299] * 8
    await committer.close()


async def test_a_caller_that_gives_up_harms_nobody_and_its_write_is_made() -> None:
    recorder = Recorder()
    committer = Committer(recorder.commit, "test")
    recorder.gate.clear()
    first = asyncio.create_task(committer.put("n", 1))
    second = asyncio.create_task(committer.put("n", 2))
    assert await asyncio.to_thread(recorder.entered.wait, 300)
    first.cancel()
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await second == 4
    assert [number for batch in recorder.batches for number in batch] == [1, 2]
    await committer.close()


async def test_closing_makes_what_waits_and_refuses_what_comes_later() -> None:
    recorder = Recorder()
    committer = Committer(recorder.commit, "test")
    recorder.gate.clear()
    waiting = [asyncio.create_task(committer.put("n", n)) for n in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(committer.close())
    await asyncio.sleep(0)
    recorder.gate.set()
    assert await asyncio.gather(*waiting) == [0, 2, 4, 6, 8]
    await closing
    with pytest.raises(StoreError, match="stopping"):
        await committer.put("n", 6)
    await committer.close()
