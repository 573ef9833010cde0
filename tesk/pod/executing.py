"""One executor in the pod of a whole task, as its runner sees it: from its turn to its end."""

import time
from typing import Final

from tesk.clock import now
from tesk.kubernetes.output import executor_line
from tesk.life.facts import TaskStep
from tesk.life.steps import Absent, AtWork, ExecutorEnded, Hopeless, Seen, Starting
from tesk.pod.control import ProgramEnd
from tesk.pod.following import LAST_LOOK_S, LOOK_S, OutputFollower
from tesk.pod.turns import Turn
from tesk.tes import Executor, ExecutorLog

TERM_WITHIN_S: Final = 15.0
"""A program that somebody else has told to end does so with its pod, unless its runner is not told within this time."""
KILLED_WITHIN_S: Final = 1.0
"""The same of a container that somebody else has killed."""
WORDS: Final = 500
"""Characters of what a shim says that become part of a reason."""
NEVER: Final = float("inf")


class ExecutorStep:
    """The executor whose turn it is. `grace_s`: from the TERM to the KILL, where it is to be stopped."""

    readable = None

    def __init__(self, step: TaskStep, executor: Executor, turn: Turn, output: OutputFollower, grace_s: float) -> None:
        self.step = step
        self.is_stopping = self.has_ended = self._is_ending = False
        self._executor, self._turn, self._output, self._grace_s = executor, turn, output, grace_s
        self._ended = ""
        self._follow_at = self._kill_at = self._give_up_at = NEVER
        self._has_been_at_work = False

    @property
    def broken(self) -> list[int | None]:
        """What breaks at the executor's end."""
        return [self._turn.pipe]

    @property
    def look_s(self) -> float | None:
        """How long nothing may change before it is time to look again; None: for ever."""
        if not self._turn.started and self._turn.end is None:
            return LOOK_S  # where no changes of folders are told, as by some runtimes
        first = min(self._follow_at, self._kill_at, self._give_up_at)
        return None if first == NEVER else max(0.0, first - time.monotonic())

    def start(self) -> None:
        """Gives it its turn."""
        print(executor_line(self.step.n), flush=True)
        self._turn.give()

    def stop(self) -> None:
        """Tells its program to end. What does not is killed."""
        self.is_stopping = True
        self._turn.terminate()
        self._kill_at = time.monotonic() + self._grace_s

    def end(self) -> None:
        """The pod is about to end, and the program is told so by others."""
        self._is_ending = True
        self.has_ended = self.has_ended or not self._turn.started

    def see(self) -> Seen:
        """What is seen of it now."""
        self._turn.look()
        if not self._turn.is_given:
            return Absent(is_asked=True)
        if self._turn.end is not None and (self._has_been_at_work or not self._turn.started):
            return self._see_end(self._turn.end)
        if not self._turn.started:
            return Starting()
        self._has_been_at_work = True
        self._do_what_is_due(time.monotonic())
        return AtWork(self._turn.started, self.is_stopping)

    def _do_what_is_due(self, moment: float) -> None:
        if self._follow_at == NEVER or moment >= self._follow_at:
            self._output.follow()
            self._follow_at = moment + (LAST_LOOK_S if self._is_ending else LOOK_S)
        if moment >= self._kill_at:
            self._turn.kill()
            self._kill_at = NEVER

    def _see_end(self, end: ProgramEnd) -> Seen:
        if not self._ended:
            self._ended = now()
            self._output.follow(whole=True)
            self.has_ended = True
            self._follow_at = self._kill_at = NEVER
            self._give_up_at = time.monotonic() + self._may_be_pods_s(end)
        if time.monotonic() < self._give_up_at:
            return Starting()
        n, executor = self.step.n, self._executor
        if end.problem:
            return Hopeless(f"executor {n} ({executor.image}): {self._why_hopeless(end.problem)}")
        started = self._turn.started or self._ended
        entry = ExecutorLog(end.exit_code, started, self._ended, **self._output.tails())
        killed = f"executor {n} ({executor.image}): it was killed with its whole container"
        return ExecutorEnded(entry, end.out_of_memory, notes=(killed,) if end.is_untold else ())

    def _why_hopeless(self, problem: str) -> str:
        """Why the image's user cannot run the program, which began before anybody could look at the image."""
        if problem == "workdir":
            return (
                f"the image lacks its working directory {self._executor.workdir}, and its user cannot make it; name it "
                "as a volume of the task, or run the task in mode taskmaster"
            )
        said = str(self._output.tails()["stderr"]).strip().splitlines()
        return (
            "its files could not be copied into its container, where the image's user may not write"
            f"{': ' + said[-1][:WORDS] if said else ''}; use paths below /tmp or /mnt, name their directories as "
            "volumes of the task, or run the task in mode taskmaster"
        )

    def _may_be_pods_s(self, end: ProgramEnd) -> float:
        """For so long the end may turn out to be that of the whole pod, which is no end of the task."""
        if self.is_stopping:
            return 0.0
        return TERM_WITHIN_S if end.terminated else KILLED_WITHIN_S if end.is_untold else 0.0
