"""Waiting: which tasks are looked at, how often, and when it ends. The clock is an argument."""

import signal
from collections.abc import Iterator

import pytest

from tesk.cli.watch import LAST_PAUSE_S, state_of, wait
from tesk.tes import State


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def looks(*states: State) -> Iterator[State]:
    yield from states


def test_each_change_is_told_once_and_an_ended_task_is_left_alone() -> None:
    tasks = {
        "a": looks(State.QUEUED, State.RUNNING, State.RUNNING, State.COMPLETE),
        "b": looks(State.EXECUTOR_ERROR),
    }
    told: list[tuple[str, State]] = []
    clock = Clock()
    states = wait(
        ["a", "b"],
        lambda task: next(tasks[task]),
        lambda task, state: told.append((task, state)),
        sleep=clock.sleep,
        clock=lambda: clock.now,
    )
    assert states == {"a": State.COMPLETE, "b": State.EXECUTOR_ERROR}
    assert told == [
        ("a", State.QUEUED),
        ("b", State.EXECUTOR_ERROR),
        ("a", State.RUNNING),
        ("a", State.COMPLETE),
    ]


def test_the_pauses_grow_up_to_a_second() -> None:
    clock = Clock()
    states = looks(*[State.RUNNING] * 30, State.COMPLETE)
    wait(["a"], lambda _: next(states), lambda *_: None, sleep=clock.sleep, clock=lambda: clock.now)
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] < 0.1
    assert clock.pauses[-1] == LAST_PAUSE_S


def test_it_gives_up_at_its_time_limit_and_not_before() -> None:
    clock = Clock()
    with pytest.raises(TimeoutError, match="1 of 1 tasks still run after 5 s"):
        wait(
            ["a"],
            lambda _: State.RUNNING,
            lambda *_: None,
            timeout_s=5,
            sleep=clock.sleep,
            clock=lambda: clock.now,
        )
    assert clock.now == pytest.approx(5)


def test_a_state_of_a_later_version_is_not_an_end() -> None:
    assert state_of("HIBERNATING") is State.UNKNOWN
    assert not state_of(None).is_terminal


class Swallows:
    """Where Python ignores an exception, as that of a signal that comes just then."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_ends_the_waiting_all_the_same() -> None:
    before = signal.getsignal(signal.SIGINT)

    def look(_: str) -> State:
        Swallows()
        return State.RUNNING

    with pytest.raises(KeyboardInterrupt):
        wait(["a"], look, lambda *_: None, timeout_s=5)
    assert signal.getsignal(signal.SIGINT) is before
