"""The pods of the task as of now, by the watch, and the messages that they have sent.

Two threads write here; the life of the task reads, and waits for a change.
"""

import threading

from tesk.kubernetes.messages import PodMessage
from tesk.kubernetes.objects import Pod


class Observations:
    """Pods by name, and the messages that each has sent. Safe for threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pods: dict[str, Pod] = {}
        self._gone: dict[str, Pod] = {}
        self._messages: dict[str, list[PodMessage]] = {}
        self._turn = 0

    def expect(self, pod: str) -> None:
        """From now on messages of the pod are taken."""
        with self._changed:
            self._messages.setdefault(pod, [])

    def drop_messages(self, pod: str) -> None:
        """Drops the messages of a pod whose step is over. Executors' output is in it, and there may be a thousand."""
        with self._changed:
            self._messages.pop(pod, None)

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

    def add_message(self, pod: str, message: PodMessage) -> bool:
        """Takes a message; False if none is expected of that pod."""
        with self._changed:
            messages = self._messages.get(pod)
            if messages is None:
                return False
            messages.append(message)
            self._turn += 1
            self._changed.notify_all()
            return True

    def snapshot(self, pod: str) -> tuple[int, Pod | None, list[PodMessage]]:
        """(turn, the pod, its messages): as of now."""
        with self._changed:
            return self._turn, self._pods.get(pod), list(self._messages.get(pod, ()))

    def last(self, pod: str) -> Pod | None:
        """How a pod was when it went; None if nobody saw it go."""
        with self._changed:
            return self._gone.get(pod)

    def wait(self, turn: int, timeout_s: float | None) -> None:
        """Until something has changed since `turn`, or for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn != turn, timeout_s)
