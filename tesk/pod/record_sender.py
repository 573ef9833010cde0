"""Tells the server of the task's record, from a thread of its own: the newest one, until it has been taken.

A server that restarts answers with errors, or not at all, or does not know the pod yet; so no answer but 204 is the
last. Whatever could not be told stands in the pod's log.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Final

from tesk.pod.messages import post
from tesk.retry import pauses

TIMEOUT_S: Final = 10.0
PAUSES_S: Final = (0.1, 10.0)
LAST_PAUSE_S: Final = 0.5
"""The longest pause once somebody waits."""
TAKEN: Final = "204"
PAUSED_WITHIN_S: Final = 2.0


class RecordSender:
    """`server`: its "host:port"; empty where pods cannot reach it, and nothing is sent."""

    def __init__(self, server: str, pod: str, word: str) -> None:
        self._server, self._path, self._word = server, f"/{pod}", word
        self._newest: bytes | None = None
        self._is_told = True
        self._longest_s = PAUSES_S[1]
        self._change = threading.Condition()
        self._sending = threading.Lock()
        if server:
            threading.Thread(target=self._send, name="tell", daemon=True).start()

    def put(self, packed: bytes) -> None:
        """From now on this is the record."""
        if self._server:
            with self._change:
                self._newest, self._is_told = packed, False
                self._change.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """True when the newest record has been told, at the latest after so long."""
        with self._change:
            self._longest_s = LAST_PAUSE_S
            self._change.notify_all()
            return self._change.wait_for(lambda: self._is_told, timeout_s)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is being sent, unless that takes long, as to a server that is away.

        A process that is forked while another thread looks a name up may find the C library's locks taken for ever.
        """
        is_paused = self._sending.acquire(timeout=PAUSED_WITHIN_S)
        try:
            yield
        finally:
            if is_paused:
                self._sending.release()

    def _send(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: not self._is_told)
            for pause_s in pauses(*PAUSES_S):
                if self._try():
                    break
                with self._change:
                    self._change.wait(min(pause_s, self._longest_s))

    def _try(self) -> bool:
        """Sends the newest record; True when it was taken."""
        with self._sending:
            packed = self._newest
            assert packed is not None
            try:
                answer = post(self._server, self._path, self._word, packed, TIMEOUT_S)
            except (OSError, ValueError) as error:
                answer = str(error)
            if answer != TAKEN:
                print(f"the server at {self._server} was not told: {answer}; trying again", file=sys.stderr)
        with self._change:
            self._is_told = answer == TAKEN and packed is self._newest
            self._change.notify_all()
        return answer == TAKEN
