"""What fits beside what on a machine, and what can never fit (pure)."""

import pytest

from tesk.clock import stamp
from tesk.places.base import ALL_ACTIVE, Demand, Denial, Load
from tesk.places.local.capacity import Capacity

TWO_CORES = Capacity(cpu_cores=2, ram_gb=4)
THREE_TASKS = Capacity(cpu_cores=2, ram_gb=4, tasks=3)


def lacks(words: str) -> Denial:
    return Denial(f"it asks for {words}")


def never(words: str) -> Denial:
    return Denial(f"the task asks for {words} can be had here", "itself for ever")


@pytest.mark.parametrize(
    ("demand", "active", "capacity", "denial"),
    [
        (Demand(1, 1), [], TWO_CORES, None),
        (Demand(2, 4), [], TWO_CORES, None),
        (Demand(1, 1), [Demand(1, 1)], TWO_CORES, None),
        (Demand(1, 1), [Demand(1, 1), Demand(0.1, 0)], TWO_CORES, lacks("1 cores, and tasks that run have 1.1 of 2")),
        (Demand(0, 2.5), [Demand(0, 2)], TWO_CORES, lacks("2.5 GiB of memory, and tasks that run have 2 of 4")),
        (Demand(0.1, 0), [Demand(0.1, 0)] * 19, TWO_CORES, None),
        (Demand(0.1, 0), [Demand(0.1, 0)] * 20, TWO_CORES, lacks("0.1 cores, and tasks that run have 2 of 2")),
        (Demand(0, 0), [Demand(0, 0)] * 2, THREE_TASKS, None),
        (Demand(0, 0), [Demand(0, 0)] * 3, THREE_TASKS, ALL_ACTIVE),
        (Demand(0, 0), [Demand(0, 0)] * 3, TWO_CORES, None),
        (Demand(2.5, 1), [], TWO_CORES, never("2.5 cores; 2")),
        (Demand(1, 4.5), [], TWO_CORES, never("4.5 GiB of memory; 4 GiB")),
        (Demand(2.5, 1), [Demand(0, 0)] * 3, THREE_TASKS, never("2.5 cores; 2")),
    ],
)
def test_a_task_starts_where_there_is_room_for_it(
    demand: Demand, active: list[Demand], capacity: Capacity, denial: Denial | None
) -> None:
    assert capacity.admission(demand, Load.of(active)) == denial


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-11-23T07:06:53.939638886Z", "2026-11-23T07:06:53.939Z"),
        ("2026-11-23T08:06:53.5+01:00", "2026-11-23T07:06:53.500Z"),
        ("2026-11-23T07:06:53Z", "2026-11-23T07:06:53.000Z"),
    ],
)
def test_the_engines_times_are_shown_as_tes_wants_them(written: str, shown: str) -> None:
    assert stamp(written) == shown


@pytest.mark.parametrize("written", ["", "0001-01-01T00:00:00Z", "nonsense"])
def test_a_time_that_is_none_is_now(written: str) -> None:
    assert stamp(written) > "2026"
