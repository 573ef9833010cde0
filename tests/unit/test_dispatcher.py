"""What fits beside what, and what can never fit (pure functions of the dispatcher)."""

import pytest

from tesk.clock import stamp
from tesk.dispatch.queue import shortage, too_large
from tesk.places.base import Capacity, Demand

TWO_CORES = Capacity(cpu_cores=2, ram_gb=4)


@pytest.mark.parametrize(
    ("demand", "active", "capacity", "answer"),
    [
        (Demand(1, 1), [], TWO_CORES, None),
        (Demand(1, 1), [Demand(1, 1)], TWO_CORES, None),
        (Demand(1, 1), [Demand(1, 1), Demand(0.1, 0)], TWO_CORES, "asks for 1 cores, and tasks that run have 1.1 of 2"),
        (Demand(0, 2.5), [Demand(0, 2)], TWO_CORES, "asks for 2.5 GiB of memory, and tasks that run have 2 of 4"),
        (Demand(0.1, 0), [Demand(0.1, 0)] * 19, TWO_CORES, None),
        (Demand(0.1, 0), [Demand(0.1, 0)] * 20, TWO_CORES, "have 2 of 2"),
        (Demand(0, 0), [Demand(0, 0)] * 3, Capacity(tasks=3), "(max_active_tasks)"),
        (Demand(0, 0), [Demand(0, 0)] * 3, Capacity(tasks=3, why_no_more="so it is"), "so it is"),
        (Demand(500, 500), [], Capacity(), None),
    ],
)
def test_there_is_room_for_what_is_left(
    demand: Demand, active: list[Demand], capacity: Capacity, answer: str | None
) -> None:
    why = shortage(demand, active, capacity)
    assert why is None if answer is None else answer in (why or "")


@pytest.mark.parametrize(
    ("demand", "words"),
    [(Demand(2, 4), None), (Demand(2.5, 1), "2.5 cores; 2 can"), (Demand(1, 4.5), "4.5 GiB of memory; 4 GiB")],
)
def test_what_can_never_fit_says_what_can_be_had(demand: Demand, words: str | None) -> None:
    reason = too_large(demand, TWO_CORES)
    assert reason is None if words is None else words in (reason or "")
    assert too_large(demand, Capacity()) is None


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
