"""Why a task waits that has no taskmaster at work, yet or any more, and when waiting for one is given up.

A Job without a pod says why only in its events, and so does a pod that cannot mount its Secrets. Events are asked for
seldom and for few tasks at once: a thousand tasks that wait for room must not cost a thousand requests.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import msgspec

from tesk.kubernetes import names, objects, pod_status
from tesk.kubernetes.errors import ApiError, is_lasting
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskId
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.standing import Known, hopeless, lacks_taskmaster, newest
from tesk.retry import pauses

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
UNHEARD_S: Final = 20.0
ASK_AFTER_S: Final = (4.0, 64.0)
MOST_ASKED: Final = 10

_events = msgspec.json.Decoder(objects.EventList).decode


class MissingTaskmasters:
    """Looks after the tasks in `known` that lack a taskmaster."""

    def __init__(
        self, client: Client, cluster: TaskSettings, known: dict[TaskId, Known], evaluate: Callable[[TaskId], None],
        make_again: Callable[[TaskId], Awaitable[None]], advice: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._client, self._cluster, self._known = client, cluster, known
        self._evaluate, self._make_again, self._advice = evaluate, make_again, advice
        self._next: dict[TaskId, tuple[float, Iterator[float]]] = {}
        self._said = ""

    async def watch_over(self, unheard: Callable[[float], list[TaskId]]) -> None:
        """For ever. `unheard` gives the tasks whose Job was made so long ago and has not been seen."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
                for task_id in unheard(UNHEARD_S)[:MOST_ASKED]:
                    await self._confirm(task_id)
                self._said = ""
            except ApiError as error:
                if str(error) != self._said:
                    log.warning("why tasks wait cannot be had: %s; trying again", error)
                self._said = str(error)
            except Exception:
                log.exception("looking after waiting tasks failed; trying again")

    async def _look(self) -> None:
        moment = time.monotonic()
        waiting = {task_id: known for task_id, known in self._known.items() if lacks_taskmaster(known)}
        self._next = {
            task_id: self._next.get(task_id) or _asked_at(moment, pauses(*ASK_AFTER_S)) for task_id in waiting
        }
        for task_id, known in self._known.items():
            if known.record is not None and task_id not in waiting:
                known.waiting = ""
        for task_id, known in waiting.items():
            if not known.refused and (reason := hopeless(known, self._cluster, moment)):
                known.refused = reason
                self._evaluate(task_id)
        due = [task_id for task_id, (at, _) in self._next.items() if at <= moment and waiting[task_id].trouble is None]
        for task_id in due[:MOST_ASKED]:
            self._next[task_id] = _asked_at(moment, self._next[task_id][1])
            await self._ask(task_id, waiting[task_id])

    async def _ask(self, task_id: TaskId, known: Known) -> None:
        """Asks for the newest warning about the task's pod, or about its Job while there is none."""
        pod = known.taskmaster
        about = pod.metadata.name if pod else names.task_object(task_id)
        if pod and pod_status.runs(pod):
            known.waiting = f"the taskmaster, pod {about}, has told nothing yet; see its log"
            self._evaluate(task_id)
            return
        selector = f"type=Warning,involvedObject.name={about}"
        event = newest(_events(await self._client.find("events", fieldSelector=selector)).items)
        if event is None or not lacks_taskmaster(known):
            return
        known.waiting = f"{event.reason}: {event.message}"
        if event.reason == "FailedCreate" and pod is None and known.record is None and is_lasting(event.message):
            known.refused = f"the cluster refused its taskmaster: {event.message}{self._advice(event.message)}"
        elif event.reason == "FailedMount":
            await self._make_again(task_id)
        self._evaluate(task_id)

    async def _confirm(self, task_id: TaskId) -> None:
        """A Job that no watch has shown may have been deleted before it could."""
        if await self._client.get("jobs", names.task_object(task_id)) is None and (known := self._known.get(task_id)):
            known.job_seen = True
            self._evaluate(task_id)


def _asked_at(moment: float, waits: Iterator[float]) -> tuple[float, Iterator[float]]:
    return moment + next(waits), waits
