"""What a pod's status says about a task's step, in the words that a user needs (pure).

The taskmaster looks at a pod whenever it changes and asks: is it over, is it lost, what does it wait for? Everything
is read from the status as it is now, so it does not matter which changes were seen. A pod is judged by tesk's own
containers: those that a webhook has added may never end.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from tesk.kubernetes import names
from tesk.kubernetes.objects import ContainerStatus, Event, Pod, Terminated

NEVER_PULLED: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
PULLING: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"})
REFUSED: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
NON_ROOT: Final = "set run_as_user, or use an image whose user is a number other than 0"
ORDINARY: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
VOLUME: Final = re.compile("persistentvolumeclaim|persistent volumes|binding volumes|volume node affinity", re.I)
NO_NEWS: Final = frozenset({"WaitForFirstConsumer", "WaitForPodScheduled", "ProvisioningSucceeded"})
LACKS_CLAIM: Final = 'persistentvolumeclaim "'
"""In the words of the scheduler about a claim that is gone, or going: what its events said before is over."""
INTERRUPTED: Final = ("context canceled", "context deadline exceeded", "ttrpc: closed", "transport is closing")
CAUSES: Final = {
    "PreemptionByScheduler": "preempted by a task of higher priority",
    "PreemptionByKubeScheduler": "preempted by a task of higher priority",
    "EvictionByEvictionAPI": "evicted, as when its node is drained",
    "DeletionByTaintManager": "its node was lost or tainted",
    "DeletionByPodGC": "its node was lost",
    "TerminationByKubelet": "ended by its node",
}


class Trouble(Struct, frozen=True):
    """What keeps a pod from starting: too little room, an image that cannot be pulled, a volume that cannot be had,
    something else on its node, or ("wait") nothing that is wrong.

    `hopeless`: waiting longer cannot help.
    """

    kind: Literal["room", "image", "volume", "start", "wait"]
    words: str
    hopeless: bool = False
    container: str = ""
    """The name of the container that cannot start, where it is one of them."""


LIMITS: Final = {
    "room": "schedule_timeout_s",
    "image": "image_timeout_s",
    "volume": "start_timeout_s",
    "start": "start_timeout_s",
}
"""The setting that says how long each kind of trouble may last."""


def container(pod: Pod, name: str) -> ContainerStatus | None:
    """The status of one of the pod's containers; None before the kubelet has said anything of it."""
    return next((status for status in pod.status.container_statuses if status.name == name), None)


def terminated(pod: Pod, name: str) -> Terminated | None:
    """How the container ended; None if it has not."""
    status = container(pod, name)
    return status.state.terminated if status else None


def started(pod: Pod, name: str) -> str | None:
    """When the container started, by the kubelet's clock; None before."""
    status = container(pod, name)
    if status is None:
        return None
    state = status.state
    if state.running:
        return state.running.started_at or None
    return (state.terminated.started_at or None) if state.terminated else None


def has_ended(pod: Pod) -> bool:
    """True when the whole pod has ended for good; only then it says why, if it was taken away."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_over(pod: Pod) -> bool:
    """True when all of tesk's containers in the pod have ended for good. A taskmaster that failed is started again."""
    ours = _ours(pod)
    are_terminated = all(
        status.state.terminated and (status.name != names.TASKMASTER_CONTAINER or not status.state.terminated.exit_code)
        for status in ours
    )
    return has_ended(pod) or (bool(ours) and are_terminated)


def has_company(pod: Pod) -> bool:
    """True when the pod has containers that are not tesk's, for which it may go on when tesk's have ended."""
    return any(not names.is_ours(each.name) for each in pod.spec.containers)


def _ours(pod: Pod) -> list[ContainerStatus]:
    return [status for status in pod.status.container_statuses if names.is_ours(status.name)]


def runs(pod: Pod) -> bool:
    """True when what the pod is for has been started: an executor, a filer and those that look at images beside it."""
    states = [status.state for status in _ours(pod) if status.name != names.REPORTER_CONTAINER]
    return bool(states) and all(state.running or state.terminated for state in states)


def looked_in_vain(pod: Pod) -> tuple[ContainerStatus, str] | None:
    """A container that could not look at its image, and why."""
    for status in _ours(pod):
        end = status.state.terminated
        if status.name.startswith(names.LOOK_CONTAINER) and end is not None and end.exit_code:
            return status, never_ran(end) or f"exit code {end.exit_code}{last_words(end)}"
    return None


def loss(pod: Pod, *, deleting_is_loss: bool = True, is_gone: bool = False) -> str | None:
    """Why the pod was taken away from outside; None if it was not.

    Eviction by the kubelet is in the phase's reason, what the control plane did in the condition DisruptionTarget
    (Kubernetes documentation, Disruptions, "Pod disruption conditions"); a deletion by hand shows as nothing else.
    The condition is set before the pod is deleted, and for a deletion that then fails too: alone it only announces.
    """
    is_done = is_gone or bool(pod.metadata.deletion_timestamp) or pod.status.phase == "Failed"
    if pod.status.reason in ("Evicted", "NodeLost", "Preempting", "NodeShutdown", "Terminated", "NodeAffinity"):
        return _with(f"pod {pod.metadata.name}: {pod.status.reason.lower()}", pod.status.message)
    for condition in pod.status.conditions:
        if condition.type == "DisruptionTarget" and condition.status == "True" and is_done:
            cause = CAUSES.get(condition.reason, condition.reason)
            return _with(f"pod {pod.metadata.name}: {cause}", condition.message)
    if pod.metadata.deletion_timestamp and deleting_is_loss:
        return f"pod {pod.metadata.name} was deleted by somebody else"
    for status in _ours(pod):
        if status.state.terminated and status.state.terminated.reason == "ContainerStatusUnknown":
            return f"pod {pod.metadata.name}: its node does not know how {status.name} ended"
    return None


def trouble(pod: Pod) -> Trouble | None:
    """What the pod waits for, if it is not simply being started."""
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            words = condition.message or condition.reason
            lacks_room = "Insufficient" in words or not VOLUME.search(words)
            return Trouble("room" if lacks_room else "volume", words)
    every = pod.status.init_container_statuses + pod.status.container_statuses
    for status in _ours(pod) if runs(pod) else every:
        waiting = status.state.waiting
        if waiting is None or waiting.reason in ORDINARY:
            continue
        if waiting.reason in NEVER_PULLED | PULLING:
            cause = waiting.message.rpartition("ErrImagePull: ")[2]
            words = _with(f"image {status.image} cannot be pulled ({waiting.reason})", cause)
            return Trouble("image", words, hopeless=waiting.reason in NEVER_PULLED, container=status.name)
        if waiting.reason in REFUSED:
            words = _with(f"container {status.name} cannot be started ({waiting.reason})", waiting.message)
            if "runAsNonRoot" in waiting.message:
                return Trouble("start", f"{words}; {NON_ROOT}", hopeless=True, container=status.name)
            return Trouble("start", words, container=status.name)
    return None


def trouble_by_events(pod: Pod, events: Sequence[Event]) -> Trouble | None:
    """What the pod waits for by events, the newest last: those of the pod itself when it has a node, else those of its
    claim. Only there is said what a volume lacks, that it cannot be mounted, or that an image is being pulled."""
    if not pod.spec.node_name:
        if any(LACKS_CLAIM in condition.message for condition in pod.status.conditions):
            return None
        if events and events[-1].reason not in NO_NEWS:
            return Trouble("volume", f"its scratch volume: {events[-1].reason}: {events[-1].message}")
        if any(condition.type == "PodScheduled" for condition in pod.status.conditions):
            return None
        return Trouble("wait", f"pod {pod.metadata.name} has not been taken up by the scheduler yet")
    for event in reversed(events):
        if event.reason == "Pulling":
            return Trouble("wait", event.message)
        if event.type == "Warning" and event.reason != "FailedScheduling":
            return Trouble("start", f"{event.reason}: {event.message}")
        if event.type != "Warning":
            return None
    return None


def given_up(kind: str, limit_s: float) -> str:
    """What is added to the words of a trouble that has lasted for too long."""
    return f" (given up after {limit_s:g} s, {LIMITS[kind]})"


def failure(pod: Pod) -> str | None:
    """Why the pod as a whole failed, where neither a container's end nor a loss says it."""
    if pod.status.phase != "Failed":
        return None
    for status in pod.status.init_container_statuses:
        if (end := status.state.terminated) and end.exit_code:
            words = f"pod {pod.metadata.name}: {status.name}, which has to run first, ended with code {end.exit_code}"
            return f"{words} ({end.reason}){last_words(end)}"
    return _with(f"pod {pod.metadata.name} failed: {pod.status.reason or 'no reason given'}", pod.status.message)


def gone(name: str, last: Pod | None) -> str:
    """Why a pod is not there any more, if that shows in how it was at last."""
    why = loss(last, is_gone=True) if last is not None else None
    return why or f"pod {name} is gone: somebody deleted it, or it was drained or lost with its node"


def broken(pod: Pod, container: str) -> str:
    """Why a pod is over whose container did not come to its own end."""
    end = terminated(pod, container)
    if end is not None and end.reason == "OOMKilled":
        return f"pod {pod.metadata.name}: {container} ran out of memory"
    if end is not None:
        words = last_words(end)
        return f"pod {pod.metadata.name}: {container} ended with code {end.exit_code} ({end.reason}){words}"
    return failure(pod) or f"pod {pod.metadata.name} ended before its container {container} ran"


def exit_of(pod: Pod) -> Terminated | None:
    """The end of the executor's container by the kubelet's account."""
    return terminated(pod, names.EXECUTOR_CONTAINER)


def never_ran(end: Terminated) -> str | None:
    """Why the container's program could not be started at all, by the runtime's account."""
    if end.reason in ("StartError", "ContainerCannotRun"):
        return end.message or end.reason
    return None


def never_begun(pod: Pod, name: str) -> str | None:
    """Why a container was never begun, where that was its node's fault and passes, as when its kubelet has crashed.

    Only a failure to create it counts: what failed later may have begun.
    """
    end = terminated(pod, name)
    if end is None or not never_ran(end):
        return None
    for status in _ours(pod):
        words = status.state.terminated and never_ran(status.state.terminated)
        if words and "failed to create" in words and any(each in words for each in INTERRUPTED):
            return words
    return None


def last_words(end: Terminated) -> str:
    """The last line of what a container left to say, which is the end of its log; begins with a colon."""
    lines = end.message.strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def _with(words: str, message: str | None) -> str:
    return f"{words}: {message}" if message else words


def clearer(before: str, words: str) -> str:
    """Of two accounts of a failed pull the one that says why: a back-off by itself does not."""
    is_dull = "ImagePullBackOff" in words and ("ImagePullBackOff" not in before or "rpc error" not in words)
    return before if before and is_dull else words
