"""A server in small, to be killed: creates tasks at once and says each id the moment it is answered.

Run as `python -m tests.store.creating URL CLIENTS`.
"""

import asyncio
import itertools
import os
import sys

from tesk.store import open_store
from tesk.store.base import NewTask
from tesk.tes import ExecutorLog, State, TaskLog
from tests.store.patience import be_patient

PADDING = "x" * 2000


def document(number: int) -> bytes:
    return b'{"name":"%d","description":"%s"}' % (number, PADDING.encode())


def content(number: int) -> bytes:
    return b'{"name":"%d","inputs":[{"content":"%s"}]}' % (number, PADDING.encode())


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main(url: str, clients: int) -> None:
    be_patient()
    store = open_store(url, log_tail_bytes=1000)
    await store.open()
    say("open")
    numbers = itertools.count()

    async def client() -> None:
        for number in numbers:
            new = NewTask(basic=document(number), full=content(number), name=str(number), tags={"number": str(number)})
            task_id = await store.create(new)
            say(f"created {task_id} {number}")
            if number % 3 == 0:
                await store.advance(task_id, State.RUNNING, TaskLog(logs=[ExecutorLog(-1, stdout=str(number))]))
                say(f"running {task_id} {number}")

    await asyncio.gather(*(client() for _ in range(clients)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
