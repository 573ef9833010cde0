"""How long a step may wait for what: one for each step, it remembers since when something has been so."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from tesk.engines.kubernetes import observe
from tesk.engines.kubernetes.cluster import Cluster
from tesk.engines.kubernetes.objects import Event, Pod

QUIET_S: Final = 5.0
"""A pod that is being started for so long without a word may have one in its events."""
LOOK_S: Final = (5.0, 10.0, 20.0, 60.0)
SETTING: Final = {"room": "schedule_timeout_s", "image": "image_timeout_s", "start": "start_timeout_s"}


class Judged(Struct, frozen=True):
    """What a step waits for, in words (none while it is simply being started), and whether to give up."""

    words: str
    hopeless: bool = False


class Patience:
    """The limits of one step. `limit_s`: how long the program may run, 0 for ever."""

    def __init__(self, cluster: Cluster, limit_s: float = 0.0) -> None:
        self._cluster = cluster
        self.limit_s = limit_s
        self._since: dict[str, float] = {}
        self._begun = time.monotonic()
        self._ends: float | None = None
        self._looks = 0
        self._image_words = ""
        self._event_words = ""

    def started(self, at: str) -> None:
        """The program has started at that time; its limit counts from then."""
        if self.limit_s and self._ends is None:
            try:
                ago = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
            except ValueError:
                ago = 0.0
            self._ends = time.monotonic() + self.limit_s - max(0.0, ago)

    @property
    def is_overdue(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def since(self, what: str, seconds: float) -> bool:
        """True when this has been asked about `what` for so long."""
        begun = self._since.setdefault(what, time.monotonic())
        return time.monotonic() - begun >= seconds

    def judge(self, pod: Pod, warnings: Callable[[], list[Event]]) -> Judged:
        """What a pod that has not started waits for. `warnings` asks for its events, seldom."""
        trouble = observe.trouble(pod) or self._from_events(pod, warnings)
        if trouble is None:
            self._since.clear()
            return Judged("")
        words = trouble.words
        if trouble.kind == "image":
            words = self._image_words = observe.clearer(self._image_words, words)
        limit_s: float = getattr(self._cluster, SETTING[trouble.kind])
        if trouble.hopeless:
            return Judged(words, hopeless=True)
        late = self.since(trouble.kind, limit_s) if limit_s else False
        return Judged(f"{words} (for {limit_s:g} s)" if late else words, hopeless=late)

    def next_look_s(self, pod: Pod | None) -> float | None:
        """How long nothing may change before it is time to look again; None: for ever. `pod`: one not started yet."""
        ends = [] if self._ends is None else [self._ends - time.monotonic()]
        if "reporter" in self._since:
            ends.append(1.0)
        if pod is not None:
            ends.append(LOOK_S[min(self._looks, len(LOOK_S) - 1)])
            for kind, begun in self._since.items():
                if limit_s := getattr(self._cluster, SETTING.get(kind, ""), 0.0):
                    ends.append(begun + limit_s - time.monotonic())
        return max(0.0, min(ends)) if ends else None

    def _from_events(self, pod: Pod, warnings: Callable[[], list[Event]]) -> observe.Trouble | None:
        """What keeps a pod that has a node from starting is only in its events (mounts, sandboxes)."""
        waited = time.monotonic() - self._begun
        if waited < QUIET_S or not pod.spec.node_name:
            return None
        if waited >= sum(LOOK_S[: self._looks + 1]) or not self._looks:
            self._looks += 1
            found = warnings()
            self._event_words = f"{found[-1].reason}: {found[-1].message}" if found else ""
        return observe.Trouble("start", self._event_words) if self._event_words else None
