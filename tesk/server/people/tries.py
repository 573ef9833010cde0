"""A limit of wrong tries to sign in, for each address and for each name at an address.

Who has used up the tries gets 429 with Retry-After. A pause before the answer would hold a connection for each try, and
a client that the limit meets by mistake would not learn why it waits. A name is limited at each address for itself:
nobody locks somebody else out. A try is taken before the credential is checked, and given back if the credential is
good, so that a thousand tries at once are as many as one after the other.
"""

import time
from collections.abc import Callable
from typing import Final

from tesk.server.people.way import Address

ADDRESS_TRIES: Final = 100
ADDRESS_TRY_EVERY_S: Final = 1.0
NAME_TRIES: Final = 10
NAME_TRY_EVERY_S: Final = 10.0
MOST_KNOWN: Final = 20_000

Key = tuple[object, str]


class Tries:
    """Tries come back one by one with time. Forgets the addresses and names that tried longest ago."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._free_at: dict[Key, float] = {}
        """When all tries will have come back."""

    def take(self, address: Address | None, name: str) -> float:
        """Takes a try. 0, or for how many seconds there is none; then none is taken."""
        wait = self._take((_place(address), ""), ADDRESS_TRIES, ADDRESS_TRY_EVERY_S)
        if wait or not name:
            return wait
        wait = self._take((_place(address), name), NAME_TRIES, NAME_TRY_EVERY_S)
        if wait:
            self._give_back((_place(address), ""), ADDRESS_TRY_EVERY_S)
        return wait

    def give_back(self, address: Address | None, name: str) -> None:
        self._give_back((_place(address), ""), ADDRESS_TRY_EVERY_S)
        if name:
            self._give_back((_place(address), name), NAME_TRY_EVERY_S)

    def _take(self, key: Key, tries: int, every_s: float) -> float:
        now = self._now()
        free_at = max(self._free_at.pop(key, now), now) + every_s
        wait = max(0.0, free_at - now - tries * every_s)
        self._free_at[key] = free_at - every_s if wait else free_at
        if len(self._free_at) > MOST_KNOWN:
            del self._free_at[next(iter(self._free_at))]
        return wait

    def _give_back(self, key: Key, every_s: float) -> None:
        if key in self._free_at:
            self._free_at[key] -= every_s


def _place(address: Address | None) -> object:
    """An IPv6 network of one site counts as one address: whoever has one has 2^64."""
    if address is not None and address.version == 6 and address.ipv4_mapped is None:
        return int(address) >> 64
    return address
