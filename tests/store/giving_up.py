"""A server in small whose disk stalls: creates a task, and another one that it gives up while the commit is under way.

Run as `python -m tests.store.giving_up URL GATE`. Says `kept ID`, then `gave up`; after a line on its input it says
`queued ID …`: all that was ever seen in the queue until the store had removed what was given up.
"""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

from tesk.store import open_store
from tesk.store.base import NewTask
from tests.store.creating import say
from tests.store.patience import be_patient


async def main(url: str, gate: Path) -> None:
    be_patient()
    store: Any = open_store(url, log_tail_bytes=1000)
    await store.open()
    say(f"kept {await store.create(NewTask(basic=b'{}'))}")
    gate.touch()
    create = asyncio.create_task(store.create(NewTask(basic=b"{}", full=b'{"x":1}', tags={"a": "b"})))
    while not Path(f"{gate}.reached").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    create.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await create
    say("gave up")
    await asyncio.to_thread(sys.stdin.readline)
    seen: set[str] = set()
    while True:
        is_over = not store._withdrawals.undecided
        seen |= {each.id for each in await store.queued()}
        if is_over:
            break
        await asyncio.sleep(0.01)
    say(f"queued {' '.join(sorted(seen))}")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
