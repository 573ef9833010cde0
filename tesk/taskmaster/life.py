"""One task's way through its life on a cluster: inputs, executors one by one, outputs, end.

Each step first asks the record whether it has been done, and what has been done is recorded before anything is built
on it. So a life that was cut off at any line goes on from there: a pod that was made is found by its name, never made
again; what ran is not run twice; a pod that was taken away is a loss and not an end.
"""

import logging
import time
from typing import Final

import msgspec
from msgspec import UNSET

from tesk.clock import now, stamp
from tesk.engines.kubernetes import manifests, names, observe, refusal
from tesk.engines.kubernetes import record as records
from tesk.engines.kubernetes.cluster import Cluster
from tesk.engines.kubernetes.manifests import Manifest, Place
from tesk.engines.kubernetes.objects import Event, Pod
from tesk.engines.kubernetes.record import Attempt
from tesk.engines.kubernetes.told import Ended, Started
from tesk.engines.notes import out_of_memory
from tesk.filer.plan import Failed, Pushed, Warned
from tesk.layout import layout
from tesk.taskmaster import endings
from tesk.taskmaster.api import Api, ApiError
from tesk.taskmaster.board import Board
from tesk.taskmaster.kept import Kept
from tesk.taskmaster.patience import Patience
from tesk.tes import Executor, ExecutorLog, OutputFileLog, Resources, State, Task, TaskLog

log = logging.getLogger(__name__)

PAUSE_S: Final = 5.0
REPORTER_GRACE_S: Final = 4.0
MOST_UNBORN: Final = 3
ENDING_S: Final = 60.0
"""A taskmaster that is deleted with its pods, as when its task is cancelled, is ended before it blames them."""
decode_pod: Final = msgspec.json.Decoder(Pod).decode


class End(Exception):
    """The task's end: its state, and for a system error why."""

    def __init__(self, state: State, reason: str = "") -> None:
        super().__init__(state, reason)
        self.state = state
        self.reason = reason


class Lost(Exception):
    """The attempt's end by a fault of the cluster, after which another may be made."""


class Unborn(Exception):
    """A pod whose program was never begun: another is to take its place."""


class Life:
    """The life of one task, on one thread. `address`: where its pods reach the taskmaster."""

    def __init__(
        self, task_id: str, task: Task, cluster: Cluster, *, owner_uid: str, parts: int, address: str, api: Api,
        board: Board,
    ) -> None:  # fmt: skip
        self.task_id, self.task, self.cluster = task_id, task, cluster
        self._owner_uid, self._parts, self._address = owner_uid, parts, address
        self._api, self._board = api, board
        self._plan = layout(task)
        self._kept = Kept(api, task_id, cluster, owner_uid)
        self._record = self._kept.record
        self._so_far = b""

    def live(self) -> State:
        """Takes the task to its end, whatever has been done of it before."""
        self._record = self._kept.recall()
        while not self._record.state.is_terminal:
            try:
                self._attempt()
            except Lost as lost:
                if self._board.is_ending:
                    time.sleep(ENDING_S)
                if len(self._record.attempts) > self.cluster.retries:
                    self._finish(State.SYSTEM_ERROR, str(lost))
                else:
                    self._begin_again(str(lost))
            except ApiError as error:
                self._finish(State.SYSTEM_ERROR, f"the cluster refused it: {error}{refusal.advice(str(error))}")
            except End as end:
                self._finish(end.state, end.reason)
        self._remove_claim()
        return self._record.state

    def _attempt(self) -> None:
        if not self._plan.is_empty and not self._record.now.staged:
            self._stage()
        failed = self._execute_all()
        if self.task.outputs and not self._record.now.pushed:
            self._push(failed=failed)
        raise End(State.EXECUTOR_ERROR if failed else State.COMPLETE)

    def _stage(self) -> None:
        attempt = len(self._record.attempts)
        claim = manifests.claim(self.task_id, self.task, self.cluster, self._owner_uid, attempt)
        self._patient_create("persistentvolumeclaims", claim)
        if failure := self._filer(names.INPUTS)[1]:
            raise End(State.SYSTEM_ERROR, failure)
        self._record.now.staged = True
        self._kept.save()

    def _push(self, *, failed: bool) -> None:
        """Pushes the outputs, after a failed executor too, whose error then stays the task's."""
        pushed, failure = self._filer(names.OUTPUTS, failed=failed)
        self._record.now.log.outputs = pushed
        if failure and not failed:
            raise End(State.SYSTEM_ERROR, failure)
        if failure:
            self._kept.note(f"error: {failure}")
        self._record.now.pushed = True

    def _filer(self, role: str, *, failed: bool = False) -> tuple[list[OutputFileLog], str | None]:
        """Runs a filer's pod: what it pushed, and why it failed if it did. Its warnings become notes."""
        name = records.pod(self._record, self.task_id, role)
        self._ensure(name, manifests.filer_pod(self._place(), name, role, failed=failed))
        patience = Patience(self.cluster)
        while True:
            turn, pod, told = self._board.look(name)
            events, is_whole = endings.heard(told)
            if is_whole and endings.is_last(events):
                break
            pod = self._present(name, pod)
            if observe.terminated(pod, names.FILER_CONTAINER) or observe.is_over(pod):
                events = endings.events(self._api.logs(name, names.FILER_CONTAINER, endings.LOG_LINES))
                if endings.is_last(events):
                    break
                if self._is_replaced(role, pod, names.FILER_CONTAINER):
                    return self._filer(role, failed=failed)
                raise Lost(observe.loss(pod) or endings.broken(pod, names.FILER_CONTAINER))
            if reason := observe.loss(pod):
                raise Lost(reason)
            self._kept.progress(events)
            self._board.wait(turn, self._look_after(role, pod, patience, running=State.INITIALIZING))
        self._kept.progress(events, save=False)
        for event in events:
            if isinstance(event, Warned):
                self._kept.note(f"warning: {event.message}")
        last = events[-1]
        pushed = [OutputFileLog(e.url, e.path, str(e.size_bytes)) for e in events if isinstance(e, Pushed)]
        return pushed, last.message if isinstance(last, Failed) else None

    def _execute_all(self) -> bool:
        """Runs the executors in order; True when one failed and its error was not to be ignored."""
        entries = self._record.now.log.logs
        for n, executor in enumerate(self.task.executors):
            if n == len(entries):
                entries.append(self._execute(n, executor))
                self._record.now.started = UNSET
                if code := entries[n].exit_code:
                    ignored = "" if self._fails(n) else ", ignored"
                    self._kept.note(f"executor {n} ({executor.image}): exit code {code}{ignored}")
                if not self._fails(n) and self._goes_on_after(n):
                    self._kept.save()
            if self._fails(n):
                return True
        return False

    def _goes_on_after(self, n: int) -> bool:
        """False when the task's end is recorded next."""
        return n + 1 < len(self.task.executors) or not self._plan.is_empty

    def _fails(self, n: int) -> bool:
        if n in self._record.now.overdue:
            return True
        return bool(self._record.now.log.logs[n].exit_code) and not self.task.executors[n].ignore_error

    def _execute(self, n: int, executor: Executor) -> ExecutorLog:
        """Runs executor N, or takes up its pod where it stands."""
        homeless = n in self._record.now.homeless
        name = records.pod(self._record, self.task_id, names.EXECUTOR_ROLE, n)
        self._so_far = b""
        self._ensure(name, manifests.executor_pod(self._place(), name, n, self._plan, homeless=homeless))
        try:
            ended = self._ended(n, name)
        except Unborn:
            return self._execute(n, executor)
        if ended.problem == "workdir" and not homeless:
            self._record.now.homeless.append(n)
            self._kept.save()
            self._api.delete("pods", name)
            return self._execute(n, executor)
        if ended.out_of_memory:
            asked = (self.task.resources or Resources()).ram_gb
            limit_mib = manifests.mebibytes(asked) if asked and self.cluster.memory_limit == "request" else 0
            self._kept.note(out_of_memory(n, executor.image, ended.exit_code, limit_mib))
        ended_at = stamp(ended.ended)
        code = ended.exit_code or (endings.TERMINATED if n in self._record.now.overdue else 0)
        return ExecutorLog(code, min(stamp(ended.started), ended_at), ended_at, ended.stdout, ended.stderr)

    def _ended(self, n: int, name: str) -> Ended:
        """Waits for the end of executor N, told or seen."""
        patience = Patience(self.cluster, endings.time_limit(self.task, self.cluster))
        while True:
            turn, pod, told = self._board.look(name)
            ours = n in self._record.now.overdue
            last = told[-1] if told and isinstance(told[-1], Ended) else None
            if last and (ours or not last.terminated):
                return last
            for each in told:
                if isinstance(each, Started):
                    self._kept.runs(each.at)
                    patience.started(each.at)
            try:
                pod = self._present(name, pod)
            except Lost:
                if not ours:
                    raise
                return endings.killed(self._record.now.started, self._so_far, self.cluster.log_tail_bytes)
            if not ours and (reason := observe.loss(pod)):
                raise Lost(reason)
            if last and observe.is_over(pod):
                return last
            if found := self._seen(n, pod, patience):
                return found
            if ours or patience.is_overdue:
                self._end_overdue(n, pod, patience)
            self._board.wait(turn, self._look_after(f"executor {n}", pod, patience, running=State.QUEUED))

    def _seen(self, n: int, pod: Pod, patience: Patience) -> Ended | None:
        """The end by the pod's status, where the pod's own reporter has not told and will not."""
        end = observe.exit_of(pod)
        why = observe.never_ran(end) if end else None
        at = observe.started(pod, names.EXECUTOR_CONTAINER)
        if at and not why:
            self._kept.runs(at)
            patience.started(at)
        if end is None:
            if observe.is_over(pod):
                raise Lost(endings.broken(pod, names.EXECUTOR_CONTAINER))
            return None
        if why:
            step = records.step(names.EXECUTOR_ROLE, n)
            if self._record.now.started is UNSET and self._is_replaced(step, pod, names.EXECUTOR_CONTAINER):
                raise Unborn
            raise End(State.SYSTEM_ERROR, f"executor {n} ({self.task.executors[n].image}): it cannot be started: {why}")
        reporter = observe.terminated(pod, names.REPORTER_CONTAINER)
        if reporter is None and not patience.since("reporter", REPORTER_GRACE_S):
            return None
        output = self._api.logs(pod.metadata.name, names.REPORTER_CONTAINER, endings.LOG_LINES) or self._so_far
        return endings.ended(end, reporter, output, self.cluster.log_tail_bytes)

    def _is_replaced(self, step: str, pod: Pod, container: str) -> bool:
        """True when the pod's program was never begun for a fault of its node, and another pod may take its place."""
        unborn = self._record.now.unborn
        why = observe.unborn(pod, container)
        if why is None or unborn.get(step, 0) == MOST_UNBORN:
            return False
        self._kept.note(f"warning: {step}: it could not be started: {why}; trying again")
        unborn[step] = unborn.get(step, 0) + 1
        self._kept.save()
        self._api.delete("pods", pod.metadata.name)
        return True

    def _end_overdue(self, n: int, pod: Pod, patience: Patience) -> None:
        """Ends an executor for its time limit, also where an earlier life had only come to say so."""
        overdue = self._record.now.overdue
        if n not in overdue:
            image = self.task.executors[n].image
            self._kept.note(f"executor {n} ({image}): ended after its time limit of {patience.limit_s:g} s")
            overdue.append(n)
            self._kept.save()
        if not pod.metadata.deletion_timestamp:
            self._so_far = self._api.logs(pod.metadata.name, names.REPORTER_CONTAINER, endings.LOG_LINES)
            self._api.delete("pods", pod.metadata.name)

    def _look_after(self, step: str, pod: Pod, patience: Patience, *, running: State) -> float | None:
        """Notes what a pod that has not started waits for; how long to wait for a change. Raises End."""
        if observe.runs(pod):
            self._kept.reach(State.INITIALIZING if running is State.QUEUED else running)
            self._kept.wait_for("")
            return patience.next_look_s(None)
        found = patience.judge(pod, self._events)
        words = f"{step}: {found.words}" if found.words else ""
        if found.hopeless:
            raise End(State.SYSTEM_ERROR, words)
        if pod.spec.node_name:
            self._kept.goes_on(State.INITIALIZING)
        self._kept.wait_for(words)
        return patience.next_look_s(pod)

    def _events(self, pod: Pod) -> list[Event]:
        """What the cluster says about a pod; about its claim while the pod has no node."""
        of = f"involvedObject.kind=Pod,involvedObject.name={pod.metadata.name}"
        if not pod.spec.node_name:
            if self._plan.is_empty:
                return []
            claim = names.claim(self.task_id, len(self._record.attempts))
            of = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}"
        return endings.told_by_the_cluster(self._api.find("events", fieldSelector=of))

    def _present(self, name: str, pod: Pod | None) -> Pod:
        """The pod as the cluster has it. Raises Lost when it is gone: the watch may be late, so it is asked for."""
        if pod is None:
            found = self._api.get("pods", name)
            if found is None:
                raise Lost(endings.gone(name, self._board.last(name)))
            pod = decode_pod(found)
            self._board.change(pod)
        self._place_at(pod)
        return pod

    def _place_at(self, pod: Pod) -> None:
        if pod.spec.node_name and not self._record.now.node and not self._plan.is_empty:
            self._record.now.node = pod.spec.node_name

    def _ensure(self, name: str, manifest: Manifest) -> None:
        """Makes the pod unless it has been made before."""
        self._board.expect(name)
        if name in self._record.now.pods:
            return
        made = self._patient_create("pods", manifest) or self._api.get("pods", name)
        if made is None:
            raise Lost(f"pod {name} was deleted by somebody else")
        pod = decode_pod(made)
        if all(owner.uid != self._owner_uid for owner in pod.metadata.owner_references):
            raise End(State.SYSTEM_ERROR, f"pod {name} is there already and is not this task's; delete it")
        self._record.now.pods[name] = pod.metadata.uid
        self._board.change(pod)
        self._kept.save()

    def _patient_create(self, kind: str, manifest: Manifest) -> bytes | None:
        """Creates; waits while there is no room in a quota or no right. Raises ApiError for a refusal that lasts."""
        while True:
            try:
                made = self._api.create(kind, manifest)
            except ApiError as error:
                if not error.is_passing:
                    raise
                self._kept.wait_for(str(error))
                self._board.wait(self._board.look("")[0], PAUSE_S)
            else:
                self._kept.wait_for("")
                return made

    def _begin_again(self, reason: str) -> None:
        self._kept.note(f"error: {reason}; trying again")
        self._kept.goes_on(State.INITIALIZING)
        self._record.now.log.end_time = now()
        for pod in self._record.now.pods:
            self._api.delete("pods", pod, 0)
        self._remove_claim()
        self._record.attempts.append(Attempt(TaskLog(start_time=now())))
        self._kept.save()

    def _finish(self, state: State, reason: str) -> None:
        if reason:
            self._kept.note(f"error: {reason}")
        self._record.now.log.end_time = now()
        self._record.state, self._record.waiting = state, ""
        self._kept.save()

    def _remove_claim(self) -> None:
        if not self._plan.is_empty:
            self._api.delete("persistentvolumeclaims", names.claim(self.task_id, len(self._record.attempts)))

    def _place(self) -> Place:
        bound = self.cluster.access_mode.startswith("ReadWriteOnce") and not self._plan.is_empty
        return Place(
            self.task_id, self.task, self.cluster, self._owner_uid, self._address, self._parts,
            len(self._record.attempts), self._record.now.node if bound else "",
        )  # fmt: skip
