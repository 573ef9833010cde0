"""What to do next for a task: from facts, and from what is seen of the step whose turn it is (pure).

A place looks at the step that is due and says what it sees. The answer is actions, to be done in order. Nothing here
depends on how a place came to be where it is, so a crash between any two actions, a missed event and a repeated one
change nothing: the place looks again, and the same rule answers.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import replace

from tesk.layout import Found
from tesk.life import log
from tesk.life.facts import Facts, TaskStep
from tesk.life.outcome import TERMINATED, fails, left_s
from tesk.life.transfer import Transfer
from tesk.tes import ExecutorLog, State, Task

MOST_REPLACEMENTS: Final = 3
F = TypeVar("F", bound=Facts)


class Policy(Struct, frozen=True):
    """What the operator and the task's resources have settled."""

    has_inputs: bool = True
    """There is a step "inputs"."""
    time_limit_s: float = 0.0
    """How long each executor may run; 0 for ever."""
    memory_limit_mib: float = 0.0
    """The limit of each executor; 0 without one."""
    log_bytes: int = 0
    """How many bytes of output are kept of the task."""
    may_retry: bool = False
    """After the loss of this attempt there may be another."""


class Absent(Struct, frozen=True):
    """Nothing of the step has begun, for certain. `is_asked`: it is on record that the step is about to be started."""

    is_asked: bool = False


class Starting(Struct, frozen=True):
    """The step has been started; its program has not."""


class AtWork(Struct, frozen=True):
    """The step's program runs, since `at` as far as that is known. `is_stopping`: it has been told to end."""

    at: str = ""
    is_stopping: bool = False


class ExecutorEnded(Struct, frozen=True):
    """An executor has come to its end. `lingers`: the name of what does not end with it."""

    entry: ExecutorLog
    out_of_memory: bool = False
    lacks_workdir: bool = False
    """Its program never ran, since its working directory is missing."""
    notes: tuple[str, ...] = ()
    lingers: str = ""


class FilerEnded(Struct, frozen=True):
    """A filer has come to its end."""

    transfer: Transfer
    notes: tuple[str, ...] = ()
    lingers: str = ""


class Gone(Struct, frozen=True):
    """The step was started and is lost; its program may have run."""

    why: str


class Hopeless(Struct, frozen=True):
    """The step will never run."""

    why: str


class NeverBegun(Struct, frozen=True):
    """The step was started and its program was never begun, for a fault that passes. `otherwise`: what that comes to
    where the step has been replaced too often."""

    why: str
    otherwise: Gone | Hopeless


Seen = Absent | Starting | AtWork | ExecutorEnded | FilerEnded | Gone | Hopeless | NeverBegun


class Learn(Struct, frozen=True):
    """From now on these are the facts. They may be lost in a crash until they are saved."""

    facts: Facts


class Save(Struct, frozen=True):
    """Makes the facts durable."""


class Ask(Struct, frozen=True):
    """Puts durably on record, with all facts, that the step is about to be started."""

    step: TaskStep


class Start(Struct, frozen=True):
    """Starts the step. It is on record."""

    step: TaskStep


class SetState(Struct, frozen=True):
    """Users see this state, unless a later one has been reached."""

    state: State


class Stop(Struct, frozen=True):
    """Tells the program of the step to end."""

    step: TaskStep


class Replace(Struct, frozen=True):
    """Removes what was seen of the step, so that it is absent."""

    step: TaskStep


class Remove(Struct, frozen=True):
    """Removes by name what has done its part."""

    names: tuple[str, ...]


class Retry(Struct, frozen=True):
    """Ends this attempt, removes all that it made, and begins another with no facts."""

    why: str


class Finish(Struct, frozen=True):
    """Puts the task's end durably on record, with all facts; `reason` says why where that is a system error."""

    state: State
    reason: str = ""


Action = Learn | Save | Ask | Start | SetState | Stop | Replace | Remove | Retry | Finish


def due(task: Task, facts: Facts, policy: Policy) -> TaskStep | Sequence[Action]:
    """The step whose turn it is: inputs, executors in order until one fails, outputs also then. Or what to do without
    looking at any."""
    if facts.to_delete:
        return [Save(), Remove(tuple(facts.to_delete)), Learn(replace(facts, to_delete=[]))]
    if policy.has_inputs and not facts.staged:
        return TaskStep("inputs")
    ended = len(facts.log.logs)
    failed = has_failed(task, facts)
    if not failed and ended < len(task.executors):
        return TaskStep("executor", ended)
    if task.outputs and not facts.pushed:
        return TaskStep("outputs")
    return [Finish(State.EXECUTOR_ERROR if failed else State.COMPLETE)]


def has_failed(task: Task, facts: Facts) -> bool:
    """True when an executor has failed and its error was not to be ignored. It is the last that ran."""
    return bool(facts.log.logs) and fails(task, facts, len(facts.log.logs) - 1)


def next_actions(task: Task, facts: Facts, seen: Seen, now: datetime, policy: Policy) -> Sequence[Action]:
    """What to do, given what is seen of the step that is due; nothing: look again when something has changed."""
    step = due(task, facts, policy)
    if not isinstance(step, TaskStep):
        return step
    rule: Callable[..., Sequence[Action]] = RULES[type(seen)]
    return rule(seen, step, task, facts, policy, now)


def _start(seen: Absent, step: TaskStep, *_: Any) -> Sequence[Action]:
    return [Start(step)] if seen.is_asked else [Ask(step), Start(step)]


def _wait(*_: Any) -> Sequence[Action]:
    return []


def _watch(seen: AtWork, step: TaskStep, task: Task, facts: Facts, policy: Policy, now: datetime) -> Sequence[Action]:
    """Takes note of an executor's start, and stops it at its time limit: also where an earlier life had only come to
    put that on record."""
    if step.role != "executor":
        return []
    actions: list[Action] = []
    if seen.at and facts.started is UNSET:
        facts = replace(facts, started=seen.at)
        actions += [Learn(facts), SetState(State.RUNNING), Save()]
    if step.n not in facts.timed_out:
        left = left_s(facts, policy.time_limit_s, now)
        if left is None or left > 0:
            return actions
        line = log.timed_out(step.n, task.executors[step.n].image, policy.time_limit_s)
        facts = replace(facts, timed_out=[*facts.timed_out, step.n], log=log.noted(facts.log, line))
        actions += [Learn(facts), Save()]
    return actions if seen.is_stopping else [*actions, Stop(step)]


def _end(
    seen: ExecutorEnded, step: TaskStep, task: Task, facts: Facts, policy: Policy, _: datetime
) -> Sequence[Action]:
    """Adds the entry of an executor that has ended."""
    n, image = step.n, task.executors[step.n].image
    if seen.lacks_workdir and n not in facts.own_workdir:
        return [Learn(replace(facts, own_workdir=[*facts.own_workdir, n])), Save(), Replace(step)]
    notes = list(seen.notes)
    if seen.out_of_memory:
        notes.insert(0, log.out_of_memory(n, image, seen.entry.exit_code, policy.memory_limit_mib))
    code = seen.entry.exit_code or (TERMINATED if n in facts.timed_out else 0)
    known = log.with_entry(log.noted(facts.log, *notes), replace(seen.entry, exit_code=code), policy.log_bytes)
    facts = _with_lingering(replace(facts, log=known, started=UNSET), seen.lingers)
    if code:
        line = log.exit_code(n, image, code, is_ignored=not fails(task, facts, n))
        facts = replace(facts, log=log.noted(facts.log, line))
    return [Learn(facts)]


def _take(seen: FilerEnded, step: TaskStep, task: Task, facts: Facts, *_: Any) -> Sequence[Action]:
    """Takes in what a filer has said. Outputs are pushed after a failed executor too, whose error stays the task's."""
    moved, failure = seen.transfer, seen.transfer.verdict
    known = log.noted(facts.log, *moved.notes(), *seen.notes)
    if step.role == "outputs":
        known = replace(known, outputs=moved.outputs)
    if failure and not has_failed(task, facts):
        return [Learn(replace(facts, log=known)), Finish(State.SYSTEM_ERROR, failure)]
    if failure:
        known = log.noted(known, f"error: {failure}")
    facts = _with_lingering(replace(facts, log=known), seen.lingers)
    if step.role == "outputs":
        return [Learn(replace(facts, pushed=True))]
    occupied = facts.found.occupied if moved.occupied is None else moved.occupied
    return [Learn(replace(facts, staged=True, found=Found(occupied, [*facts.found.alone, *moved.alone])))]


def _give_up_or_retry(seen: Gone, step: TaskStep, task: Task, facts: Facts, policy: Policy, _: Any) -> Sequence[Action]:
    return [Retry(seen.why)] if policy.may_retry else [Finish(State.SYSTEM_ERROR, seen.why)]


def _give_up(seen: Hopeless, *_: Any) -> Sequence[Action]:
    return [Finish(State.SYSTEM_ERROR, seen.why)]


def _replace(
    seen: NeverBegun, step: TaskStep, task: Task, facts: Facts, policy: Policy, now: datetime
) -> Sequence[Action]:
    """Makes the step again: nothing of it has run."""
    count = facts.replacements.get(step.name, 0)
    if count == MOST_REPLACEMENTS:
        return next_actions(task, facts, seen.otherwise, now, policy)
    known = log.noted(facts.log, log.replaced(step.name, seen.why))
    facts = replace(facts, log=known, replacements={**facts.replacements, step.name: count + 1})
    return [Learn(facts), Save(), Replace(step)]


def _with_lingering(facts: F, name: str) -> F:
    if not name or name in facts.to_delete:
        return facts
    return replace(facts, to_delete=[*facts.to_delete, name])


RULES: Final[dict[type[Any], Callable[..., Sequence[Action]]]] = {
    Absent: _start,
    Starting: _wait,
    AtWork: _watch,
    ExecutorEnded: _end,
    FilerEnded: _take,
    Gone: _give_up_or_retry,
    Hopeless: _give_up,
    NeverBegun: _replace,
}
