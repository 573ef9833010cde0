"""The filer in a process that was forked for it: its memory has a bound, and what it says are JSON lines."""

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from tesk.filer import main, memory
from tesk.filer.plan import Event, Failed, Plan

Write = Callable[[bytes], Any]


def run(plan: Plan, write: Write, stop: threading.Event, memory_bytes: int, transfers: int) -> int:
    """Carries out a plan; the exit code of `tesk filer`. `write` takes the lines. `memory_bytes`: 0 for no bound."""
    encode = msgspec.json.Encoder().encode
    lock = threading.Lock()
    if memory_bytes:
        memory.bound(memory_bytes, transfers)

    def emit(event: Event) -> None:
        with lock:
            write(encode(event) + b"\n")

    used_up = encode(Failed(memory.used_up())) + b"\n"
    threading.excepthook = partial(_end_without_memory, write, used_up, threading.excepthook)
    try:
        return 0 if main.run(plan, emit, stop) else 1
    except MemoryError:
        write(used_up)
        return 1


def _end_without_memory(
    write: Write, words: bytes, otherwise: Callable[[threading.ExceptHookArgs], Any], args: threading.ExceptHookArgs
) -> None:
    """Ends the process when a thread has died for want of memory: the others would wait for it."""
    if issubclass(args.exc_type, MemoryError):
        write(words)
        os._exit(1)
    otherwise(args)
