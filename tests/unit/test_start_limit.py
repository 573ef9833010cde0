"""How many tasks are given to a cluster at once."""

import itertools

from tesk.places.kubernetes.start_limit import LATE_END_S, LATE_S, LEAST, NODE_S, QUICK_S, StartLimit


def filled(moment: float = 0.0) -> StartLimit:
    limit = StartLimit()
    for n in range(LEAST):
        assert limit.room(moment) == LEAST - n
        limit.starts(str(n), moment)
    return limit


def test_some_may_start_at_once_whatever_is_known_of_the_cluster() -> None:
    assert filled().room(0) == 0


def test_a_task_keeps_its_place_until_it_begins_and_again_while_it_is_cleaned_up() -> None:
    limit = filled()
    limit.begins("0")
    assert limit.room(1) == 1
    limit.ends("0", 1)
    assert limit.room(1) == 0
    limit.leaves("0")
    assert limit.room(1) == 1


def test_a_task_that_is_cleaned_up_before_it_begins_has_one_place() -> None:
    limit = filled()
    limit.ends("0", 1)
    assert limit.room(1) == 0
    limit.leaves("0")
    assert limit.room(1) == 1


def test_a_cluster_that_starts_taskmasters_quickly_is_given_more_whatever_its_executors_wait_for() -> None:
    limit = StartLimit()
    given = []
    for second in range(12):
        started = [f"{second}-{n}" for n in range(limit.room(second))]
        for task_id in started:
            limit.starts(task_id, second)
        for task_id in started:
            limit.has_taskmaster(task_id, "node", second + QUICK_S / 2)
            limit.has_taskmaster(task_id, "node", second + QUICK_S / 2)
        for task_id in started:
            limit.begins(task_id)
        given.append(len(started))
    assert given[0] == LEAST
    assert all(later > earlier for earlier, later in itertools.pairwise(given))
    assert given[-1] > 10 * LEAST


def test_a_cluster_that_has_little_to_do_is_not_given_ever_more_for_it() -> None:
    limit = StartLimit()
    for second in range(1000):
        limit.starts(str(second), second)
        limit.has_taskmaster(str(second), "node", second + QUICK_S / 2)
        limit.begins(str(second))
    assert limit.room(1000) == LEAST


def test_a_cluster_that_starts_them_slowly_is_given_few() -> None:
    limit = filled()
    for n in range(LEAST):
        limit.has_taskmaster(str(n), "node", QUICK_S)
    assert limit.room(QUICK_S) == 0
    for n in range(LEAST):
        limit.begins(str(n))
    assert limit.room(QUICK_S) == LEAST


def test_each_node_is_given_some_as_long_as_it_starts_any() -> None:
    limit = filled()
    for n in range(LEAST):
        limit.has_taskmaster(str(n), f"node-{n % 3}", 2 * QUICK_S)
    assert limit.room(2 * QUICK_S) == 2 * LEAST
    assert limit.room(2 * QUICK_S + NODE_S) == LEAST


def test_what_waits_for_something_else_keeps_no_other_back() -> None:
    limit = filled()
    limit.leaves("0")
    assert limit.room(0) == 1
    assert limit.room(LATE_S) == LEAST
    for n in range(LEAST):
        limit.ends(str(n), LATE_S)
    assert limit.room(LATE_S) == 0
    assert limit.room(LATE_S + LATE_END_S) == LEAST


def test_what_was_not_started_here_changes_nothing() -> None:
    limit = filled()
    limit.begins("another")
    limit.has_taskmaster("another", "node", 0)
    limit.leaves("another")
    assert limit.room(0) == 0
