"""Task ids: 63 bits ordered by time, shown as 13 characters of base 32.

43 bits are milliseconds since 1970, then 10 bits differ between processes, and 10 bits count. Newer tasks have greater
ids, so the primary key is the order of lists, and the texts sort as the numbers do.
"""

import secrets
import time
from collections.abc import Callable

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 13
GREATEST = 2**63 - 1

_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]


def show(number: int) -> str:
    """The id as text, for a number of at most 63 bits."""
    pairs = _PAIRS
    return (
        f"{ALPHABET[number >> 60]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}"
        f"{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )


def read(text: str) -> int | None:
    """The number of an id, or None for text that cannot be one."""
    if len(text) != LENGTH:
        return None
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number << 5 | value
    return number if number <= GREATEST else None


def created_ms(text: str) -> int:
    """About when the task was created, in milliseconds since 1970: an id may be ahead of the clock. 0 for no id."""
    return (read(text) or 0) >> 20


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Identifiers:
    """Gives ids that rise within the process, even when the clock is set back.

    Two processes may give the same id, though hardly ever: then the store asks for another.
    """

    def __init__(self, clock_ms: Callable[[], int] = now_ms) -> None:
        self._clock_ms = clock_ms
        self._process = secrets.randbits(10) << 10
        self._last = 0

    def give(self) -> int:
        number = self._clock_ms() << 20 | self._process
        self._last = max(number, self._last + 1)
        return self._last

    def follow(self, number: int) -> None:
        """Gives only ids above `number` from now on."""
        self._last = max(number, self._last)
