"""How many tasks are given to a cluster at once."""

import itertools

from tesk.places.kubernetes.window import LATE_END_S, LATE_S, LEAST, NODE_S, QUICK_S, Window


def filled(moment: float = 0.0) -> Window:
    window = Window()
    for n in range(LEAST):
        assert window.room(moment) == LEAST - n
        window.starts(str(n), moment)
    return window


def test_some_may_start_at_once_whatever_is_known_of_the_cluster() -> None:
    assert filled().room(0) == 0


def test_a_task_keeps_its_place_until_it_begins_and_again_while_it_is_cleaned_up() -> None:
    window = filled()
    window.begins("0")
    assert window.room(1) == 1
    window.ends("0", 1)
    assert window.room(1) == 0
    window.leaves("0")
    assert window.room(1) == 1


def test_a_task_that_is_cleaned_up_before_it_begins_has_one_place() -> None:
    window = filled()
    window.ends("0", 1)
    assert window.room(1) == 0
    window.leaves("0")
    assert window.room(1) == 1


def test_a_cluster_that_starts_taskmasters_quickly_is_given_more_whatever_its_executors_wait_for() -> None:
    window = Window()
    given = []
    for second in range(12):
        started = [f"{second}-{n}" for n in range(window.room(second))]
        for task_id in started:
            window.starts(task_id, second)
        for task_id in started:
            window.has_taskmaster(task_id, "node", second + QUICK_S / 2)
            window.has_taskmaster(task_id, "node", second + QUICK_S / 2)
        for task_id in started:
            window.begins(task_id)
        given.append(len(started))
    assert given[0] == LEAST
    assert all(later > earlier for earlier, later in itertools.pairwise(given))
    assert given[-1] > 10 * LEAST


def test_a_cluster_that_has_little_to_do_is_not_given_ever_more_for_it() -> None:
    window = Window()
    for second in range(1000):
        window.starts(str(second), second)
        window.has_taskmaster(str(second), "node", second + QUICK_S / 2)
        window.begins(str(second))
    assert window.room(1000) == LEAST


def test_a_cluster_that_starts_them_slowly_is_given_few() -> None:
    window = filled()
    for n in range(LEAST):
        window.has_taskmaster(str(n), "node", QUICK_S)
    assert window.room(QUICK_S) == 0
    for n in range(LEAST):
        window.begins(str(n))
    assert window.room(QUICK_S) == LEAST


def test_each_node_is_given_some_as_long_as_it_starts_any() -> None:
    window = filled()
    for n in range(LEAST):
        window.has_taskmaster(str(n), f"node-{n % 3}", 2 * QUICK_S)
    assert window.room(2 * QUICK_S) == 2 * LEAST
    assert window.room(2 * QUICK_S + NODE_S) == LEAST


def test_what_waits_for_something_else_keeps_no_other_back() -> None:
    window = filled()
    window.leaves("0")
    assert window.room(0) == 1
    assert window.room(LATE_S) == LEAST
    for n in range(LEAST):
        window.ends(str(n), LATE_S)
    assert window.room(LATE_S) == 0
    assert window.room(LATE_S + LATE_END_S) == LEAST


def test_what_was_not_started_here_changes_nothing() -> None:
    window = filled()
    window.begins("another")
    window.has_taskmaster("another", "node", 0)
    window.leaves("another")
    assert window.room(0) == 0
