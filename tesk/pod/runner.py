"""Runs a whole task in one pod: fetches its inputs, gives each executor its turn, pushes its outputs, tells the server.

It needs neither a server nor Kubernetes while it does so: what there is to know, it sees in folders that it shares with
the executors' containers. It starts only once, since its pod is never begun again, so its facts are in memory alone.
What is lost with the pod, the server begins anew.
"""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tesk.clock import steady
from tesk.kubernetes import document, manifests, names
from tesk.kubernetes.pod_layout import pod_layout
from tesk.kubernetes.policy import policy
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life import steps
from tesk.life.facts import TaskStep
from tesk.life.outcome import TERMINATED, left_s
from tesk.pod.child_filer import FilerStep
from tesk.pod.control import Watch
from tesk.pod.executing import ExecutorStep
from tesk.pod.following import LAST_LOOK_S, OutputFollower, streams
from tesk.pod.pod_record import PodRecord
from tesk.pod.readiness import Readiness
from tesk.pod.record_sender import RecordSender
from tesk.pod.turns import Turn
from tesk.tes import State, Task

if TYPE_CHECKING:
    from tesk.filer.plan import Plan

USAGE: Final = """\
usage: tesk runner [--task DIR] [--control DIR] [--scratch DIR] [--last-words FILE]

Runs a whole task in the pod that it runs in itself; nobody else starts it. TESK_POD: the pod's name. TESK_REPORT: where
the server listens ("host:port"), empty where pods cannot reach it.
"""
TOLD_WITHIN_S: Final = 10.0
"""How long a runner waits at its end until the server has been told."""
OPTIONS: Final = {"--task": "task", "--control": "control", "--scratch": "scratch", "--last-words": "last_words"}


class Folders(Struct, frozen=True):
    """What the runner's container has: the task's Secrets, all control folders, the scratch volume."""

    task: Path = Path(manifests.TASK_FOLDER)
    control: Path = Path(manifests.CONTROL)
    scratch: Path = Path(manifests.SCRATCH)
    last_words: Path = Path("/dev/termination-log")


class Runner:
    """The life of one task in its pod, on one thread."""

    def __init__(
        self, task: Task, cluster: TaskSettings, folders: Folders, readiness: Readiness, sender: RecordSender
    ) -> None:
        self._task, self._cluster, self._folders = task, cluster, folders
        self._readiness, self._sender = readiness, sender
        self._plan = pod_layout(task)
        self._record = PodRecord(sender, folders.last_words, len(task.executors) + 1)
        self._watch = Watch()
        self._turns = [
            Turn(n, folders.control / names.executor_container(n), self._watch) for n in range(len(task.executors))
        ]
        self._step: ExecutorStep | FilerStep | None = None
        self._now = steady()
        self._policy = policy(task, cluster, has_volume=not self._plan.is_empty)

    def run(self) -> int:
        """Takes the task to its end; the exit code, which says nothing of that. A pod that ends before is a loss that
        the server sees, and no end of the task."""
        try:
            self._look_at_all()
            while not self._record.state.is_terminal:
                if self._readiness.is_ending:
                    self._end_with_pod()
                    return TERMINATED
                self._go_on()
            self._wait_until_told()
            return 0
        finally:
            for turn in self._turns:
                turn.close()

    def _go_on(self) -> None:
        """Takes the task one action further, or waits for something to change."""
        try:
            seen: steps.Seen = steps.Starting()
            if isinstance(due := steps.due(self._task, self._record.facts, self._policy), TaskStep):
                seen = self._see(due)
            actions = steps.next_actions(self._task, self._record.facts, seen, self._now(), self._policy)
            for action in actions:
                self._perform(action)
            if not actions:
                self._record.publish()
                self._wait()
        except OSError as error:
            self._record.end(State.SYSTEM_ERROR, f"its pod failed the task: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the task has to be told
            sys.excepthook(type(error), error, error.__traceback__)
            self._record.end(State.SYSTEM_ERROR, f"internal error of the task's runner: {error!r}")

    def _see(self, due: TaskStep) -> steps.Seen:
        """What is seen of the step whose turn it is."""
        if self._step is None or self._step.step != due:
            self._step = self._executor(due) if due.role == "executor" else self._filer(due)
        seen = self._step.see()
        if isinstance(self._step, FilerStep):
            moved = self._step.transfer
            self._record.show_progress(moved.progress)
            if isinstance(seen, steps.FilerEnded):
                self._record.set_types(due.role, moved.types)
        return seen

    def _executor(self, due: TaskStep) -> ExecutorStep:
        executor, turn = self._task.executors[due.n], self._turns[due.n]
        scratch = None if self._plan.is_empty else self._folders.scratch
        where = streams(executor.stdout or "", executor.stderr or "", scratch, turn.folder)
        output = OutputFollower(where, self._cluster.log_tail_bytes, turn.folder)
        return ExecutorStep(due, executor, turn, output, self._cluster.grace_s)

    def _filer(self, due: TaskStep) -> FilerStep:
        return FilerStep(due, partial(self._transfer, due), empties=not manifests.is_on_node(self._task, self._cluster))

    def _transfer(self, due: TaskStep) -> "Plan":
        """What is to be moved. It is asked in the filer's process, which has the modules for it."""
        from tesk.pod.transfers import plan

        failed = steps.has_failed(self._task, self._record.facts)
        root = str(self._folders.scratch)
        return plan(self._task, self._cluster, due.role, self._plan, failed=failed, root=root, copies_all=True)

    def _perform(self, action: steps.Action) -> None:
        """Does what is to be done. What is learnt is told before the next wait."""
        match action:
            case steps.Learn(facts):
                self._record.learn(facts)
            case steps.SetState(state):
                self._record.set_state(state)
            case steps.Finish(state, reason):
                self._record.end(state, reason)
            case steps.Start() if isinstance(self._step, FilerStep):
                with self._sender.paused():
                    self._step.start()
            case steps.Start() if self._step is not None:
                self._step.start()
            case steps.Stop() if isinstance(self._step, ExecutorStep):
                self._step.stop()

    def _wait(self) -> None:
        """Until something has changed that the present step depends on."""
        assert self._step is not None
        waits = [self._step.look_s]
        if isinstance(self._step, ExecutorStep) and not self._step.is_stopping and not self._step.has_ended:
            waits.append(left_s(self._record.facts, self._policy.time_limit_s, self._now()))
        timeout_s = min((each for each in waits if each is not None), default=None)
        self._readiness.wait([self._watch.descriptor, self._step.readable], self._step.broken, timeout_s)
        self._watch.clear()
        self._look_at_all()

    def _look_at_all(self) -> None:
        """Also at executors whose turn is yet to come: from now on they see the end of this process."""
        for turn in self._turns:
            turn.look()

    def _end_with_pod(self) -> None:
        """What the task has come to is not told as its end. What its program writes at last comes into the log."""
        self._record.publish()
        if self._step is None:
            return
        self._step.see()
        self._step.end()
        while not self._step.has_ended:
            self._readiness.wait([self._step.readable], self._step.broken, LAST_LOOK_S)
            self._step.see()

    def _wait_until_told(self) -> None:
        until = time.monotonic() + TOLD_WITHIN_S
        while not self._sender.wait(LAST_LOOK_S) and time.monotonic() < until and not self._readiness.is_ending:
            pass


def main(argv: Sequence[str]) -> int:
    """The command `tesk runner`."""
    folders: dict[str, Path] = {}
    words = list(argv)
    while words:
        option = words.pop(0)
        if option not in OPTIONS or not words:
            sys.stdout.write(USAGE)
            return 0 if option in ("--help", "-h") else 2
        folders[OPTIONS[option]] = Path(words.pop(0))
    where = Folders(**folders)
    readiness = Readiness()
    task, cluster, word = document.read(where.task)
    sender = RecordSender(os.environ.get("TESK_REPORT", ""), os.environ["TESK_POD"], word)
    return Runner(task, cluster, where, readiness, sender).run()
