"""The task's record as its taskmaster keeps it: changed here, and made durable in the task's ConfigMap.

What happens next is built on what is durable, so most changes are saved at once; those that another follows at once
are left to it.

A taskmaster whose node was cut off may come back while another one has taken its place. Each writes on top of the
version that it knows (resourceVersion), so the one that comes late is refused and gives way: it cannot undo what the
other has recorded.
"""

import logging
import time
from typing import Final

import msgspec

from tesk.clock import now
from tesk.filer.plan import Progress
from tesk.kubernetes import manifests, names
from tesk.kubernetes import record as records
from tesk.kubernetes.manifests import Manifest
from tesk.kubernetes.objects import ConfigMap
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.log import noted
from tesk.life.log_bound import TOO_LONG, task_bytes
from tesk.taskmaster import endings
from tesk.taskmaster.api import Api, ApiError
from tesk.tes import State, TaskLog

log = logging.getLogger(__name__)

PAUSE_S: Final = 5.0

_configmap: Final = msgspec.json.Decoder(ConfigMap).decode


class Superseded(Exception):
    """Another taskmaster has written the record since this one has read it."""


class RecordWriter:
    """The record of one task, and all that is ever done with it."""

    def __init__(self, api: Api, task_id: str, cluster: TaskSettings, owner_uid: str) -> None:
        self._api, self._task_id, self._cluster, self._owner_uid = api, task_id, cluster, owner_uid
        self._version = ""
        self._saved = b""
        self.record = Record(State.QUEUED, [])

    def recall(self) -> Record:
        """Takes up the record of an earlier life, or begins one, which is made when there is something to record."""
        found = self._api.get("configmaps", names.task_object(self._task_id))
        if found is not None:
            self._version, self._saved = _read(found)
            self.record = records.unpack(self._saved)
            log.info("going on with the record of an earlier life: %s", self.record.state.name)
        else:
            self.record.attempts.append(Attempt(TaskLog(start_time=now())))
        return self.record

    def save(self) -> None:
        """Makes the record durable; a ConfigMap that somebody removed is made again. Raises Superseded, ApiError."""
        data = records.pack(self.record)
        while not self._write(data):
            self._take_version(data)

    def _write(self, data: bytes) -> bool:
        """Writes on top of the version that is known, or makes the first one; False where there is another."""
        if self._version:
            change = {
                "metadata": {"resourceVersion": self._version},
                "binaryData": manifests.binary({names.RECORD_KEY: data}),
            }
            try:
                made = self._api.merge("configmaps", names.task_object(self._task_id), change)
            except ApiError as error:
                if not error.is_conflict:
                    raise
                return False
        else:
            made = self._create(manifests.status(self._task_id, self._cluster, self._owner_uid, data))
        if made is None:
            return False
        self._version, self._saved = _read(made)[0], data
        return True

    def _take_version(self, data: bytes) -> None:
        """Takes the version that there is, if its record is ours: only labels have changed, or the answer to our own
        request was lost. Raises Superseded where it is not."""
        found = self._api.get("configmaps", names.task_object(self._task_id))
        self._version, recorded = ("", b"") if found is None else _read(found)
        if found is not None and recorded not in (self._saved, data):
            raise Superseded(f"ConfigMap {names.task_object(self._task_id)} was changed by another taskmaster")

    def note(self, line: str) -> None:
        """Adds a line for the user; it is saved with what it is about."""
        self.record.now.log = noted(self.record.now.log, line)

    def learn(self, facts: Attempt) -> None:
        """From now on these are the facts of the present attempt; they are saved with what is built on them."""
        self.record.attempts[-1] = facts
        if len(self.record.attempts) == 1:
            return
        whole = records.bound(self.record, task_bytes(self._cluster.log_tail_bytes))
        if not whole and TOO_LONG not in (self.record.now.log.system_logs or ()):
            self.note(TOO_LONG)

    def advance_state(self, state: State) -> None:
        """Goes on to a state, never back."""
        if state > self.record.state:
            self.record.state = state
            self.save()

    def set_state(self, state: State) -> None:
        """Comes to a state that the server sees by itself: it is saved with what follows."""
        self.record.state = max(self.record.state, state)

    def wait_for(self, words: str) -> None:
        """What the task waits for now, for the user and for the log; nothing, with no words."""
        if words != self.record.waiting:
            if words:
                log.warning("waiting: %s", words)
            self.record.waiting = words
            self.save()

    def end(self, state: State, reason: str) -> None:
        """The task's end with all that is known of it, or with state and reason alone where the API refuses that."""
        if reason:
            self.note(f"error: {reason}")
        self.record.now.log.end_time = now()
        self.record.state, self.record.waiting = state, ""
        try:
            self.save()
        except ApiError as error:
            words = f"warning: the log could not be kept: {error}"
        else:
            return
        log.error("%s", words)
        for attempt in self.record.attempts:
            attempt.log = TaskLog(start_time=attempt.log.start_time, end_time=attempt.log.end_time)
        self.record.now.log.system_logs = [words, *([f"error: {reason}"] if reason else [])]
        self.save()

    def show_progress(self, progress: Progress | None, *, save: bool = True) -> None:
        """How far a filer is."""
        if progress is not None and self.record.now.log.metadata != (shown := {"progress": progress.words()}):
            self.record.now.log.metadata = shown
            if save:
                self.save()

    def _create(self, manifest: Manifest) -> bytes | None:
        """Makes the ConfigMap, as soon as it may be made; None if there is one."""
        while True:
            try:
                return self._api.create("configmaps", manifest)
            except ApiError as error:
                if not error.is_passing:
                    raise
                log.warning("the record cannot be made yet: %s", error)
                time.sleep(PAUSE_S)


def _read(configmap: bytes) -> tuple[str, bytes]:
    """(version, packed record) of a ConfigMap as JSON. Raises ValueError where there is no record."""
    return _configmap(configmap).metadata.resource_version, endings.recorded(configmap)
