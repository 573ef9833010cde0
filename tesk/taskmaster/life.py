"""The life of one task on a cluster: looks at the step that is due, asks `life.steps` what to do, does it.

Facts are in the record before anything is built on them. So a life that was cut off at any line goes on from there: a
pod that was made is found by its name, never made again; what ran is not run twice; a pod that was taken away is a
loss and not an end.
"""

import logging
import time
from collections.abc import Sequence
from typing import Final

from tesk.clock import now, steady
from tesk.kubernetes import errors, manifests
from tesk.kubernetes import record as records
from tesk.kubernetes.manifests import Manifest
from tesk.kubernetes.policy import policy
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import layout
from tesk.life import steps
from tesk.life.facts import Facts, TaskStep
from tesk.life.outcome import End, left_s
from tesk.taskmaster.api import Api, ApiError
from tesk.taskmaster.observations import Observations
from tesk.taskmaster.pods import ExecutorPod, FilerPod, StepPod
from tesk.taskmaster.record_writer import RecordWriter
from tesk.taskmaster.workload import Lost, Workload, decode_pod
from tesk.tes import State, Task, TaskLog

log = logging.getLogger(__name__)

ENDING_S: Final = 60.0
"""A taskmaster that is deleted with its pods, as when its task is cancelled, is ended before it blames them."""


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
        self._pod: StepPod | None = None
        self._now = steady()

    def live(self) -> State:
        """Takes the task to its end, whatever has been done of it before."""
        self._writer.recall()
        self._plan = layout(self.task, self._record.now.found)
        while not self._record.state.is_terminal:
            try:
                self._go_on()
            except ApiError as error:
                advice = errors.advice(str(error), self.cluster.bounds)
                self._writer.end(State.SYSTEM_ERROR, f"the cluster refused it: {error}{advice}")
            except End as end:
                self._writer.end(end.state, end.reason)
        self._workload.remove_claim()
        return self._record.state

    @property
    def _record(self) -> Record:
        return self._writer.record

    @property
    def _policy(self) -> steps.Policy:
        may_retry = len(self._record.attempts) <= self.cluster.retries
        return policy(self.task, self.cluster, has_volume=not self._plan.is_empty, may_retry=may_retry)

    def _go_on(self) -> None:
        """Takes the task one action further, or waits for something to change. Raises End, ApiError."""
        policy = self._policy
        step = steps.due(self.task, self._record.now, policy)
        if not isinstance(step, TaskStep):
            return self._perform(step)
        try:
            seen = self._see(step)
            actions = self._next_actions(seen, policy)
            if not actions and self._pod is not None:
                return self._observations.wait(self._pod.turn, self._look_s(self._pod, policy))
            return self._perform(actions)
        except Lost as error:
            return self._perform(self._next_actions(steps.Gone(str(error)), policy))

    def _next_actions(self, seen: steps.Seen, policy: steps.Policy) -> Sequence[steps.Action]:
        if isinstance(seen, steps.Gone) and self._is_ending():
            time.sleep(ENDING_S)
        return steps.next_actions(self.task, self._record.now, seen, self._now(), policy)

    def _look_s(self, pod: StepPod, policy: steps.Policy) -> float | None:
        """How long nothing may change before it is time to look again; None: for ever."""
        left = None
        if pod.step.role == "executor" and pod.step.n not in self._record.now.timed_out:
            left = left_s(self._record.now, policy.time_limit_s, self._now())
        return min((max(0.0, each) for each in (pod.look_s, left) if each is not None), default=None)

    def _is_ending(self) -> bool:
        """True when this very taskmaster is being deleted, or has been by force. The API is asked, since the watch may
        be late: whoever deletes all of a task begins with its taskmaster."""
        try:
            pod = self._api.get("pods", self._own)
        except ApiError as error:
            log.warning("whether pod %s is being deleted cannot be told: %s", self._own, error)
            return False
        return pod is None or decode_pod(pod).metadata.deletion_timestamp is not None

    def _see(self, step: TaskStep) -> steps.Seen:
        """What is seen of a step, by the pod in which it runs. Raises Lost, ApiError."""
        name = records.pod(self._record, self.task_id, step.role, step.n)
        if self._pod is None or self._pod.name != name:
            if self._pod is not None:
                self._pod.close()
            kind = ExecutorPod if step.role == "executor" else FilerPod
            self._pod = kind(
                step, name, self.task.executors[step.n].image, self.cluster, api=self._api,
                observations=self._observations, writer=self._writer, workload=self._workload,
            )  # fmt: skip
            if step.role == "inputs":
                self._workload.make_claim()
        is_made, is_asked = self._workload.is_made(name)
        return self._pod.see() if is_made else steps.Absent(is_asked)

    def _perform(self, actions: Sequence[steps.Action]) -> None:
        """Does what is to be done, in this order. Raises Lost, End, ApiError."""
        for action in actions:
            match action:
                case steps.Learn(facts):
                    self._learn(facts)
                case steps.Save():
                    self._writer.save()
                case steps.SetState(state):
                    self._writer.set_state(state)
                    self._record.waiting = ""
                case steps.Remove(pods):
                    for name in pods:
                        self._api.delete("pods", name, 0)
                case steps.Retry(why):
                    self._begin_again(why)
                case steps.Finish(state, reason):
                    self._writer.end(state, reason)
                case _:
                    assert self._pod is not None
                    self._act(action, self._pod)

    def _act(self, action: steps.Ask | steps.Start | steps.Stop | steps.Replace, pod: StepPod) -> None:
        """Does something with the pod of the step that is due."""
        match action:
            case steps.Ask():
                self._workload.ask(pod.name)
            case steps.Start(step):
                self._workload.make(pod.name, self._manifest(step, pod.name))
            case steps.Stop():
                pod.stop()
            case steps.Replace():
                self._api.delete("pods", pod.name)

    def _manifest(self, step: TaskStep, name: str) -> Manifest:
        context, facts = self._workload.place(), self._record.now
        if step.role == "executor":
            own_workdir = step.n in facts.own_workdir
            return manifests.executor_pod(context, name, step.n, self._plan, own_workdir=own_workdir)
        failed = step.role == "outputs" and steps.has_failed(self.task, facts)
        return manifests.filer_pod(context, name, step.role, failed=failed)

    def _learn(self, facts: Facts) -> None:
        assert isinstance(facts, Attempt)
        if facts.found != self._record.now.found:
            self._plan = layout(self.task, facts.found)
        self._writer.learn(facts)

    def _begin_again(self, reason: str) -> None:
        self._writer.note(f"error: {reason}; trying again")
        self._writer.set_state(State.INITIALIZING)
        self._record.now.log.end_time = now()
        self._writer.save()  # whoever has been superseded stops here, before it deletes the pods of another
        for pod in self._record.now.pods:
            self._api.delete("pods", pod, 0)
        self._workload.remove_claim()
        self._record.attempts.append(Attempt(TaskLog(start_time=now())))
        self._plan = layout(self.task)
        self._writer.save()
