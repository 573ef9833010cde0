"""What is known of the task's pods just now: by the watch, and by what they tell themselves.

Two threads write on it, the task's life reads it and waits for it to change.
"""

import threading

from tesk.kubernetes.messages import Told
from tesk.kubernetes.objects import Pod


class Board:
    """Pods by name, and what each has told. Safe for threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pods: dict[str, Pod] = {}
        self._gone: dict[str, Pod] = {}
        self._told: dict[str, list[Told]] = {}
        self._turn = 0

    def expect(self, pod: str) -> None:
        """From now on the pod may tell something."""
        with self._changed:
            self._told.setdefault(pod, [])

    def forget(self, pod: str) -> None:
        """Drops what the pod has told: its step is over. Executors' output is in it, and there may be a thousand."""
        with self._changed:
            self._told.pop(pod, None)

    def replace(self, pods: dict[str, Pod]) -> None:
        with self._changed:
            self._pods = pods
            self._turn += 1
            self._changed.notify_all()

    def change(self, pod: Pod, *, gone: bool = False) -> None:
        """A pod as the watch tells that it is now, or was when it went."""
        name = pod.metadata.name
        with self._changed:
            if gone:
                self._pods.pop(name, None)
                self._gone[name] = pod
            else:
                self._pods[name] = pod
            self._turn += 1
            self._changed.notify_all()

    def answered(self, pod: Pod) -> None:
        """A pod by the answer to a request, which may come later than what the watch has told of it since."""
        name = pod.metadata.name
        with self._changed:
            known = [each.metadata.uid for each in (self._pods.get(name), self._gone.get(name)) if each is not None]
            if pod.metadata.uid not in known:
                self._pods[name] = pod
                self._turn += 1
                self._changed.notify_all()

    def tell(self, pod: str, told: Told) -> bool:
        """Takes what a pod tells; False if nothing is expected of it."""
        with self._changed:
            heard = self._told.get(pod)
            if heard is None:
                return False
            heard.append(told)
            self._turn += 1
            self._changed.notify_all()
            return True

    def look(self, pod: str) -> tuple[int, Pod | None, list[Told]]:
        """(turn, the pod, what it told): as of now."""
        with self._changed:
            return self._turn, self._pods.get(pod), list(self._told.get(pod, ()))

    def last(self, pod: str) -> Pod | None:
        """How a pod was when it went; None if nobody saw it go."""
        with self._changed:
            return self._gone.get(pod)

    def wait(self, turn: int, timeout_s: float | None) -> None:
        """Until something has changed since `turn`, or for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn != turn, timeout_s)
