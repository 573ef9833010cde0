"""Which queued task is next (pure)."""

from collections.abc import Callable

import pytest

from tesk.dispatch.queue import Queue, Waiting
from tesk.places.base import Demand, Denial

SMALL = Demand(1, 1)
LARGE = Demand(1, 100)


def queue(*waiting: tuple[str, int, Demand]) -> Queue:
    made = Queue()
    for each in waiting:
        made.add(Waiting(*each))
    return made


def drained(waiting: Queue, admission: Callable[[Demand], Denial | None] = lambda demand: None) -> str:
    """The ids in the order in which they come, each active from then on."""
    ids, active = "", list[int]()
    while found := waiting.next(active, admission):
        first, _ = found
        waiting.pop(first.id)
        ids, active = ids + first.id, [*active, first.owner]
    return ids


def large_waits(demand: Demand) -> Denial | None:
    return Denial("no node", "its like") if demand == LARGE else None


def test_first_come_first_served_whatever_they_ask_for() -> None:
    assert drained(queue(("b", 0, LARGE), ("a", 0, SMALL), ("c", 0, SMALL), ("d", 0, LARGE))) == "abcd"


def test_owners_take_turns() -> None:
    assert drained(queue(*((each, 0, SMALL) for each in "abc"), ("x", 1, LARGE), ("y", 1, SMALL))) == "axbyc"


def test_an_owner_with_fewer_active_tasks_is_first() -> None:
    found = queue(("a", 0, SMALL), ("b", 1, SMALL)).next([0, 0, 1, 2, 2, 2], lambda demand: None)
    assert found is not None
    assert found[0].id == "b"


@pytest.mark.parametrize("denial", [Denial("full"), Denial("too large", "itself for ever"), None])
def test_the_next_one_comes_with_why_it_may_not_start(denial: Denial | None) -> None:
    found = queue(("b", 0, LARGE), ("a", 0, SMALL)).next([], lambda demand: denial)
    assert found == (Waiting("a", 0, SMALL), denial)


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
