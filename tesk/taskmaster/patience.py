"""How long a step may wait for what: one for each step, it remembers since when something has been so."""

import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from tesk.kubernetes import pod_status
from tesk.kubernetes.objects import Event, Pod
from tesk.kubernetes.task_settings import TaskSettings

LOOK_S: Final = (5.0, 10.0, 20.0, 60.0)
"""A pod that has not started for so long without a word may have one in its events, or in those of its claim."""
REPEATED_S: Final = {"reporter": 1.0, "deleted": 0.5, "terminated": 1.0}
"""How often to look at what goes by without a word: a reporter that may yet tell, a pod that is to end and may still
write something, a TERM that somebody has sent."""


class Judged(Struct, frozen=True):
    """What a step waits for, in words (none while it is simply being started), and whether to give up."""

    words: str
    hopeless: bool = False


class Patience:
    """The limits of one step."""

    def __init__(self, cluster: TaskSettings) -> None:
        self._cluster = cluster
        self._since: dict[str, float] = {}
        self._looks = 0
        self._look_at = time.monotonic() + LOOK_S[0]
        self._had_node = False
        self._events: list[Event] = []
        self._image_words = ""

    def since(self, what: str, seconds: float) -> bool:
        """True when this has been asked about `what` for so long."""
        begun = self._since.setdefault(what, time.monotonic())
        return time.monotonic() - begun >= seconds

    def judge(self, pod: Pod, events: Callable[[Pod], list[Event]]) -> Judged:
        """What a pod that has not started waits for. `events` asks for those that may tell; that is done seldom."""
        trouble = pod_status.trouble(pod)
        if trouble is None or trouble.kind == "volume":
            trouble = self._by_events(pod, events) or trouble
        if trouble is None:
            self._since.clear()
            return Judged("")
        words = trouble.words
        if trouble.kind == "image":
            words = self._image_words = pod_status.clearer(self._image_words, words)
        if trouble.hopeless:
            return Judged(words, hopeless=True)
        limit_s = self._limit_s(trouble.kind)
        late = self.since(trouble.kind, limit_s) if limit_s else False
        return Judged(words + pod_status.given_up(trouble.kind, limit_s) if late else words, hopeless=late)

    def next_look_s(self, pod: Pod | None) -> float | None:
        """How long nothing may change before it is time to look again; None: for ever. `pod`: one not started yet."""
        moment = time.monotonic()
        ends = [seconds for what, seconds in REPEATED_S.items() if what in self._since]
        if pod is not None:
            ends.append(self._look_at - moment if self._look_at > moment else LOOK_S[-1])
            limits = {kind: self._limit_s(kind) for kind in self._since}
            ends += [self._since[kind] + limit_s - moment for kind, limit_s in limits.items() if limit_s]
        return max(0.0, min(ends)) if ends else None

    def _limit_s(self, kind: str) -> float:
        return float(getattr(self._cluster, pod_status.LIMITS.get(kind, ""), 0.0))

    def _by_events(self, pod: Pod, events: Callable[[Pod], list[Event]]) -> pod_status.Trouble | None:
        moment = time.monotonic()
        if bool(pod.spec.node_name) != self._had_node:
            self._had_node = bool(pod.spec.node_name)
            self._looks, self._look_at = 0, moment + LOOK_S[0]
        if moment >= self._look_at:
            self._looks = min(self._looks + 1, len(LOOK_S) - 1)
            self._look_at = moment + LOOK_S[self._looks]
            self._events = events(pod)
        return pod_status.trouble_by_events(pod, self._events) if self._looks else None
