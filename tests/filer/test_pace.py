"""How many transfers run at once, as a table of what was moved; and the pool that heeds it."""

import threading

import pytest

from tesk.filer.pace import Pace
from tesk.filer.pool import Job, Pool

MB = 1_000_000


def paced(most: int, *rates_mb_s: float) -> list[int]:
    """The limit after each second that moved so much."""
    pace = Pace(most, 0.0)
    moved, limits = 0.0, [pace.limit]
    for second, rate in enumerate(rates_mb_s, 1):
        moved += rate * MB
        pace.look(float(second), int(moved), 0)
        limits.append(pace.limit)
    return limits


@pytest.mark.parametrize(
    ("most", "rates", "limits"),
    [
        (8, (), [4]),
        (1, (10, 20), [1, 1, 1]),
        (8, (10, 20, 30), [4, 6, 8, 8]),  # more moves more
        (8, (10, 10, 10, 10), [4, 6, 6, 6, 6]),  # more moves no more
        (32, (10, 20, 20.5, 40), [16, 24, 32, 32, 32]),
    ],
)
def test_more_run_while_that_moves_more(most: int, rates: tuple[float, ...], limits: list[int]) -> None:
    assert paced(most, *rates) == limits


def test_small_files_count_by_their_number() -> None:
    pace = Pace(8, 0.0)
    for second, files in ((1.0, 100), (2.0, 250), (3.0, 500)):
        pace.look(second, files * 10, files)
    assert pace.limit == 8


def test_fewer_run_when_a_store_pushes_back_and_more_again_later() -> None:
    pace = Pace(8, 0.0)
    for _ in range(4):
        pace.pushed_back(1.0)  # eight at once say the same
    assert pace.limit == 2
    pace.look(5.0, 100 * MB, 0)
    assert pace.limit == 2
    pace.pushed_back(12.0)
    pace.pushed_back(30.0)
    assert pace.limit == 1
    pace.look(41.0, 200 * MB, 0)
    assert pace.limit == 2


def run(pool: Pool, jobs: list[Job]) -> None:
    pool.add(jobs)
    try:
        pool.run(threading.Event(), lambda _: False, lambda: None)
    finally:
        pool.close()


def test_no_more_jobs_run_than_allowed_and_added_ones_go_first() -> None:
    pool = Pool(2, threading.Event())
    lock, order, running, most = threading.Lock(), [], [0], [0]
    together = threading.Barrier(2)

    def job(name: str) -> None:
        with lock:
            order.append(name)
            running[0] += 1
            most[0] = max(most[0], running[0])
        if name == "first":
            pool.add([lambda: job("part")], first=True)
        if name in ("first", "second"):
            together.wait(300)
        with lock:
            running[0] -= 1

    run(pool, [lambda name=name: job(name) for name in ("first", "second", "third", "fourth")])  # type: ignore[misc]
    assert sorted(order) == ["first", "fourth", "part", "second", "third"]
    assert order.index("part") < order.index("fourth")
    assert most == [2]


def test_a_limit_that_grows_starts_more() -> None:
    pool = Pool(1, threading.Event())
    together = threading.Barrier(3)
    jobs: list[Job] = [lambda: pool.allow(3), *[lambda: together.wait(300) and None for _ in range(3)]]  # type: ignore[list-item]
    run(pool, jobs)


def test_the_first_failure_ends_a_pool() -> None:
    def fail() -> None:
        raise ValueError("no")

    pool = Pool(1, threading.Event())
    with pytest.raises(ValueError, match="no"):
        run(pool, [fail, fail])
