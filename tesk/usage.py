"""What tasks used, by month (pure): from the log of a task that has ended, to figures that can be added up.

A task used what it asked for, from its first start to its end, over all of its attempts. One that runs over the end of
a month is divided between the months. Amounts are whole numbers of milliseconds, so that sums are exact in any order.
Months are those of UTC.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from tesk.tes import TaskLog

DAY_MS: Final = 24 * 3600 * 1000
SKEW_MS: Final = DAY_MS
"""So far the clock of a node may be off: a start or an end beyond that does not count as such."""
_SIZE: Final = re.compile("[0-9]{1,16}")


class Amounts(NamedTuple):
    """What tasks may have at once: cores, GiB of memory, GPUs."""

    cpu_cores: float = 0.0
    ram_gb: float = 0.0
    gpus: int = 0


class Used(NamedTuple):
    """What one task used in one month. `tasks`: 1 in the month of its end. Amounts are multiplied by milliseconds."""

    month: str
    tasks: int
    core_ms: int
    ram_gib_ms: int
    gpu_ms: int
    bytes_out: int


FIELDS: Final = ("month", "user", "group", "tasks", "core_seconds", "ram_gib_seconds", "gpu_seconds", "bytes_out")
"""What is shown of a MonthlyUsage."""


class MonthlyUsage(NamedTuple):
    """What the tasks of a user for a group used in one month; those that have ended."""

    month: str
    user: str
    group: str
    tasks: int
    core_ms: int
    ram_gib_ms: int
    gpu_ms: int
    bytes_out: int

    def shown(self) -> tuple[str | int | float, ...]:
        """The values of FIELDS."""
        amounts = (self.core_ms / 1000, self.ram_gib_ms / 1000, self.gpu_ms / 1000)
        return (self.month, self.user, self.group, self.tasks, *amounts, self.bytes_out)


def used(logs: Sequence[TaskLog], amounts: Amounts, created_ms: int, now_ms: int) -> list[Used]:
    """What a task used that has ended, by month; nothing where it never started. `logs`: one for each attempt."""
    started = start_ms(logs)
    if started is None:
        return []
    latest = now_ms + SKEW_MS
    started = min(max(started, created_ms - SKEW_MS), latest)
    ended = _ms(logs[-1].end_time)
    ended = max(started, now_ms if ended is None else min(ended, latest))
    size = sum(int(output.size_bytes) for log in logs for output in log.outputs if _SIZE.fullmatch(output.size_bytes))
    parts = _by_month(started, ended)
    last = len(parts) - 1
    return [
        Used(
            month,
            int(n == last),
            round(amounts.cpu_cores * ms),
            round(amounts.ram_gb * ms),
            amounts.gpus * ms,
            size if n == last else 0,
        )
        for n, (month, ms) in enumerate(parts)
    ]


def start_ms(logs: Sequence[TaskLog]) -> int | None:
    """When the first attempt started; None where none did."""
    for log in logs:
        if (ms := _ms(log.start_time)) is not None:
            return ms
    return None


def month_of(ms: int) -> str:
    """The month of a time in milliseconds since 1970, as in "2026-11"."""
    return _month(ms // DAY_MS)[0]


def _by_month(start_ms: int, end_ms: int) -> list[tuple[str, int]]:
    """The months from start to end, each with its milliseconds. The month of the end is there in any case."""
    parts = list[tuple[str, int]]()
    month, limit_ms = _month(start_ms // DAY_MS)
    while end_ms >= limit_ms:
        parts.append((month, limit_ms - start_ms))
        start_ms = limit_ms
        month, limit_ms = _month(start_ms // DAY_MS)
    return [*parts, (month, end_ms - start_ms)]


@lru_cache(maxsize=64)
def _month(day: int) -> tuple[str, int]:
    """The month of a day, counted since 1970, and the millisecond since 1970 in which the following month begins."""
    date = datetime.fromtimestamp(day * DAY_MS // 1000, UTC)
    following = datetime(date.year + date.month // 12, date.month % 12 + 1, 1, tzinfo=UTC)
    return f"{date.year:04}-{date.month:02}", int(following.timestamp()) * 1000


def _ms(time: str | UnsetType) -> int | None:
    """Milliseconds since 1970; None for a text that is no time."""
    if time is UNSET:
        return None
    try:
        moment = datetime.fromisoformat(time)
        return math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000 + 0.5)
    except (ValueError, OverflowError):
        return None
