"""What users and groups may have at once, and what is beyond that (pure)."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from tesk.rules import OTHERS, Quota, Quotas

NO_QUOTAS: Final = Quotas()
MILLION: Final = 1_000_000
MOST: Final = 1e12
"""No machine has more of anything; in millionths it is still a number that adds up quickly."""

Millionths = tuple[int, int, int, int]
"""Tasks, cores, GiB of memory and GPUs. In millionths sums are exact, whatever was added and taken away before."""
NOTHING: Final[Millionths] = 0, 0, 0, 0
_UNITS: Final = ("tasks", "cores", "GiB of memory", "GPUs")


def millionths(tasks: float, cpu_cores: float, ram_gb: float, gpus: float) -> Millionths:
    return _millionths(tasks), _millionths(cpu_cores), _millionths(ram_gb), _millionths(gpus)


def _millionths(amount: float) -> int:
    return round(min(amount, MOST) * MILLION)


class QuotaLimit(NamedTuple):
    """The quota that one user or one group has."""

    kind: Literal["user", "group"]
    name: str
    quota: Quota
    most: Millionths
    """What may be had at once; 0: any."""

    def is_reached(self, asked: Millionths, taken: Millionths) -> bool:
        """Whether who has so much already may not have so much more now. The queue asks for thousands of tasks."""
        tasks, cores, ram, gpus = self.most
        return (
            0 < tasks < asked[0] + taken[0]
            or 0 < cores < asked[1] + taken[1]
            or 0 < ram < asked[2] + taken[2]
            or 0 < gpus < asked[3] + taken[3]
        )

    def reached(self, asked: Millionths, taken: Millionths) -> str | None:
        """Why that is so."""
        for n, (most, more, has) in enumerate(zip(self.most, asked, taken, strict=True)):
            if most and more + has > most:
                found = f"; it asks for {_shown(more)}, and tasks that run have {_shown(has)}" if n else ""
                return self.words(n) + found
        return None

    def exceeded(self, asked: Millionths) -> tuple[int, str] | None:
        """Which amount (as in Millionths) a task may never have, not even alone, and why."""
        for n, (most, more) in enumerate(zip(self.most, asked, strict=True)):
            if most and more > most:
                return n, f"{self.words(n)}; the task asks for {_shown(more)}, and so would wait for ever"
        return None

    @property
    def whose(self) -> str:
        return f"{self.kind} {self.name}"

    def words(self, n: int) -> str:
        """The quota of an amount, as in "the quota of group lab-a: 100 tasks at once"."""
        unit = _UNITS[n].removesuffix("s") if self.most[n] == MILLION else _UNITS[n]
        return f"the quota of {self.whose}: {_shown(self.most[n])} {unit} at once"


def user_limit(quotas: Quotas, name: str) -> QuotaLimit | None:
    """The quota of a user; None for one who has none, and for nobody."""
    return _limit("user", name, quotas.users)


def group_limit(quotas: Quotas, name: str) -> QuotaLimit | None:
    return _limit("group", name, quotas.groups)


def limits(quotas: Quotas, user: str, group: str) -> Iterator[QuotaLimit]:
    """The quotas that a task of this user for this group has to keep to."""
    for limit in (user_limit(quotas, user), group_limit(quotas, group)):
        if limit is not None:
            yield limit


def _limit(kind: Literal["user", "group"], name: str, quotas: dict[str, Quota]) -> QuotaLimit | None:
    quota = quotas.get(name, quotas.get(OTHERS)) if name else None
    return None if quota is None else _limit_of(kind, name, quota)


@lru_cache(maxsize=8192)
def _limit_of(kind: Literal["user", "group"], name: str, quota: Quota) -> QuotaLimit:
    most = millionths(quota.running_tasks, quota.cpu_cores, quota.ram_gb, quota.gpus)
    return QuotaLimit(kind, name, quota, most)


def _shown(amount: int) -> str:
    return f"{amount / MILLION:.15g}"
