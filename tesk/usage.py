"""What tasks used, by month (pure): from the log of a task that has ended, to figures that can be added up.

A task used what it asked for, from its first start to its end, over all of its attempts. One that runs over the end of
a month is divided between the months. Amounts are whole numbers of milliseconds, so that sums are exact in any order.
Months are those of UTC.
"""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from tesk.tes import TaskLog

SKEW_MS: Final = 24 * 3600 * 1000
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
"""What is shown of a Usage."""


class Usage(NamedTuple):
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
    parts = list(_by_month(started, ended))
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
    return next((ms for log in logs if (ms := _ms(log.start_time)) is not None), None)


def month_of(ms: int) -> str:
    """The month of a time in milliseconds since 1970, as in "2026-11"."""
    return _month(datetime.fromtimestamp(ms // 1000, UTC))


def _by_month(start_ms: int, end_ms: int) -> Iterator[tuple[str, int]]:
    """The months from start to end, each with its milliseconds. The month of the end is there in any case."""
    moment = datetime.fromtimestamp(start_ms // 1000, UTC)
    while True:
        following = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        limit_ms = int(following.timestamp()) * 1000
        if end_ms < limit_ms:
            yield _month(moment), end_ms - start_ms
            return
        yield _month(moment), limit_ms - start_ms
        moment, start_ms = following, limit_ms


def _month(moment: datetime) -> str:
    return f"{moment.year:04}-{moment.month:02}"


def _ms(time: str | UnsetType) -> int | None:
    """Milliseconds since 1970; None for a text that is no time."""
    if time is UNSET:
        return None
    try:
        moment = datetime.fromisoformat(time)
        return math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000 + 0.5)
    except (ValueError, OverflowError):
        return None
