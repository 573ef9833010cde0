"""What a filer may hold in memory: the bound of its whole process, where it has one, and that of its uploads, which are
blocks that a store wants whole before it takes the first byte.
"""

import contextlib
import resource
import threading
from collections.abc import Iterator
from typing import Final

UPLOADS_BYTES: Final = 64 * 1024 * 1024
MIB: Final = 1024 * 1024
STACK_BYTES: Final = 8 * MIB
"""What a thread's stack counts for, used or not, where the machine sets no other size."""
OWN_THREADS: Final = 8
"""Those that libraries start for themselves."""


def bound(n_bytes: int, transfers: int) -> None:
    """Lets this process have so much of its own memory, besides the stacks of the threads for so many transfers.

    RLIMIT_DATA counts what is private and writable (getrlimit(2)). The address space would be no measure: allocators
    and threads reserve many times what they use. A library that is refused memory raises MemoryError or aborts.
    """
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    each = stack if 0 < stack < 64 * MIB else STACK_BYTES
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = n_bytes + (transfers + OWN_THREADS) * each
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def is_want_of_memory(error: Exception) -> bool:
    """True for an allocation that failed, be it that of a thread's stack."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def used_up() -> str:
    """Why a filer fails for want of memory, and which bound it has met."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return (
            "the filer was refused memory by this machine; are its inputs, outputs or a listing of a store very many?"
        )
    return (
        f"the filer used up its memory, {limit // MIB} MiB with its threads' stacks (on one machine: filer_ram_gb); "
        "are its inputs, outputs or a listing of a store very many?"
    )


class Memory:
    """A number of bytes that is lent out, first come, first served."""

    def __init__(self, total: int = UPLOADS_BYTES) -> None:
        self.total = total
        self._free = total
        self._turn = threading.Lock()
        self._room = threading.Condition()

    @contextlib.contextmanager
    def lend(self, n_bytes: int) -> Iterator[None]:
        """Waits for that much; what is more than all there is goes alone."""
        wanted = min(n_bytes, self.total)
        with self._turn, self._room:
            self._room.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._room:
                self._free += wanted
                self._room.notify()
