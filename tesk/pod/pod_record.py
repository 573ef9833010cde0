"""The task's record as its runner keeps it: told to the server, and in the pod's log and last words for a server that
could not be told.

The log shows one record after another, so it has one only where what users see has changed for good; how far a
transfer is, only the server is told.
"""

import sys
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tesk.clock import now
from tesk.filer.plan import Progress
from tesk.kubernetes import record as records
from tesk.kubernetes.output import record_line
from tesk.kubernetes.record import Attempt, Record
from tesk.life.facts import Facts, Role
from tesk.life.log import noted
from tesk.pod.record_sender import RecordSender
from tesk.tes import State, TaskLog

LAST_WORDS_BYTES: Final = 4000
LAST_WORDS_OF_POD_BYTES: Final = 12 * 1024
"""What the kubelet keeps of a container's termination message, and of those of all containers of a pod, each of which
has its equal part (kubelet, MaxContainerTerminationMessageLength and MaxPodTerminationMessageLogLength)."""


class PodRecord:
    """The record of the attempt that runs in this pod. `containers`: how many the pod has."""

    def __init__(self, sender: RecordSender, last_words: Path, containers: int) -> None:
        self._sender, self._last_words = sender, last_words
        self._room = min(LAST_WORDS_BYTES, LAST_WORDS_OF_POD_BYTES // containers)
        self._record = Record(State.INITIALIZING, [Attempt(TaskLog(start_time=now()))])
        self._is_new, self._is_further = True, False

    @property
    def facts(self) -> Attempt:
        return self._record.now

    @property
    def state(self) -> State:
        return self._record.state

    def learn(self, facts: Facts) -> None:
        """From now on these are the facts."""
        assert isinstance(facts, Attempt)
        self._record.attempts[-1] = facts
        self._is_new = True

    def set_state(self, state: State) -> None:
        """Comes to a state, never back."""
        if state > self._record.state:
            self._record.state = state
            self._is_new = True

    def set_types(self, role: Role, letters: str) -> None:
        """What inputs or outputs turned out to be."""
        if letters:
            self._record.types = replace(self._record.types, **{role: letters})

    def show_progress(self, progress: Progress | None) -> None:
        """How far a filer is."""
        if progress is not None and self.facts.log.metadata != (shown := {"progress": progress.words()}):
            self.facts.log.metadata = shown
            self._is_further = True

    def end(self, state: State, reason: str) -> None:
        """The task's end."""
        if reason:
            self.facts.log = noted(self.facts.log, f"error: {reason}")
        self.facts.log.end_time = now()
        self._record.state = state
        self._is_new = True
        self.publish()
        words = record_line(records.pack(self._record, self._room * 3 // 4 - len(record_line(b""))))
        try:
            self._last_words.write_text(words if len(words) <= self._room else "")
        except OSError as error:
            print(f"{self._last_words}: {error}", file=sys.stderr)

    def publish(self) -> None:
        """Tells what has changed since the last time."""
        if self._is_new or self._is_further:
            packed = records.pack(self._record)
            self._sender.put(packed)
            if self._is_new:
                print(record_line(packed), flush=True)
            self._is_new = self._is_further = False
