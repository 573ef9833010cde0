"""How many tasks may wait for a node, and which (pure)."""

from tesk.places.base import Demand
from tesk.places.kubernetes.waiting_limit import WaitingLimit

GPU = '[null,null,[["gpu","1"]]]'


def limit(most: int, *told: Demand, just_given: int = 0) -> WaitingLimit:
    made = WaitingLimit(most)
    for number, demand in enumerate(told):
        made.waits(f"told-{number}", demand, is_told=True)
    for number in range(just_given):
        made.waits(f"given-{number}", Demand(1, 1), is_told=False)
    return made


def test_a_few_may_wait_whatever_they_ask_for() -> None:
    assert limit(5, Demand(1, 1), Demand(1, 1)).reached(Demand(9, 9)) is None


def test_when_half_as_many_wait_as_may_their_like_and_all_that_ask_for_more_are_held() -> None:
    full = limit(4, Demand(4, 8, 10), Demand(2, 64, 10))
    why = "half of the tasks that may wait for a node do, and some ask for no more: 2 of 4 (max_waiting_tasks)"
    for held in (Demand(4, 8, 10), Demand(4, 9, 10), Demand(8, 64, 100), Demand(2, 64, 10)):
        assert full.reached(held) == why
    for free in (Demand(3, 8, 10), Demand(4, 7, 10), Demand(4, 8, 9), Demand(1, 63, 10)):
        assert full.reached(free) is None


def test_other_nodes_are_another_matter() -> None:
    full = limit(2, Demand(1, 1, 1, GPU))
    assert full.reached(Demand(1, 1, 1)) is None
    assert full.reached(Demand(1, 1, 1, GPU)) is not None


def test_what_was_only_just_given_to_the_cluster_keeps_nobody_back_until_as_many_wait_as_may() -> None:
    why = "as many tasks wait for a node with room as may at once: 4 (max_waiting_tasks)"
    assert limit(4, just_given=3).reached(Demand(1, 1)) is None
    assert limit(4, just_given=4).reached(Demand(1, 1)) == why
    assert limit(4, *(Demand(1, 100 + n) for n in range(4))).reached(Demand(1, 1)) == why
    assert limit(1, just_given=1).reached(Demand(1, 1)) is not None


def test_who_has_a_node_keeps_nobody_back_any_more() -> None:
    full = limit(3, Demand(1, 1), Demand(1, 2))
    assert full.reached(Demand(1, 1)) is not None
    full.leaves("told-0")
    full.waits("other", Demand(1, 1), is_told=False)
    assert full.reached(Demand(1, 1)) is None
    full.waits("told-1", Demand(1, 2), is_told=False)
    assert full.reached(Demand(1, 2)) is None
    full.leaves("told-1")
    full.leaves("unknown")
    assert full.reached(Demand(9, 9)) is None
