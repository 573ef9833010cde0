"""Why a task waits whose leading pod (its taskmaster's, or the whole task's) is not at work, yet or any more, and when
waiting for that is given up.

A Job without a pod says why only in its events, and so does a pod that cannot mount its Secrets. Events are asked for
seldom and for few tasks at once: a thousand tasks that wait for room must not cost a thousand requests.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import msgspec

from tesk.kubernetes import manifests, names, objects, pod_status
from tesk.kubernetes.errors import ApiError, is_lasting
from tesk.life.status import TaskId
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.observed import Assessment, Limit, ObservedTask
from tesk.retry import pauses

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
UNHEARD_S: Final = 20.0
ASK_AFTER_S: Final = (4.0, 64.0)
MOST_ASKED: Final = 10

_events = msgspec.json.Decoder(objects.EventList).decode


class WaitingTasks:
    """Looks after the tasks that wait for their leading pods, by what is `assessed` of each."""

    def __init__(
        self, client: Client, observed: dict[TaskId, ObservedTask], assessed: dict[TaskId, Assessment],
        evaluate: Callable[[TaskId], None], make_again: Callable[[TaskId], Awaitable[None]],
        is_there: Callable[[TaskId], Awaitable[bool]], advice: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._client, self._observed, self._assessed = client, observed, assessed
        self._evaluate, self._make_again, self._is_there, self._advice = evaluate, make_again, is_there, advice
        self._next: dict[TaskId, tuple[float, Iterator[float]]] = {}
        self._said = ""

    async def watch_over(self, unheard: Callable[[float], list[TaskId]]) -> None:
        """For ever. `unheard` gives the tasks whose Job or pod was made so long ago and has not been seen."""
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
        missing = {task_id: self._observed[task_id] for task_id, each in self._assessed.items() if each.waits_for_pod}
        self._next = {
            task_id: self._next.get(task_id) or _asked_at(moment, pauses(*ASK_AFTER_S)) for task_id in missing
        }
        for task_id in self._assessed.keys() - missing.keys():
            if self._observed[task_id].record is not None:
                self._observed[task_id].delay = ""
        for task_id, found in list(self._assessed.items()):
            limit = found.limit
            if limit is not None and moment >= limit.at:
                self._give_up(task_id, limit)
        due = [task_id for task_id, (at, _) in self._next.items() if at <= moment and _says_little(missing[task_id])]
        for task_id in due[:MOST_ASKED]:
            self._next[task_id] = _asked_at(moment, self._next[task_id][1])
            await self._ask(task_id, missing[task_id])

    def _give_up(self, task_id: TaskId, limit: Limit) -> None:
        task = self._observed[task_id]
        if limit.is_loss:
            task.lost = limit.reason
        else:
            task.refused = limit.reason
        self._evaluate(task_id)

    async def _ask(self, task_id: TaskId, task: ObservedTask) -> None:
        """Asks for the newest warning about the task's pod, or about its Job while there is none."""
        pod = task.leading_pod
        about = pod.metadata.name if pod else names.task_object(task_id)
        if pod and pod_status.runs(pod):
            task.delay = f"the taskmaster, pod {about}, has told nothing yet; see its log"
            self._evaluate(task_id)
            return
        if pod and task.mode == "pod":
            await self._ask_about_task_pod(task_id, task, pod)
            return
        selector = f"type=Warning,involvedObject.name={about}"
        event = newest(_events(await self._client.find("events", fieldSelector=selector)).items)
        found = self._assessed.get(task_id)
        if event is None or found is None or not found.waits_for_pod:
            return
        task.delay = f"{event.reason}: {event.message}"
        if event.reason == "FailedCreate" and pod is None and task.record is None and is_lasting(event.message):
            task.refused = f"the cluster refused its taskmaster: {event.message}{self._advice(event.message)}"
        elif event.reason == "FailedMount":
            await self._make_again(task_id)
        self._evaluate(task_id)

    async def _ask_about_task_pod(self, task_id: TaskId, task: ObservedTask, pod: objects.Pod) -> None:
        """All that its events say, or those of its claim while it has no node."""
        about = pod.metadata.name + ("" if pod.spec.node_name else f"-{manifests.SCRATCH_VOLUME}")
        events = _events(await self._client.find("events", fieldSelector=f"involvedObject.name={about}")).items
        task.set_event_trouble(pod_status.trouble_by_events(pod, sorted(events, key=_at)), time.monotonic())
        self._evaluate(task_id)

    async def _confirm(self, task_id: TaskId) -> None:
        """What no watch has shown may have been deleted before it could be."""
        if not await self._is_there(task_id) and (task := self._observed.get(task_id)):
            task.was_made = True
            self._evaluate(task_id)


def newest(events: list[objects.Event]) -> objects.Event | None:
    """The last of some events."""
    return max(events, key=_at, default=None)


def _at(event: objects.Event) -> str:
    return event.last_timestamp or event.event_time or ""


def _says_little(task: ObservedTask) -> bool:
    """True where the status of the leading pod does not say what it waits for, or events say more of that."""
    return task.trouble is None or (task.mode == "pod" and task.trouble.kind == "volume")


def _asked_at(moment: float, waits: Iterator[float]) -> tuple[float, Iterator[float]]:
    return moment + next(waits), waits
