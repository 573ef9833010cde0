"""The life of a task as rules: tables of what follows from what, and whole lives that are cut off at any action.

Every life here is run by `Place`, which has of the world what all places have in common: what is asked for, started,
running, over and gone; and two memories, of which a crash leaves only the saved one.
"""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec import UNSET

from tesk.layout import Found
from tesk.life.facts import Facts, TaskStep
from tesk.life.log import CANCELED, cancelled, running
from tesk.life.outcome import KILLED, TERMINATED
from tesk.life.steps import (
    MOST_REPLACEMENTS,
    Absent,
    Action,
    Ask,
    AtWork,
    ExecutorEnded,
    FilerEnded,
    Finish,
    Gone,
    Hopeless,
    Learn,
    NeverBegun,
    Policy,
    Remove,
    Replace,
    Retry,
    Save,
    Seen,
    SetState,
    Start,
    Starting,
    Stop,
    due,
    has_failed,
    next_actions,
)
from tesk.life.transfer import Transfer
from tesk.tes import Executor, ExecutorLog, Input, Output, OutputFileLog, State, Task, TaskLog

AT = datetime(2026, 1, 1, tzinfo=UTC)
BEGAN = AT.isoformat()
LIMIT_S = 60.0
POLICY = Policy(time_limit_s=LIMIT_S, log_bytes=1000)
RETRY = Policy(time_limit_s=LIMIT_S, log_bytes=1000, may_retry=True)
INPUTS, FIRST, SECOND, OUTPUTS = (
    TaskStep("inputs"),
    TaskStep("executor", 0),
    TaskStep("executor", 1),
    TaskStep("outputs"),
)
COMPLETE, ERROR = Finish(State.COMPLETE), Finish(State.EXECUTOR_ERROR)
IN, OUT = [Input("/in", url="file:///in")], [Output("/out", "file:///out")]


def task(*ignored: bool, outputs: bool = True) -> Task:
    executors = [Executor("image", ["true"], ignore_error=each) for each in ignored or (False, False)]
    return Task(executors, inputs=IN, outputs=OUT if outputs else None)


def facts(*codes: int, **more: Any) -> Facts:
    more.setdefault("staged", True)
    return Facts(TaskLog(logs=[ExecutorLog(code) for code in codes]), **more)


def noted(found: Facts) -> list[str]:
    return [] if found.log.system_logs is UNSET else found.log.system_logs


@pytest.mark.parametrize(
    ("task", "facts", "is_due"),
    [
        (task(), facts(staged=False), INPUTS),
        (task(), facts(), FIRST),
        (task(), facts(0), SECOND),
        (task(), facts(0, 0), OUTPUTS),
        (task(), facts(0, 0, pushed=True), [COMPLETE]),
        (task(outputs=False), facts(0, 0), [COMPLETE]),
        (task(), facts(1), OUTPUTS),
        (task(), facts(1, pushed=True), [ERROR]),
        (task(outputs=False), facts(0, 1), [ERROR]),
        (task(True, False), facts(1), SECOND),
        (task(True, True), facts(1, 1), OUTPUTS),
        (task(True, True, outputs=False), facts(1, 1), [COMPLETE]),
        (task(True, False), facts(TERMINATED, timed_out=[0]), OUTPUTS),  # a time limit is never ignored
        (task(), facts(0, to_delete=["p"]), [Save(), Remove(("p",)), Learn(facts(0))]),
    ],
)
def test_executors_follow_inputs_in_order_and_outputs_follow_also_a_failure(
    task: Task, facts: Facts, is_due: TaskStep | list[Action]
) -> None:
    assert due(task, facts, POLICY) == is_due


def test_without_anything_to_put_on_a_volume_there_is_no_step_for_it() -> None:
    assert due(task(), facts(staged=False), Policy(has_inputs=False)) == FIRST


def late(seconds: float = 0.0) -> datetime:
    return AT + timedelta(seconds=LIMIT_S + seconds)


ENTRY = ExecutorLog(0, BEGAN, BEGAN, "out", "err")
LIMIT_NOTE = "executor 0 (image): ended after its time limit of 60 s"


@pytest.mark.parametrize(
    ("facts", "seen", "now", "policy", "actions"),
    [
        (facts(), Absent(), AT, POLICY, [Ask(FIRST), Start(FIRST)]),
        (facts(), Absent(is_asked=True), AT, POLICY, [Start(FIRST)]),
        (facts(), Starting(), AT, POLICY, []),
        (facts(staged=False), AtWork(), late(), POLICY, []),  # a filer has no time limit
        (facts(), AtWork(BEGAN), AT, POLICY, [Learn(facts(started=BEGAN)), SetState(State.RUNNING), Save()]),
        (facts(started=BEGAN), AtWork(), late(-1), POLICY, []),
        (facts(started=BEGAN), AtWork(), late(9), Policy(), []),
        (facts(started=BEGAN, timed_out=[0]), AtWork(), AT, POLICY, [Stop(FIRST)]),
        (facts(started=BEGAN, timed_out=[0]), AtWork(is_stopping=True), late(), POLICY, []),
        (facts(), Gone("lost"), AT, POLICY, [Finish(State.SYSTEM_ERROR, "lost")]),
        (facts(), Gone("lost"), AT, RETRY, [Retry("lost")]),
        (facts(), Hopeless("no"), AT, RETRY, [Finish(State.SYSTEM_ERROR, "no")]),
        (facts(replacements={"executor 0": 3}), NeverBegun("node", Gone("lost")), AT, RETRY, [Retry("lost")]),
        (facts(replacements={"executor 0": 3}), NeverBegun("node", Hopeless("no")), AT, RETRY,
         [Finish(State.SYSTEM_ERROR, "no")]),
        (facts(), ExecutorEnded(ENTRY, lacks_workdir=True), AT, POLICY,
         [Learn(facts(own_workdir=[0])), Save(), Replace(FIRST)]),
    ],
)  # fmt: skip
def test_what_is_seen_says_what_to_do(
    facts: Facts, seen: Seen, now: datetime, policy: Policy, actions: list[Action]
) -> None:
    assert list(next_actions(task(), facts, seen, now, policy)) == actions


def test_a_time_limit_is_on_record_before_the_program_is_stopped() -> None:
    learn, save, stop = next_actions(task(), facts(started=BEGAN), AtWork(), late(), POLICY)
    assert isinstance(learn, Learn)
    assert (learn.facts.timed_out, noted(learn.facts)) == ([0], [LIMIT_NOTE])
    assert (save, stop) == (Save(), Stop(FIRST))


def test_a_program_that_was_never_begun_is_begun_again_and_that_is_told() -> None:
    learn, *rest = next_actions(task(), facts(), NeverBegun("node", Gone("lost")), AT, POLICY)
    assert isinstance(learn, Learn)
    assert learn.facts.replacements == {"executor 0": 1}
    assert noted(learn.facts) == ["warning: executor 0: it could not be started: node; trying again"]
    assert rest == [Save(), Replace(FIRST)]


@pytest.mark.parametrize(
    ("executor", "before", "seen", "code", "notes"),
    [
        (False, {}, ExecutorEnded(ENTRY), 0, []),
        (False, {}, ExecutorEnded(ExecutorLog(3)), 3, ["executor 0 (image): exit code 3"]),
        (True, {}, ExecutorEnded(ExecutorLog(3)), 3, ["executor 0 (image): exit code 3, ignored"]),
        (False, {}, ExecutorEnded(ExecutorLog(3), notes=("x\ny",)), 3, ["x y", "executor 0 (image): exit code 3"]),
        (False, {}, ExecutorEnded(ExecutorLog(KILLED), out_of_memory=True), KILLED,
         ["executor 0 (image): out of memory", "executor 0 (image): exit code 137"]),
        (False, {}, ExecutorEnded(ENTRY, out_of_memory=True), 0,
         ["warning: executor 0 (image): a process that its program had started was killed: out of memory"]),
        (True, {"timed_out": [0]}, ExecutorEnded(ENTRY), TERMINATED, ["executor 0 (image): exit code 143"]),
        (False, {"own_workdir": [0]}, ExecutorEnded(ExecutorLog(1), lacks_workdir=True), 1,
         ["executor 0 (image): exit code 1"]),
    ],
)  # fmt: skip
def test_an_executor_leaves_an_entry_and_says_what_came_of_it(
    executor: bool, before: dict[str, Any], seen: Seen, code: int, notes: list[str]
) -> None:
    (learn,) = next_actions(task(executor, False), facts(started=BEGAN, **before), seen, AT, POLICY)
    assert isinstance(learn, Learn)
    assert [entry.exit_code for entry in learn.facts.log.logs] == [code]
    assert learn.facts.started is UNSET
    assert noted(learn.facts) == notes


PUSHED = [OutputFileLog("file:///out", "/out", "1")]
DONE = Transfer(outputs=PUSHED, pushed=1, is_done=True)
BROKEN = Transfer(outputs=PUSHED, pushed=1, failure="full", warnings=["w"], warned=1)


@pytest.mark.parametrize(
    ("codes", "seen", "notes", "end"),
    [
        ((0, 0), FilerEnded(DONE), [], State.COMPLETE),
        ((0, 1), FilerEnded(DONE), [], State.EXECUTOR_ERROR),
        ((0, 0), FilerEnded(BROKEN), ["warning: w"], Finish(State.SYSTEM_ERROR, "full")),
        ((0, 1), FilerEnded(BROKEN, notes=("cut",)), ["warning: w", "cut", "error: full"], State.EXECUTOR_ERROR),
    ],
)
def test_outputs_are_shown_and_their_failure_is_the_tasks_unless_an_executor_failed(
    codes: tuple[int, ...], seen: Seen, notes: list[str], end: State | Finish
) -> None:
    learn, *rest = next_actions(task(), facts(*codes), seen, AT, POLICY)
    assert isinstance(learn, Learn)
    assert (learn.facts.log.outputs, noted(learn.facts)) == (PUSHED, notes)
    assert (rest or due(task(), learn.facts, POLICY)) == ([end] if isinstance(end, Finish) else [Finish(end)])


def test_what_the_inputs_have_shown_is_learnt_with_them() -> None:
    seen = FilerEnded(Transfer(is_done=True, occupied={"/a": True}, alone=["/b"], warnings=["w"], warned=1))
    (learn,) = next_actions(task(), facts(staged=False), seen, AT, POLICY)
    assert isinstance(learn, Learn)
    assert (learn.facts.staged, learn.facts.found, noted(learn.facts)) == (
        True,
        Found({"/a": True}, ["/b"]),
        ["warning: w"],
    )


def test_inputs_that_fail_end_the_task() -> None:
    _, end = next_actions(task(), facts(staged=False), FilerEnded(BROKEN), AT, RETRY)
    assert end == Finish(State.SYSTEM_ERROR, "full")


def test_a_cancelled_log_ends_the_entry_of_what_ran() -> None:
    log = cancelled(running(TaskLog(logs=[ENTRY]), BEGAN, "so far", ""))
    assert [entry.exit_code for entry in log.logs] == [0, TERMINATED]
    assert log.logs[1].end_time == log.end_time
    assert log.system_logs == [CANCELED]


class Program:
    """What runs in a container or pod: it starts, runs and ends with `code`, or is lost; each as fate will have it."""

    def __init__(self, step: TaskStep, code: int) -> None:
        self.step, self.code = step, code
        self.phase = "starting"
        self.is_stopped = False


class Place:
    """A place whose process may crash before any action, and whose containers may be lost at any time."""

    def __init__(self, task: Task, codes: list[int], retries: int) -> None:
        self.task, self.codes, self.retries = task, codes, retries
        self.attempts = 1
        self.facts = Facts(TaskLog())
        self.asked: set[tuple[int, str, int]] = set()
        self.saved = deepcopy((self.facts, self.asked))
        self.made: dict[tuple[int, str, int], Program] = {}
        self.begun: list[tuple[int, TaskStep]] = []
        self.stopping: set[tuple[int, str, int]] = set()
        self.now = AT
        self.end: Finish | None = None

    @property
    def policy(self) -> Policy:
        return Policy(time_limit_s=LIMIT_S, log_bytes=1000, may_retry=self.attempts <= self.retries)

    def key(self, step: TaskStep) -> tuple[int, str, int]:
        start = self.facts.replacements.get(step.name, 0) + (
            step.role == "executor" and step.n in self.facts.own_workdir
        )
        return self.attempts, step.name, start

    def see(self, step: TaskStep) -> Seen:
        key = self.key(step)
        program = self.made.get(key)
        if program is None:
            return Absent(key in self.asked)
        if program.phase == "lost":
            return Gone(f"{step.name} is gone")
        if program.phase == "never begun":
            return NeverBegun("node", Hopeless("never"))
        if program.phase == "running":
            return AtWork(self.now.isoformat(), key in self.stopping)
        if program.phase == "starting":
            return Starting()
        if step.role != "executor":
            return FilerEnded(Transfer(is_done=not program.code, failure="full"))
        if program.phase == "no workdir":
            return ExecutorEnded(ExecutorLog(1), lacks_workdir=True)
        return ExecutorEnded(ExecutorLog(program.code), lingers=f"{step.name} lingers" if program.code else "")

    def perform(self, action: Action) -> None:
        if isinstance(action, Learn):
            self.facts = action.facts
        elif isinstance(action, Save):
            self.save()
        elif isinstance(action, Ask):
            self.asked.add(self.key(action.step))
            self.save()
        elif isinstance(action, Start):
            self.start(action.step)
        elif isinstance(action, Stop):
            assert action.step.n in self.saved[0].timed_out, "stopped before that was on record"
            self.stopping.add(self.key(action.step))
            self.made[self.key(action.step)].is_stopped = True
        elif isinstance(action, Remove):
            assert set(action.names) <= set(self.saved[0].to_delete), "removed before that was on record"
        elif isinstance(action, Retry):
            self.attempts += 1
            self.facts = Facts(TaskLog())
            self.save()
        elif isinstance(action, Finish):
            self.end = action
            self.save()

    def save(self) -> None:
        self.saved = deepcopy((self.facts, self.asked))

    def start(self, step: TaskStep) -> None:
        """Starts a program: only one that is on record, with all that came before it; never the same twice."""
        key = self.key(step)
        saved, asked = self.saved
        assert key in asked, f"{step} was started before that was on record"
        assert saved == self.facts, f"{step} was started with facts that a crash would lose"
        if key not in self.made:
            code = self.codes[step.n] if step.role == "executor" else 0
            self.made[key] = Program(step, code)

    def crash(self) -> None:
        """The process ends and another begins, with what was saved. What runs goes on."""
        self.facts, self.asked = deepcopy(self.saved)
        self.stopping.clear()

    def strike(self, fate: str) -> None:
        """Something happens to the newest program, or to the time."""
        self.now += timedelta(seconds=LIMIT_S * 2 if fate == "time" else 1)
        program = next(reversed(self.made.values()), None)
        if program is None or program.phase not in ("starting", "running"):
            return
        if fate == "no workdir" and (program.step.role != "executor" or program.step.n in self.facts.own_workdir):
            return
        if fate in ("goes on", "time") or (fate in ("never begun", "no workdir") and program.phase == "running"):
            if program.phase == "starting":
                program.phase = "running"
                self.begun.append((self.attempts, program.step))
            elif fate != "time":
                program.phase = "over"
        elif fate != "nothing":
            program.phase = fate

    def turn(self, crash_at: int) -> None:
        """Looks and acts once; a crash comes before that action, where there are so many."""
        step = due(self.task, self.facts, self.policy)
        seen = self.see(step) if isinstance(step, TaskStep) else Starting()
        for n, action in enumerate(next_actions(self.task, self.facts, seen, self.now, self.policy)):
            if n == crash_at:
                self.crash()
                return
            self.perform(action)


FATES = some.sampled_from(["goes on", "goes on", "goes on", "time", "lost", "never begun", "no workdir", "nothing"])


@settings(max_examples=300)
@given(
    executors=some.lists(some.tuples(some.booleans(), some.sampled_from([0, 0, 3])), min_size=1, max_size=4),
    events=some.lists(some.tuples(FATES, some.integers(0, 6)), min_size=10, max_size=60),
    retries=some.integers(0, 2),
    has_outputs=some.booleans(),
)
def test_whatever_strikes_a_life_it_comes_to_its_right_end_and_runs_nothing_twice(
    executors: list[tuple[bool, int]], events: list[tuple[str, int]], retries: int, has_outputs: bool
) -> None:
    place = Place(task(*(ignored for ignored, _ in executors), outputs=has_outputs), [c for _, c in executors], retries)
    for fate, crash_at in [*events, *[("goes on", 99)] * 200]:
        if place.end is None:
            place.strike(fate)
            place.turn(crash_at)
    assert place.end is not None
    assert len(place.begun) == len(set(place.begun)), "a step has run twice in one attempt"
    assert place.attempts <= retries + 1
    assert max(start for _, _, start in place.made) <= MOST_REPLACEMENTS + 1
    lost = [program for program in place.made.values() if program.phase == "lost"]
    replaced = [program for program in place.made.values() if program.phase == "never begun"]
    known, ran = (
        place.facts,
        [step.n for attempt, step in place.begun if attempt == place.attempts and step.role == "executor"],
    )
    if place.end.state is State.SYSTEM_ERROR:
        assert len(lost) == retries + 1 or len(replaced) > MOST_REPLACEMENTS
        return
    assert ran == list(range(len(known.log.logs)))
    wrong = [n for n in ran if (known.log.logs[n].exit_code and not executors[n][0]) or n in known.timed_out]
    assert (place.end.state is State.EXECUTOR_ERROR) == has_failed(place.task, known) == bool(wrong)
    assert wrong in ([], ran[-1:])
    assert bool(wrong) or len(ran) == len(executors)
    assert known.pushed == has_outputs
    assert not known.to_delete


@given(some.lists(some.tuples(FATES, some.integers(0, 6)), max_size=40), some.integers(0, 40))
def test_a_task_cancelled_at_any_moment_shows_what_ended_and_what_ran(events: list[tuple[str, int]], at: int) -> None:
    place = Place(task(), [0, 0], 1)
    for fate, crash_at in events[:at]:
        if place.end is None:
            place.strike(fate)
            place.turn(crash_at)
    known = place.saved[0]
    is_running = known.started is not UNSET and place.end is None
    log = running(known.log, str(known.started), "so far", "") if is_running else known.log
    shown = cancelled(log, has_ended=place.end is not None)
    assert [entry.exit_code for entry in shown.logs] == [e.exit_code for e in known.log.logs] + [
        TERMINATED
    ] * is_running
    assert noted(Facts(shown))[-1] == CANCELED
