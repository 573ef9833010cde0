"""Runs jobs on a few threads, bounded over all files of a step.

The threads are daemons: one that hangs in a system call must not keep a step that was told to stop. The caller's
thread waits for results, which is also where it looks at the clock for progress.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from tesk.filer.errors import Stopped

TICK_S: Final = 0.1
CLEAN_UP_S: Final = 1.0

Job = Callable[[], None]


def run_all(
    jobs: Sequence[Job],
    concurrency: int,
    stop: threading.Event,
    halt: threading.Event,
    failed: Callable[[Exception], bool],
    tick: Callable[[], None],
    wake: Callable[[], None],
) -> None:
    """Runs every job. `failed` hears of each exception and says whether to go on; `tick` is called now and then.

    Raises Stopped once `stop` is set, or what `failed` would not go on from. Then `halt`, which is what jobs look at,
    is set, `wake` is called to end their waits, and they have a moment to clean up after themselves.
    """
    todo: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    threads = []
    for _ in range(min(concurrency, len(jobs))):
        todo.put(None)
        threads.append(threading.Thread(target=_work, args=(todo, done, halt), daemon=True, name="transfer"))
        threads[-1].start()
    try:
        _collect(done, len(jobs), stop, failed, tick)
    except BaseException:
        halt.set()
        wake()
        limit = time.monotonic() + CLEAN_UP_S
        for thread in threads:
            thread.join(max(0.0, limit - time.monotonic()))
        raise


def _collect(
    done: "queue.SimpleQueue[Exception | None]",
    left: int,
    stop: threading.Event,
    failed: Callable[[Exception], bool],
    tick: Callable[[], None],
) -> None:
    while left:
        if stop.is_set():
            raise Stopped
        try:
            error = done.get(timeout=TICK_S)
        except queue.Empty:
            tick()
            continue
        left -= 1
        tick()
        if error is not None and not failed(error):
            raise error


def _work(
    todo: "queue.SimpleQueue[Job | None]", done: "queue.SimpleQueue[Exception | None]", halt: threading.Event
) -> None:
    while not halt.is_set() and (job := todo.get()) is not None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            done.put(error)
        else:
            done.put(None)
