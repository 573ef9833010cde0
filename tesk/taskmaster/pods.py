"""What is seen of the pod in which a step runs: its messages, its status, its log, and for how long things are so.

One object for each pod. It also tells users what the pod waits for while its program has not started.
"""

from typing import Final

from msgspec.structs import replace

from tesk.clock import stamp
from tesk.filer.plan import Event as FilerEvent
from tesk.filer.plan import Progress
from tesk.kubernetes import names, pod_status
from tesk.kubernetes.messages import Ended, Started
from tesk.kubernetes.objects import Pod
from tesk.kubernetes.record import Attempt
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.facts import TaskStep
from tesk.life.steps import AtWork, ExecutorEnded, FilerEnded, Gone, Hopeless, NeverBegun, Seen, Starting
from tesk.life.transfer import transfer
from tesk.taskmaster import endings
from tesk.taskmaster.api import GAP, Api
from tesk.taskmaster.observations import Observations
from tesk.taskmaster.patience import Patience
from tesk.taskmaster.record_writer import RecordWriter
from tesk.taskmaster.workload import Lost, Workload
from tesk.tes import ExecutorLog, State

REPORTER_GRACE_S: Final = 4.0
LOG_PATIENCE_S: Final = 300.0
"""For so long the log of a filer that has ended is waited for, which alone says what it has moved."""
LOG_PAUSE_S: Final = 5.0
KILL_S: Final = 30.0
"""A pod that is to end and does not, so long after its grace, has a node that is away. One whose program has got a TERM
that nobody explains for so long is not being taken away: a sidecar is what keeps it."""


class StepPod:
    """The pod of one step. `turn`, `look_s`: what `Observations.wait` takes until it is time to look again."""

    def __init__(
        self, step: TaskStep, name: str, image: str, cluster: TaskSettings, *, api: Api, observations: Observations,
        writer: RecordWriter, workload: Workload,
    ) -> None:  # fmt: skip
        self.step, self.name, self._image, self._cluster = step, name, image, cluster
        self._api, self._observations, self._writer, self._workload = api, observations, writer, workload
        self._patience = Patience(cluster)
        self.turn = 0
        self.look_s: float | None = None
        observations.expect(name)

    @property
    def _facts(self) -> Attempt:
        return self._writer.record.now

    def see(self) -> Seen:
        """What is so now. Raises Lost, ApiError for a refusal that lasts."""
        raise NotImplementedError

    def stop(self) -> None:
        """Tells the program to end."""
        raise NotImplementedError

    def close(self) -> None:
        """The step is over: drops what its pod has sent."""
        self._observations.drop_messages(self.name)

    def _company(self) -> str:
        """The pod's name where others have put something into it that may keep it from its end."""
        pod = self._observations.snapshot(self.name)[1]
        return self.name if pod is not None and pod_status.has_company(pod) else ""

    def _wait(self, pod: Pod, *, running: State, is_running: bool = False) -> Seen | None:
        """Tells what a pod waits for that has not started, and when to look again; something, where it is in vain."""
        if pod_status.runs(pod):
            if not is_running:
                self._writer.advance_state(running)
            self._writer.wait_for("")
            self.look_s = self._patience.next_look_s(None)
            return None
        found = self._patience.judge(pod, self._workload.events)
        words = f"{self.step.name}: {found.words}" if found.words else ""
        if found.hopeless:
            return Hopeless(words)
        if pod.spec.node_name:
            self._writer.set_state(State.INITIALIZING)
        self._writer.wait_for(words)
        self.look_s = self._patience.next_look_s(pod)
        return None


class FilerPod(StepPod):
    """The pod of a filer."""

    def see(self) -> Seen:
        self.turn, pod, messages = self._observations.snapshot(self.name)
        events, is_whole = endings.joined_events(messages)
        if is_whole and endings.is_last(events):
            return self._moved(events)
        pod = self._workload.present(self.name, pod)
        if pod_status.terminated(pod, names.FILER_CONTAINER) or pod_status.is_over(pod):
            return self._by_log(pod)
        if reason := pod_status.loss(pod):
            return Gone(reason)
        if found := pod_status.looked_in_vain(pod):
            status, why = found
            refused = Hopeless(f"image {status.image}: it cannot be started: {why}")
            passing = pod_status.never_begun(pod, status.name)
            return refused if passing is None else NeverBegun(passing, refused)
        self._writer.show_progress(next((each for each in reversed(events) if isinstance(each, Progress)), None))
        return self._wait(pod, running=State.INITIALIZING) or (AtWork() if pod_status.runs(pod) else Starting())

    def _moved(self, events: list[FilerEvent], *notes: str) -> FilerEnded:
        moved = transfer(events)
        self._writer.show_progress(moved.progress, save=False)
        if moved.types:
            self._writer.record.types = replace(self._writer.record.types, **{self.step.role: moved.types})
        return FilerEnded(moved, notes, self._company())

    def _by_log(self, pod: Pod) -> Seen:
        """The end of a filer by the log that it has left."""
        log = self._api.logs(self.name, names.FILER_CONTAINER, endings.LOG_LINES)
        events = endings.events(log or b"")
        if endings.is_last(events):
            is_cut = len(events) >= endings.LOG_LINES or GAP in (log or b"").splitlines(keepends=True)
            line = f"warning: {self.step.name}: its log is too long to be read; not all that was moved is shown"
            return self._moved(events, *([line] if is_cut else []))
        loss = pod_status.loss(pod)
        if log is None and not loss and not self._patience.since("log", LOG_PATIENCE_S):
            self._writer.wait_for(f"{self.step.name}: {_unread(pod)}")
            self.look_s = LOG_PAUSE_S
            return Starting()
        gone = Gone(loss or (_unread(pod) if log is None else pod_status.broken(pod, names.FILER_CONTAINER)))
        passing = None if log is None else pod_status.never_begun(pod, names.FILER_CONTAINER)
        return gone if passing is None else NeverBegun(passing, gone)


class ExecutorPod(StepPod):
    """The pod of an executor."""

    _pod: Pod | None = None
    _so_far = b""
    _is_stopping = False

    def see(self) -> Seen:
        self.turn, pod, messages = self._observations.snapshot(self.name)
        ours = self.step.n in self._facts.timed_out
        last = messages[-1] if messages and isinstance(messages[-1], Ended) else None
        if last and (ours or not last.terminated):
            return self._ended(last)
        try:
            pod = self._pod = self._workload.present(self.name, pod)
        except Lost:
            if not ours:
                raise
            return self._ended(self._killed())
        if not ours and (reason := pod_status.loss(pod)):
            return Gone(reason)
        if last and (
            pod_status.has_ended(pod) or (pod_status.is_over(pod) and self._patience.since("terminated", KILL_S))
        ):
            return self._ended(last)
        if ours and self._is_out_of_reach(pod):
            return self._ended(self._killed(), lingers=self.name)
        if found := self._by_status(pod):
            return found
        if self._is_stopping:
            self._so_far = self._output(pod)
        at = next((each.at for each in messages if isinstance(each, Started)), "") or _started(pod)
        waits = self._wait(pod, running=State.INITIALIZING, is_running=bool(at))
        return waits or (AtWork(stamp(at) if at else "", self._is_stopping) if at or self._is_known else Starting())

    @property
    def _is_known(self) -> bool:
        """True when the program runs by the account of an earlier life."""
        return bool(self._facts.started)

    def stop(self) -> None:
        """Tells the program to end. What it has written until now is read first: the pod may be gone all at once."""
        self._is_stopping = True
        self._patience.since("deleted", 0.0)
        if self._pod is not None and not self._pod.metadata.deletion_timestamp:
            self._so_far = self._output(self._pod)
            self._api.delete("pods", self.name)

    def _ended(self, end: Ended, lingers: str = "") -> ExecutorEnded:
        ended_at = stamp(end.ended)
        entry = ExecutorLog(end.exit_code, min(stamp(end.started), ended_at), ended_at, end.stdout, end.stderr)
        return ExecutorEnded(entry, end.out_of_memory, end.problem == "workdir", (), lingers or self._company())

    def _killed(self) -> Ended:
        return endings.killed(self._facts.started, self._so_far, self._cluster.log_tail_bytes)

    def _is_out_of_reach(self, pod: Pod) -> bool:
        """True when a pod that was to end has been lost on the way, or its node does not end it."""
        late = self._patience.since("deleted", self._cluster.grace_s + KILL_S)
        return late or pod_status.loss(pod, deleting_is_loss=False) is not None

    def _output(self, pod: Pod) -> bytes:
        """What an executor wrote, by its reporter's log."""
        output = self._api.logs(self.name, names.REPORTER_CONTAINER, endings.LOG_LINES)
        line = f"warning: {self.step.name}: what it wrote is not all shown: {_unread(pod)}"
        if output is None and line not in (self._facts.log.system_logs or ()):
            self._writer.note(line)
        return endings.fuller(output, self._so_far)

    def _by_status(self, pod: Pod) -> Seen | None:
        """The end by the pod's status, where the pod's own reporter has not told and will not."""
        end = pod_status.exit_of(pod)
        if end is None:
            return Gone(pod_status.broken(pod, names.EXECUTOR_CONTAINER)) if pod_status.is_over(pod) else None
        if why := pod_status.never_ran(end):
            refused = Hopeless(f"{self.step.name} ({self._image}): it cannot be started: {why}")
            passing = None if self._is_known else pod_status.never_begun(pod, names.EXECUTOR_CONTAINER)
            return refused if passing is None else NeverBegun(passing, refused)
        reporter = pod_status.terminated(pod, names.REPORTER_CONTAINER)
        if reporter is None and not self._patience.since("reporter", REPORTER_GRACE_S):
            return None
        found = endings.ended(end, reporter, self._output(pod), self._cluster.log_tail_bytes)
        return self._ended(found, lingers="" if reporter else self.name)


def _started(pod: Pod) -> str:
    """When the executor's program has started, by the kubelet's account."""
    end = pod_status.exit_of(pod)
    if end is not None and pod_status.never_ran(end):
        return ""
    return pod_status.started(pod, names.EXECUTOR_CONTAINER) or ""


def _unread(pod: Pod) -> str:
    return f"the log of pod {pod.metadata.name} cannot be had; node {pod.spec.node_name} does not answer"
