"""Which queued task is next (pure)."""

from collections.abc import Callable

import pytest

from tesk.dispatch.active import Active
from tesk.dispatch.queue import Queue, Waiting
from tesk.places.base import Demand, Denial

SMALL = Demand(1, 1)
LARGE = Demand(1, 100)


LAB, OTHER = 11, 12


def queue(*waiting: tuple[str, int, Demand], group: int = 0) -> Queue:
    made = Queue()
    for task_id, owner, demand in waiting:
        made.add(Waiting(task_id, owner, group, demand))
    return made


def drained(waiting: Queue, admission: Callable[[Waiting], Denial | None] = lambda waiting: None) -> str:
    """The ids in the order in which they come, each active from then on."""
    ids, active = "", Active()
    while found := waiting.next(active.counts, admission):
        first, _ = found
        waiting.pop(first.id)
        active.add(first.id, first.party, first.demand)
        ids += first.id
    return ids


def large_waits(waiting: Waiting) -> Denial | None:
    return Denial("no node", "its like") if waiting.demand == LARGE else None


def test_first_come_first_served_whatever_they_ask_for() -> None:
    assert drained(queue(("b", 0, LARGE), ("a", 0, SMALL), ("c", 0, SMALL), ("d", 0, LARGE))) == "abcd"


def test_owners_take_turns() -> None:
    assert drained(queue(*((each, 0, SMALL) for each in "abc"), ("x", 1, LARGE), ("y", 1, SMALL))) == "axbyc"


def test_an_owner_with_fewer_active_tasks_is_first() -> None:
    found = queue(("a", 0, SMALL), ("b", 1, SMALL)).next({0: 2, 1: 1, 2: 3}, lambda waiting: None)
    assert found is not None
    assert found[0].id == "b"


@pytest.mark.parametrize("denial", [Denial("full"), Denial("too large", "itself for ever"), None])
def test_the_next_one_comes_with_why_it_may_not_start(denial: Denial | None) -> None:
    found = queue(("b", 0, LARGE), ("a", 0, SMALL)).next({}, lambda waiting: denial)
    assert found == (Waiting("a", 0, 0, SMALL), denial)


def test_groups_take_turns_where_owners_have_equally_many() -> None:
    waiting = Queue()
    for task_id, owner, group in (
        ("a", 1, LAB),
        ("b", 2, LAB),
        ("c", 3, LAB),
        ("d", 4, OTHER),
        ("e", 5, 0),
        ("f", 4, 0),
    ):
        waiting.add(Waiting(task_id, owner, group, SMALL))
    assert drained(waiting) == "adebcf"


def test_tasks_of_one_owner_for_different_groups_do_not_wait_for_each_other() -> None:
    waiting = queue(("a", 1, SMALL), group=LAB)
    waiting.add(Waiting("b", 1, OTHER, SMALL))
    assert drained(waiting, lambda each: Denial("quota", "its like") if each.group == LAB else None) == "b"
    assert waiting.parties() == {(1, LAB)}


def test_what_is_held_lets_all_others_pass() -> None:
    waiting = queue(("a", 0, LARGE), ("b", 0, SMALL), ("c", 1, LARGE), ("d", 0, SMALL), ("e", 1, SMALL))
    assert drained(waiting, large_waits) == "bed"
    assert len(waiting) == 2
    assert drained(waiting) == "ac"
    assert len(waiting) == 0


def test_a_task_that_comes_late_stands_where_its_id_belongs() -> None:
    waiting = queue(("a", 0, SMALL), ("c", 0, SMALL), ("b", 0, SMALL), ("d", 0, SMALL))
    assert waiting.newest() == "d"
    assert drained(waiting) == "abcd"


def test_what_a_task_has_before_it_is_the_first_of_its_like() -> None:
    waiting = queue(("a", 0, SMALL), ("b", 0, LARGE), ("c", 0, LARGE), ("d", 1, LARGE))
    for task_id, first in {"a": "a", "b": "b", "c": "b", "d": "d"}.items():
        found = waiting.before(task_id)
        assert found is not None
        assert found.id == first
    assert waiting.before("z") is None


def test_a_task_that_was_taken_out_is_nowhere() -> None:
    waiting = queue(("a", 0, SMALL), ("b", 0, SMALL))
    assert waiting.pop("z") is None
    assert waiting.pop("a") is not None
    assert "a" not in waiting
    assert drained(waiting) == "b"
    assert waiting.newest() is None
