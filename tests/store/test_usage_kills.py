"""`kill -9` at any moment: what was used is the sum of the tasks that have ended, to the millisecond."""

import asyncio
import random
import time
from collections import defaultdict
from pathlib import Path

import msgspec

from tesk.identity import SERVER, Owner
from tesk.store import open_store
from tesk.store.base import Query, Row, Store
from tesk.usage import MonthlyUsage
from tests.store.ending import OWNERS, used_by
from tests.store.test_durability import KILLS, killed_at_random


async def test_what_was_used_is_exact_after_kills_and_pruning(durable_url: str, tmp_path: Path) -> None:
    chance = random.Random(11)
    counted: dict[str, int] = {}
    for _ in range(KILLS):
        words = chance.randint(2, 800)
        said = await asyncio.to_thread(killed_at_random, durable_url, tmp_path, words, "tests.store.ending")
        store = open_store(durable_url, log_tail_bytes=1000)
        await store.open()
        try:
            here, used = await at_one_moment(store)
            counted |= here
            assert {task_id for _, task_id, _ in said} <= set(counted)
            assert used == sums(counted)
            await store.prune(int(time.time() * 1000) + 1, limit=chance.randint(1, 500))
            assert await store.usage("2026-01", "2026-12", SERVER) == sums(counted)
        finally:
            await store.close()
    assert len(counted) > 10 * KILLS


async def at_one_moment(store: Store) -> tuple[dict[str, int], list[MonthlyUsage]]:
    """The tasks that have ended, and what was used: PostgreSQL may still be at a statement of the killed process."""
    for _ in range(100):
        before, used = await ended(store), await store.usage("2026-01", "2026-12", SERVER)
        if before == await ended(store):
            return before, used
    raise AssertionError("tasks end though nobody ends any")


async def ended(store: Store) -> dict[str, int]:
    """The number of each task that has ended and is not pruned."""
    before, found = None, dict[str, int]()
    while page := await store.page(Query(limit=500, view="BASIC", before=before), SERVER):
        for row in page:
            assert isinstance(row, Row)
            if row.state.is_terminal:
                found[row.id] = int(msgspec.json.decode(row.document)["name"])
        before = page[-1].id
    return found


def sums(counted: dict[str, int]) -> list[MonthlyUsage]:
    """What these tasks used, in the order in which the store tells it."""
    totals = defaultdict[tuple[str, Owner], list[int]](lambda: [0] * 5)
    for number in counted.values():
        for used in used_by(number):
            total = totals[used.month, OWNERS[number % len(OWNERS)]]
            total[:] = [one + more for one, more in zip(total, used[1:], strict=True)]
    found = [MonthlyUsage(month, owner.user, owner.group, *total) for (month, owner), total in totals.items()]
    return sorted(found)
