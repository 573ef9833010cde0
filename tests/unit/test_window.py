"""How many tasks are given to a cluster at once."""

import itertools

from tesk.engines.kubernetes.window import LATE_S, LEAST, LOOK_BACK_S, QUICK_S, Window


def filled(moment: float = 0.0) -> Window:
    window = Window()
    for n in range(LEAST):
        assert window.room(moment) == LEAST - n
        window.starts(str(n), moment)
    return window


def test_some_may_start_at_once_whatever_is_known_of_the_cluster() -> None:
    assert filled().room(0) == 0


def test_a_task_that_begins_makes_room_for_two_for_a_while() -> None:
    window = filled()
    window.begins("0", 1)
    assert window.room(1) == 2
    assert window.room(1 + LOOK_BACK_S) == 2
    assert window.room(1.1 + LOOK_BACK_S) == 1


def test_a_cluster_that_starts_taskmasters_quickly_is_given_more_each_second_whatever_its_executors_wait_for() -> None:
    window = Window()
    given = []
    for second in range(6):
        started = [f"{second}-{n}" for n in range(window.room(second))]
        for task_id in started:
            window.starts(task_id, second)
            window.has_taskmaster(task_id, second + QUICK_S / 2)
            window.has_taskmaster(task_id, second + QUICK_S / 2)
        given.append(len(started))
    assert given[0] == LEAST
    assert all(later >= earlier for earlier, later in itertools.pairwise(given))
    assert sum(given) == 6 * LEAST


def test_a_cluster_that_starts_them_slowly_is_given_few() -> None:
    window = filled()
    for n in range(LEAST):
        window.has_taskmaster(str(n), QUICK_S)
    assert window.room(QUICK_S) == 0
    for n in range(LEAST):
        window.begins(str(n), QUICK_S)
    assert window.room(QUICK_S + LOOK_BACK_S + 1) == LEAST


def test_what_waits_for_something_else_keeps_no_other_back() -> None:
    window = filled()
    window.leaves("0")
    assert window.room(0) == 1
    assert window.room(LATE_S) == LEAST


def test_a_task_begins_once() -> None:
    window = filled()
    window.begins("0", 0)
    window.begins("0", 0)
    window.begins("another", 0)
    window.has_taskmaster("another", 0)
    assert window.room(0) == 2
