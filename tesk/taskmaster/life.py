"""One task's way through its life on a cluster: inputs, executors one by one, outputs, end.

Each step first asks the record whether it has been done, and what has been done is recorded before anything is built
on it. So a life that was cut off at any line goes on from there: a pod that was made is found by its name, never made
again; what ran is not run twice; a pod that was taken away is a loss and not an end.
"""

import logging
import time
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from tesk.clock import now, stamp
from tesk.filer.plan import Event as FilerEvent
from tesk.filer.plan import Failed, Large, Looked, Pushed, Typed, Warned
from tesk.kubernetes import manifests, names, pod_status, refusal
from tesk.kubernetes import record as records
from tesk.kubernetes.messages import Ended, Started
from tesk.kubernetes.objects import Event, Pod
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import Found, layout
from tesk.life.log import out_of_memory
from tesk.life.outcome import End, Lost, Unborn
from tesk.taskmaster import endings
from tesk.taskmaster.api import GAP, Api, ApiError
from tesk.taskmaster.observations import Observations
from tesk.taskmaster.patience import Patience
from tesk.taskmaster.record_writer import RecordWriter
from tesk.taskmaster.workload import Workload, decode_pod
from tesk.tes import Executor, ExecutorLog, OutputFileLog, Resources, State, Task, TaskLog

log = logging.getLogger(__name__)

REPORTER_GRACE_S: Final = 4.0
MOST_REPLACEMENTS: Final = 3
ENDING_S: Final = 60.0
"""A taskmaster that is deleted with its pods, as when its task is cancelled, is ended before it blames them."""
LOG_PATIENCE_S: Final = 300.0
"""For so long the log of a filer that has ended is waited for, which alone says what it has moved."""
LOG_PAUSE_S: Final = 5.0
KILL_S: Final = 30.0
"""A pod that is to end and does not, so long after its grace, has a node that is away. One whose program has got a TERM
that nobody explains for so long is not being taken away: a sidecar is what keeps it."""


class Life:
    """The life of one task, on one thread. `own`: the taskmaster's pod; `address`: where its pods reach it."""

    def __init__(
        self, task_id: str, task: Task, cluster: TaskSettings, *, own: str, owner_uid: str, parts: int, address: str,
        api: Api, observations: Observations,
    ) -> None:  # fmt: skip
        self.task_id, self.task, self.cluster, self._own = task_id, task, cluster, own
        self._api, self._observations = api, observations
        self._plan = layout(task)
        self._writer = RecordWriter(api, task_id, cluster, owner_uid)
        self._workload = Workload(
            task_id, task, cluster, self._plan, owner_uid=owner_uid, parts=parts, address=address, api=api,
            observations=observations, writer=self._writer,
        )  # fmt: skip
        self._so_far = b""

    def live(self) -> State:
        """Takes the task to its end, whatever has been done of it before."""
        self._writer.recall()
        self._plan = layout(self.task, self._record.now.found)
        lost = ""
        while not self._record.state.is_terminal:
            end: End | None = None
            try:
                if lost:
                    self._begin_again(lost)
                lost = ""
                end = self._attempt()
            except Lost as error:
                lost = str(error)
            except ApiError as error:
                end = End(
                    State.SYSTEM_ERROR,
                    f"the cluster refused it: {error}{refusal.advice(str(error), self.cluster.bounds)}",
                )
            except End as error:
                end = error
            if end is None and self._is_ending():
                time.sleep(ENDING_S)
            if end is None and len(self._record.attempts) > self.cluster.retries:
                end = End(State.SYSTEM_ERROR, lost)
            if end is not None:
                self._writer.end(end.state, end.reason)
        self._workload.remove_claim()
        return self._record.state

    def _is_ending(self) -> bool:
        """True when this very taskmaster is being deleted, or has been by force. The API is asked, since the watch may
        be late: whoever deletes all of a task begins with its taskmaster."""
        try:
            pod = self._api.get("pods", self._own)
        except ApiError as error:
            log.warning("whether pod %s is being deleted cannot be told: %s", self._own, error)
            return False
        return pod is None or decode_pod(pod).metadata.deletion_timestamp is not None

    @property
    def _record(self) -> Record:
        return self._writer.record

    def _attempt(self) -> End:
        """Makes an attempt, from where it stands. Raises Lost, End, and ApiError for a refusal that lasts."""
        if not self._plan.is_empty and not self._record.now.staged:
            self._stage()
        failed = self._execute_all()
        if self.task.outputs and not self._record.now.pushed:
            self._push(failed=failed)
        return End(State.EXECUTOR_ERROR if failed else State.COMPLETE)

    def _stage(self) -> None:
        self._workload.make_claim()
        if failure := self._filer(names.INPUTS)[1]:
            raise End(State.SYSTEM_ERROR, failure)
        self._record.now.staged = True

    def _push(self, *, failed: bool) -> None:
        """Pushes the outputs, after a failed executor too, whose error then stays the task's."""
        pushed, failure = self._filer(names.OUTPUTS, failed=failed)
        self._record.now.log.outputs = pushed
        if failure and not failed:
            raise End(State.SYSTEM_ERROR, failure)
        if failure:
            self._writer.note(f"error: {failure}")
        self._record.now.pushed = True

    def _filer(self, role: str, *, failed: bool = False) -> tuple[list[OutputFileLog], str | None]:
        """Runs a filer's pod: what it pushed, and why it failed if it did. Its warnings become notes."""
        name = records.pod(self._record, self.task_id, role)
        self._workload.ensure(name, manifests.filer_pod(self._workload.place(), name, role, failed=failed))
        patience = Patience(self.cluster)
        while True:
            turn, pod, told = self._observations.snapshot(name)
            events, is_whole = endings.joined_events(told)
            if is_whole and endings.is_last(events):
                break
            pod = self._workload.present(name, pod)
            if pod_status.terminated(pod, names.FILER_CONTAINER) or pod_status.is_over(pod):
                try:
                    events = self._wrote(role, pod, patience)
                except Unborn:
                    return self._filer(role, failed=failed)
                if events:
                    break
                self._writer.wait_for(f"{role}: {_unread(pod)}")
                self._observations.wait(turn, LOG_PAUSE_S)
                continue
            if reason := pod_status.loss(pod):
                raise Lost(reason)
            if found := pod_status.looked_in_vain(pod):
                status, why = found
                if self._is_replaced(role, pod, status.name):
                    return self._filer(role, failed=failed)
                raise End(State.SYSTEM_ERROR, f"image {status.image}: it cannot be started: {why}")
            self._writer.progress(events)
            self._observations.wait(turn, self._look_after(role, pod, patience, running=State.INITIALIZING))
        self._observations.drop_messages(name)
        self._release(name)
        self._writer.progress(events, save=False)
        for event in events:
            if isinstance(event, Warned):
                self._writer.note(f"warning: {event.message}")
            elif isinstance(event, Looked):
                self._record.now.found = Found(event.occupied)
            elif isinstance(event, Large):
                self._record.now.found.alone.append(event.path)
            elif isinstance(event, Typed):
                self._record.types = replace(self._record.types, **{role: event.letters})
        self._plan = layout(self.task, self._record.now.found)
        last = events[-1]
        pushed = [OutputFileLog(e.url, e.path, str(e.size_bytes)) for e in events if isinstance(e, Pushed)]
        return pushed, last.message if isinstance(last, Failed) else None

    def _wrote(self, role: str, pod: Pod, patience: Patience) -> list[FilerEvent]:
        """All that a filer has said, by the log that it left; nothing while that cannot be had. Raises Lost, Unborn."""
        log = self._api.logs(pod.metadata.name, names.FILER_CONTAINER, endings.LOG_LINES)
        events = endings.events(log or b"")
        if endings.is_last(events):
            if len(events) >= endings.LOG_LINES or GAP in (log or b"").splitlines(keepends=True):
                self._writer.note(f"warning: {role}: its log is too long to be read; not all that was moved is shown")
            return events
        if log is not None and self._is_replaced(role, pod, names.FILER_CONTAINER):
            raise Unborn
        if reason := pod_status.loss(pod):
            raise Lost(reason)
        if log is None and not patience.since("log", LOG_PATIENCE_S):
            return []
        raise Lost(endings.broken(pod, names.FILER_CONTAINER) if log is not None else _unread(pod))

    def _execute_all(self) -> bool:
        """Runs the executors in order; True when one failed and its error was not to be ignored."""
        entries = self._record.now.log.logs
        self._free()
        for n, executor in enumerate(self.task.executors):
            if n == len(entries):
                self._writer.executed(self._execute(n, executor))
                self._record.now.started = UNSET
                if code := entries[n].exit_code:
                    ignored = "" if self._fails(n) else ", ignored"
                    self._writer.note(f"executor {n} ({executor.image}): exit code {code}{ignored}")
                self._free()
            if self._fails(n):
                return True
        return False

    def _release(self, name: str) -> None:
        """Lets a pod be removed whose part is done, where what others have put into it may hold it."""
        pod = self._observations.snapshot(name)[1]
        if pod is not None and pod_status.has_company(pod) and name not in self._record.now.to_delete:
            self._record.now.to_delete.append(name)

    def _free(self) -> None:
        """Removes pods that hold their room, and the volume, though their part is done, once that is on record.

        Such is one with a sidecar, and one whose shim was killed with its program for want of memory (cgroup v2,
        memory.oom.group).
        """
        if not self._record.now.to_delete:
            return
        self._writer.save()
        for name in self._record.now.to_delete:
            self._api.delete("pods", name, 0)
        self._record.now.to_delete.clear()

    def _fails(self, n: int) -> bool:
        if n in self._record.now.timed_out:
            return True
        return bool(self._record.now.log.logs[n].exit_code) and not self.task.executors[n].ignore_error

    def _execute(self, n: int, executor: Executor) -> ExecutorLog:
        """Runs executor N, or takes up its pod where it stands."""
        own_workdir = n in self._record.now.own_workdir
        name = records.pod(self._record, self.task_id, names.EXECUTOR_ROLE, n)
        self._so_far = b""
        self._workload.ensure(
            name, manifests.executor_pod(self._workload.place(), name, n, self._plan, own_workdir=own_workdir)
        )
        try:
            ended = self._ended(n, name)
        except Unborn:
            return self._execute(n, executor)
        self._observations.drop_messages(name)
        self._release(name)
        if ended.problem == "workdir" and not own_workdir:
            self._record.now.own_workdir.append(n)
            self._writer.save()
            self._api.delete("pods", name)
            return self._execute(n, executor)
        if ended.out_of_memory:
            asked = (self.task.resources or Resources()).ram_gb
            limit_mib = manifests.mebibytes(asked) if asked and self.cluster.memory_limit == "request" else 0
            self._writer.note(out_of_memory(n, executor.image, ended.exit_code, limit_mib))
        ended_at = stamp(ended.ended)
        code = ended.exit_code or (endings.TERMINATED if n in self._record.now.timed_out else 0)
        return ExecutorLog(code, min(stamp(ended.started), ended_at), ended_at, ended.stdout, ended.stderr)

    def _ended(self, n: int, name: str) -> Ended:
        """Waits for the end of executor N, told or seen."""
        patience = Patience(self.cluster, endings.time_limit(self.task, self.cluster))
        while True:
            turn, pod, told = self._observations.snapshot(name)
            ours = n in self._record.now.timed_out
            last = told[-1] if told and isinstance(told[-1], Ended) else None
            if last and (ours or not last.terminated):
                return last
            for each in told:
                if isinstance(each, Started):
                    self._writer.executor_started(each.at)
                    patience.started(each.at)
            try:
                pod = self._workload.present(name, pod)
            except Lost:
                if not ours:
                    raise
                return self._killed()
            if not ours and (reason := pod_status.loss(pod)):
                raise Lost(reason)
            if last and (
                pod_status.has_ended(pod) or (pod_status.is_over(pod) and patience.since("terminated", KILL_S))
            ):
                return last
            if ours and self._is_out_of_reach(pod, patience):
                self._api.delete("pods", name, 0)
                return self._killed()
            if found := self._seen(n, pod, patience):
                return found
            if patience.is_overdue or (ours and not patience.is_spent):
                self._end_overdue(n, pod, patience)
            elif ours:
                self._so_far = self._output(n, pod)
            self._observations.wait(turn, self._look_after(f"executor {n}", pod, patience, running=State.QUEUED))

    def _killed(self) -> Ended:
        return endings.killed(self._record.now.started, self._so_far, self.cluster.log_tail_bytes)

    def _is_out_of_reach(self, pod: Pod, patience: Patience) -> bool:
        """True when a pod that was to end has been lost on the way, or its node does not end it."""
        late = patience.since("deleted", self.cluster.grace_s + KILL_S)
        return late or pod_status.loss(pod, deleting_is_loss=False) is not None

    def _output(self, n: int, pod: Pod) -> bytes:
        """What an executor wrote, by its reporter's log."""
        output = self._api.logs(pod.metadata.name, names.REPORTER_CONTAINER, endings.LOG_LINES)
        line = f"warning: executor {n}: what it wrote is not all shown: {_unread(pod)}"
        if output is None and line not in (self._record.now.log.system_logs or ()):
            self._writer.note(line)
        return endings.fuller(output, self._so_far)

    def _seen(self, n: int, pod: Pod, patience: Patience) -> Ended | None:
        """The end by the pod's status, where the pod's own reporter has not told and will not."""
        end = pod_status.exit_of(pod)
        why = pod_status.never_ran(end) if end else None
        at = pod_status.started(pod, names.EXECUTOR_CONTAINER)
        if at and not why:
            self._writer.executor_started(at)
            patience.started(at)
        if end is None:
            if pod_status.is_over(pod):
                raise Lost(endings.broken(pod, names.EXECUTOR_CONTAINER))
            return None
        if why:
            step = records.step(names.EXECUTOR_ROLE, n)
            if self._record.now.started is UNSET and self._is_replaced(step, pod, names.EXECUTOR_CONTAINER):
                raise Unborn
            raise End(State.SYSTEM_ERROR, f"executor {n} ({self.task.executors[n].image}): it cannot be started: {why}")
        reporter = pod_status.terminated(pod, names.REPORTER_CONTAINER)
        if reporter is None and not patience.since("reporter", REPORTER_GRACE_S):
            return None
        if reporter is None:
            self._record.now.to_delete.append(pod.metadata.name)
        return endings.ended(end, reporter, self._output(n, pod), self.cluster.log_tail_bytes)

    def _is_replaced(self, step: str, pod: Pod, container: str) -> bool:
        """True when the pod's program was never begun for a fault of its node, and another pod may take its place."""
        replacements = self._record.now.replacements
        why = pod_status.never_begun(pod, container)
        if why is None or replacements.get(step, 0) == MOST_REPLACEMENTS:
            return False
        self._writer.note(f"warning: {step}: it could not be started: {why}; trying again")
        replacements[step] = replacements.get(step, 0) + 1
        self._writer.save()
        self._api.delete("pods", pod.metadata.name)
        return True

    def _end_overdue(self, n: int, pod: Pod, patience: Patience) -> None:
        """Ends an executor for its time limit, also where an earlier life had only come to say so."""
        overdue = self._record.now.timed_out
        if n not in overdue:
            image = self.task.executors[n].image
            self._writer.note(f"executor {n} ({image}): ended after its time limit of {patience.limit_s:g} s")
            overdue.append(n)
            self._writer.save()
        patience.spend()
        if not pod.metadata.deletion_timestamp:
            self._so_far = self._output(n, pod)
            self._api.delete("pods", pod.metadata.name)

    def _look_after(self, step: str, pod: Pod, patience: Patience, *, running: State) -> float | None:
        """Notes what a pod that has not started waits for; how long to wait for a change. Raises End."""
        if pod_status.runs(pod):
            self._writer.advance_state(State.INITIALIZING if running is State.QUEUED else running)
            self._writer.wait_for("")
            return patience.next_look_s(None)
        found = patience.judge(pod, self._events)
        words = f"{step}: {found.words}" if found.words else ""
        if found.hopeless:
            raise End(State.SYSTEM_ERROR, words)
        if pod.spec.node_name:
            self._writer.set_state(State.INITIALIZING)
        self._writer.wait_for(words)
        return patience.next_look_s(pod)

    def _events(self, pod: Pod) -> list[Event]:
        """What the cluster says about a pod; about its claim while the pod has no node."""
        of = f"involvedObject.kind=Pod,involvedObject.name={pod.metadata.name}"
        if not pod.spec.node_name:
            if self._plan.is_empty:
                return []
            claim = names.claim(self.task_id, len(self._record.attempts))
            of = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}"
        return endings.cluster_events(self._api.find("events", fieldSelector=of))

    def _begin_again(self, reason: str) -> None:
        self._writer.note(f"error: {reason}; trying again")
        self._writer.set_state(State.INITIALIZING)
        self._record.now.log.end_time = now()
        self._writer.save()  # whoever has been superseded stops here, before it deletes the pods of another
        for pod in self._record.now.pods:
            self._api.delete("pods", pod, 0)
        self._workload.remove_claim()
        self._record.attempts.append(Attempt(TaskLog(start_time=now())))
        self._writer.save()


def _unread(pod: Pod) -> str:
    return f"the log of pod {pod.metadata.name} cannot be had; node {pod.spec.node_name} does not answer"
