"""What a taskmaster makes on the cluster for its task, each once: the claim of an attempt, and its pods."""

from typing import Final

import msgspec

from tesk.kubernetes import manifests, names, pod_status
from tesk.kubernetes.manifests import Manifest, PodContext
from tesk.kubernetes.objects import Event, Pod
from tesk.kubernetes.task_settings import TaskSettings
from tesk.layout import Layout
from tesk.life.outcome import End
from tesk.taskmaster import endings
from tesk.taskmaster.api import Api, ApiError
from tesk.taskmaster.observations import Observations
from tesk.taskmaster.record_writer import RecordWriter
from tesk.tes import State, Task

PAUSE_S: Final = 5.0
ASKED: Final = ""
"""In place of the uid of a pod that has been asked for, by this life or one whose answer is lost."""
decode_pod: Final = msgspec.json.Decoder(Pod).decode


class Lost(Exception):
    """A pod is not there any more, in which the step may have run."""


class Workload:
    """The objects of one task. `address`: where its pods reach the taskmaster."""

    def __init__(
        self, task_id: str, task: Task, cluster: TaskSettings, plan: Layout, *, owner_uid: str, parts: int,
        address: str, api: Api, observations: Observations, writer: RecordWriter,
    ) -> None:  # fmt: skip
        self._task_id, self._task, self._cluster, self._plan = task_id, task, cluster, plan
        self._owner_uid, self._parts, self._address = owner_uid, parts, address
        self._api, self._observations, self._writer = api, observations, writer

    def place(self) -> PodContext:
        """What all pods of the attempt have in common."""
        bound = self._cluster.access_mode.startswith("ReadWriteOnce") and not self._plan.is_empty
        return PodContext(
            self._task_id, self._task, self._cluster, self._owner_uid, self._address, self._parts,
            len(self._writer.record.attempts), self._writer.record.now.node if bound else "",
        )  # fmt: skip

    def make_claim(self) -> None:
        attempt = len(self._writer.record.attempts)
        claim = manifests.claim(self._task_id, self._task, self._cluster, self._owner_uid, attempt)
        self._create("persistentvolumeclaims", claim)

    def remove_claim(self) -> None:
        if not self._plan.is_empty:
            claim = names.claim(self._task_id, len(self._writer.record.attempts))
            self._api.delete("persistentvolumeclaims", claim)

    def is_made(self, name: str) -> tuple[bool, bool]:
        """Whether the pod has been made, and whether it is on record that it is about to be. Raises Lost.

        A life may be cut off before it reads the answer. The next one makes the pod where there is none, but not where
        there was one, in which the executor may have run.
        """
        uid = self._writer.record.now.pods.get(name)
        if uid or uid is None:
            return bool(uid), uid is not None
        if self._has_been(name):
            raise Lost(pod_status.gone(name, self._observations.last(name)))
        return False, True

    def ask(self, name: str) -> None:
        """Puts on record that the pod is asked for, with what has been learnt until then."""
        self._writer.record.now.pods[name] = ASKED
        self._writer.save()

    def make(self, name: str, manifest: Manifest) -> None:
        """Makes the pod, or finds that it was made. Raises Lost, End, ApiError."""
        made = self._create("pods", manifest) or self._api.get("pods", name)
        if made is None:
            raise Lost(f"pod {name} was deleted by somebody else")
        pod = decode_pod(made)
        if all(owner.uid != self._owner_uid for owner in pod.metadata.owner_references):
            raise End(State.SYSTEM_ERROR, f"pod {name} is there already and is not this task's; delete it")
        self._writer.record.now.pods[name] = pod.metadata.uid
        self._observations.answered(pod)

    def _has_been(self, name: str) -> bool:
        """True when a pod that is not there was: the scheduler and its node have told of it in events."""
        if self._api.get("pods", name) is not None:
            return False
        of = f"involvedObject.kind=Pod,involvedObject.name={name}"
        return bool(endings.cluster_events(self._api.find("events", fieldSelector=of)))

    def present(self, name: str, pod: Pod | None) -> Pod:
        """The pod as the cluster has it. Raises Lost when it is gone: the watch may be late, so it is asked for."""
        if pod is None:
            found = self._api.get("pods", name)
            if found is None:
                raise Lost(pod_status.gone(name, self._observations.last(name)))
            pod = decode_pod(found)
            self._observations.answered(pod)
        self._place_at(pod)
        return pod

    def _place_at(self, pod: Pod) -> None:
        if pod.spec.node_name and not self._writer.record.now.node and not self._plan.is_empty:
            self._writer.record.now.node = pod.spec.node_name

    def events(self, pod: Pod) -> list[Event]:
        """What the cluster says about a pod; about its claim while the pod has no node."""
        of = f"involvedObject.kind=Pod,involvedObject.name={pod.metadata.name}"
        if not pod.spec.node_name:
            if self._plan.is_empty:
                return []
            claim = names.claim(self._task_id, len(self._writer.record.attempts))
            of = f"involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}"
        return endings.cluster_events(self._api.find("events", fieldSelector=of))

    def _create(self, kind: str, manifest: Manifest) -> bytes | None:
        """Creates; waits while that is refused for now, as with no room in a quota. Raises ApiError where it lasts."""
        while True:
            try:
                made = self._api.create(kind, manifest)
            except ApiError as error:
                if not error.is_passing:
                    raise
                self._writer.wait_for(str(error))
                self._observations.wait(self._observations.snapshot("")[0], PAUSE_S)
            else:
                self._writer.wait_for("")
                return made
