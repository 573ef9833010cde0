"""The record of a task that runs in one pod, from its runner's log: for what no report has told this server.

That is so where pods cannot reach the server, where it has just started, and at the end of a runner that was ended.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from tesk.kubernetes import names, output, pod_status
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.objects import Pod
from tesk.kubernetes.record import Record
from tesk.life.status import TaskId
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.observed import Assessment, ObservedTask
from tesk.retry import pauses

log = logging.getLogger(__name__)

PIECES: Final = (40, 400, 4000)
"""A node keeps a long line in pieces, and counts these where it is asked for the last lines."""
PIECE_BYTES: Final = 16 * 1024
TIMEOUT_S: Final = 10.0
PATIENCE_S: Final = 300.0
"""For so long the log of a runner that has ended is asked for, where its node does not answer."""
PAUSES_S: Final = (0.2, 5.0)
LOOK_S: Final = 1.0
AGAIN_S: Final = (4.0, 30.0)
MOST_READ: Final = 8


async def last_record(client: Client, pod: Pod) -> Record | None:
    """The newest record in the log of the pod's runner; None where there is none. Raises ApiError, and ValueError for a
    record that cannot be read."""
    for pieces in PIECES:
        text = await client.logs(pod.metadata.name, names.RUNNER_CONTAINER, pieces, pieces * PIECE_BYTES, TIMEOUT_S)
        lines = text.splitlines()
        if found := output.last_record(lines):
            return records.unpack(found)
        if len(lines) < pieces and len(text) < pieces * PIECE_BYTES // 2:
            break
    return None


def last_words(pod: Pod) -> Record | None:
    """The record that the runner has left as its termination message, if any: it has less of the output."""
    end = pod_status.terminated(pod, names.RUNNER_CONTAINER)
    found = output.last_record((end.message if end else "").encode().splitlines())
    try:
        return records.unpack(found) if found else None
    except ValueError as error:
        log.warning("pod %s: its termination message: %s", pod.metadata.name, error)
        return None


async def read_end(client: Client, task: ObservedTask) -> None:
    """Takes in what the runner of a task's pod has said, which has ended."""
    begun, unread = time.monotonic(), ""
    pod = task.leading_pod
    for pause_s in pauses(*PAUSES_S):
        if pod is None:
            return
        try:
            if found := await last_record(client, pod):
                task.set_record(found)
            break
        except ValueError as error:
            unread = str(error)
            break
        except ApiError as error:
            unread = str(error)
            is_late = time.monotonic() - begun > PATIENCE_S
            if not error.is_passing or is_late or pod_status.loss(pod):
                break
        await asyncio.sleep(pause_s)
        pod = task.leading_pod
    if pod is None:
        return
    if unread:
        log.warning("pod %s: its log cannot be read: %s", pod.metadata.name, unread)
    if (task.record is None or not task.record.state.is_terminal) and (left := last_words(pod)):
        task.set_record(left)


class SilentPods:
    """Reads now and then the logs of running pods that have told nothing, by what is `assessed` of their tasks."""

    def __init__(
        self, client: Client, observed: dict[TaskId, ObservedTask], assessed: dict[TaskId, Assessment],
        evaluate: Callable[[TaskId], None],
    ) -> None:  # fmt: skip
        self._client, self._observed, self._assessed, self._evaluate = client, observed, assessed, evaluate
        self._next: dict[TaskId, tuple[float, Iterator[float]]] = {}

    async def watch_over(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            moment = time.monotonic()
            silent = [task_id for task_id, each in self._assessed.items() if each.is_silent]
            self._next = {task_id: self._next.get(task_id) or _later(moment, pauses(*AGAIN_S)) for task_id in silent}
            due = [task_id for task_id, (at, _) in self._next.items() if at <= moment]
            for task_id in due[:MOST_READ]:
                self._next[task_id] = _later(moment, self._next[task_id][1])
            await asyncio.gather(*map(self._read, due[:MOST_READ]))

    async def _read(self, task_id: TaskId) -> None:
        task = self._observed.get(task_id)
        pod = task.leading_pod if task is not None else None
        if task is None or pod is None:
            return
        try:
            found = await last_record(self._client, pod)
        except (ApiError, ValueError) as error:
            log.info("the log of pod %s cannot be read: %s", pod.metadata.name, error)
            return
        if found is not None and not task.is_told and task.leading_pod is not None:
            task.set_record(found)
            self._evaluate(task_id)


def _later(moment: float, waits: Iterator[float]) -> tuple[float, Iterator[float]]:
    return moment + next(waits), waits
