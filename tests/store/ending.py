"""A server in small, to be killed: ends tasks at once, each twice, and says its id the moment that is answered.

Run as `python -m tests.store.ending URL CLIENTS`.
"""

import asyncio
import itertools
import sys

from tesk.identity import Owner
from tesk.store import open_store
from tesk.store.base import NewTask
from tesk.tes import State, TaskLog
from tesk.usage import Used
from tests.store.creating import say

OWNERS = (Owner("ann", "lab"), Owner("bob", "lab"), Owner("ann"))


def used_by(number: int) -> list[Used]:
    """What the task of this number used: one in four ran over the end of a month."""
    last = Used("2026-12", 1, 3 * number, 4, 5, number)
    return [last] if number % 4 else [Used("2026-11", 0, number, 1, 2, 0), last]


async def main(url: str, clients: int) -> None:
    store = open_store(url, log_tail_bytes=1000)
    await store.open()
    say("open")
    numbers = itertools.count(1)

    async def client() -> None:
        for number in numbers:
            new = NewTask(basic=b'{"name":"%d"}' % number, owner=OWNERS[number % len(OWNERS)])
            task_id = await store.create(new)
            await store.advance(task_id, State.RUNNING, TaskLog())
            for state in (State.COMPLETE, State.SYSTEM_ERROR):
                await store.advance(task_id, state, TaskLog(), used=used_by(number))
                say(f"ended {task_id} {number}")

    await asyncio.gather(*(client() for _ in range(clients)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
