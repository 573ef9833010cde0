"""A tesk in this process, as `tesk serve` puts it together, on whichever engine its settings name."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from tesk import tes
from tesk.dispatch.dispatcher import Dispatcher
from tesk.identity import EVERYBODY, SERVER, Identity
from tesk.places import open_place
from tesk.rules import Grants
from tesk.rules.check import check
from tesk.rules.file import RulesFile
from tesk.rules.granting import grants
from tesk.settings import Settings
from tesk.store import open_store
from tesk.store.base import NewTask, Row
from tests import known_secrets
from tests.engines.places import KubernetesPlace, Place
from tests.servers import containers

SHORT_S = 600.0
MODE_LINES = ("runs as one pod", "runs with a taskmaster: ")

Document = dict[str, Any]


class Tesk:
    """A dispatcher with its store and its engine, as `tesk serve` puts them together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data = Path(settings.data)
        self._sent: dict[str, Document] = {}
        self.store = open_store(f"sqlite:///{self.data}/tesk.db", log_tail_bytes=settings.log_tail_bytes)
        self.engine = open_place(settings)
        self.rules = RulesFile(settings.rules, partial(check, settings=settings))
        self.dispatcher = Dispatcher(self.store, self.engine, settings, self.rules)

    async def restart(self) -> None:
        """What a server that was killed would do at its next start."""
        await self.dispatcher.stop()
        self.engine = open_place(self.settings)
        self.dispatcher = Dispatcher(self.store, self.engine, self.settings, self.rules)
        await self.dispatcher.start()

    async def create(self, **document: Any) -> str:
        return await self.create_as(EVERYBODY, **document)

    async def create_as(self, whose: Identity | Grants, /, **document: Any) -> str:
        """A task of somebody, as far as the rules allow it, or one that was given this, whatever they say."""
        task, warnings = tes.parse(json.dumps(document).encode(), parameters=self.engine.backend_parameters)
        given = whose if isinstance(whose, Grants) else grants(task, self.rules.rules, whose)
        task_id = await self.store.create(NewTask(*tes.documents(task), warnings=warnings, grants=given))
        self.dispatcher.wake()
        self._sent[task_id] = document
        return task_id

    async def task(self, task_id: str) -> Document:
        """The FULL view, as a client would see it."""
        row = await self.store.get(task_id, "FULL", SERVER)
        assert isinstance(row, Row)
        task = {**json.loads(row.document), "id": row.id, "state": row.state.name}
        logs = json.loads(row.logs) if row.logs else []
        if row.state.is_terminal:
            known_secrets.look_at_task({**task, "logs": logs}, self._sent.get(task_id))
        return {**task, "logs": [without_mode(log) for log in logs]}

    async def until(self, task_id: str, reached: Callable[[Document], bool], seconds: float = SHORT_S) -> Document:
        document: Document = {}
        try:
            async with asyncio.timeout(seconds):
                while not reached(document := await self.task(task_id)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"still so after {seconds:g} s: {document}") from None
        return document

    async def ended(self, task_id: str, seconds: float = SHORT_S) -> Document:
        return await self.until(task_id, lambda task: tes.State[task["state"]].is_terminal, seconds)

    async def has_written(self, task_id: str, text: str, seconds: float = SHORT_S) -> None:
        """Returns when the executor that runs has written just this to stdout."""
        async with asyncio.timeout(seconds):
            while True:
                log = await self.dispatcher.live_log(task_id, SERVER)
                if log is not None and log.logs and log.logs[-1].stdout == text:
                    return
                await asyncio.sleep(0.02)

    async def has_said(self, task_id: str, line: str, seconds: float = SHORT_S) -> None:
        """Returns when the task that is under way has just this line in its system logs."""
        async with asyncio.timeout(seconds):
            while True:
                log = await self.dispatcher.live_log(task_id, SERVER)
                if log is not None and (log.system_logs or [])[-1:] == [line]:
                    return
                await asyncio.sleep(0.02)

    async def run(self, **document: Any) -> Document:
        return await self.ended(await self.create(**document))


def without_mode(log: Document) -> Document:
    """A log without its first line where that says how the task is run (tests/engines/test_kubernetes_pods.py sees to
    it): all else is alike in all places."""
    lines = log.get("system_logs") or []
    if not lines or not lines[0].startswith(MODE_LINES):
        return log
    return {key: value for key, value in log.items() if key != "system_logs"} | (
        {"system_logs": lines[1:]} if lines[1:] else {}
    )


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Tesk]:
    tesk = Tesk(settings)
    await tesk.store.open()
    try:
        await tesk.rules.open()
        await tesk.dispatcher.start()
        yield tesk
    finally:
        await tesk.dispatcher.stop()
        await tesk.rules.close()
        await tesk.store.close()


async def cancelled(tesk: Tesk, place: Place, task_id: str) -> Document:
    """Cancels a task; nothing of it may run when it is CANCELED, which comes soon after the grace period.

    On a cluster a Job controller that lags may make another pod, and takes it away once it knows.
    """
    before = await place.running(tesk.settings, task_id)
    begun = time.monotonic()
    state = await tesk.dispatcher.cancel(task_id, SERVER)
    assert state is not None
    assert state.name in ("CANCELING", "CANCELED")
    task = await tesk.ended(task_id, seconds=tesk.settings.grace_s + SHORT_S)
    print(f"CANCELED after {time.monotonic() - begun:.1f} s, with a grace period of {tesk.settings.grace_s:g} s")
    assert task["state"] == "CANCELED"
    left = await place.running(tesk.settings, task_id)
    assert [each for each in left if each in before or not isinstance(place, KubernetesPlace)] == []
    return task


def sh(script: str, **executor: Any) -> Document:
    """An executor that runs a script with the image's shell."""
    return {"image": containers.IMAGE, "command": ["sh", "-c", script], **executor}


def running(task: Document) -> bool:
    return bool(task["state"] == "RUNNING")


def content(path: str, text: str = "x") -> Document:
    """An inline input."""
    return {"path": path, "content": text}
