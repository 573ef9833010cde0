"""`tesk serve` as a process of its own, started, stopped and killed at will, and what a client sees of it."""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tesk import tes
from tesk.settings import TABLE, Settings
from tests import known_secrets
from tests.engines.running import Document

START_S = 300.0
END_S = 600.0


class Server:
    """One server with its data: it may be started again after its end. Its log is `log_file`, over all its lives."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self.settings = settings
        self.log_file = Path(settings.data) / "server.log"
        self.url = ""
        self._client = client
        self.headers = client.headers
        """Of every request."""
        self._process: Process | None = None
        self._sent: dict[str, Document] = {}

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    async def start(self) -> None:
        """Returns when it answers."""
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "tesk", "serve", "--port=0", *flags(self.settings)]
            self._process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=log)
        assert self._process.stdout
        async with asyncio.timeout(START_S):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("server: "), self.log[-3000:]
        self.url = line.removeprefix("server: ").strip()

    async def end(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)
        async with asyncio.timeout(START_S):
            await self._process.wait()

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    async def trouble(self) -> str | None:
        """What /readyz says is wrong; None when it is ready."""
        answer = await self._client.get(f"{self.url}/readyz")
        return None if answer.status_code == 200 else str(answer.json()["msg"])

    async def ready(self, seconds: float = START_S) -> None:
        async with asyncio.timeout(seconds):
            while await self.trouble() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def troubled(self, words: str, seconds: float = START_S) -> None:
        """Until /readyz says so."""
        async with asyncio.timeout(seconds):
            while words not in (await self.trouble() or ""):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def logged(self, words: str, seconds: float = START_S) -> None:
        """Until the log says so: it is written with a little delay."""
        async with asyncio.timeout(seconds):
            while words not in self.log:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def create(self, document: Document, headers: Mapping[str, str] | None = None) -> str:
        answer = await self._client.post(f"{self.url}/v1/tasks", json=document, headers=headers)
        assert answer.status_code == 200, answer.text
        task_id = str(answer.json()["id"])
        self._sent[task_id] = document
        return task_id

    async def cancel(self, task_id: str) -> None:
        answer = await self._client.post(f"{self.url}/v1/tasks/{task_id}:cancel", json={})
        assert answer.status_code == 200, answer.text

    async def task(self, task_id: str) -> Document:
        answer = await self._client.get(f"{self.url}/v1/tasks/{task_id}?view=FULL")
        assert answer.status_code == 200, answer.text
        document: Document = answer.json()
        if tes.State[document["state"]].is_terminal:
            known_secrets.look_at_task(document, self._sent.get(task_id))
        return document

    async def tasks(self, view: str = "MINIMAL") -> list[Document]:
        """All tasks, newest first."""
        found: list[Document] = []
        query: dict[str, Any] = {"view": view, "page_size": 512}
        while True:
            answer = (await self._client.get(f"{self.url}/v1/tasks", params=query)).json()
            found += answer["tasks"]
            if not answer.get("next_page_token"):
                return found
            query["page_token"] = answer["next_page_token"]

    async def until(self, task_id: str, reached: Callable[[Document], bool], seconds: float = END_S) -> Document:
        task: Document = {}
        try:
            async with asyncio.timeout(seconds):
                while not reached(task := await self.task(task_id)):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"still so after {seconds:g} s: {task}") from None
        return task

    async def ended(self, task_id: str, seconds: float = END_S) -> Document:
        return await self.until(task_id, lambda task: tes.State[task["state"]].is_terminal, seconds)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Server]:
    """A server that is ready; it is ended by TERM."""
    async with httpx.AsyncClient(timeout=180) as client:
        server = Server(settings, client)
        with known_secrets.log_file("the log of a server", server.log_file):
            await server.start()
            try:
                await server.ready()
                yield server
                await server.end(signal.SIGTERM)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    await server.kill()
                print(server.log[-20_000:])


def flags(settings: Settings) -> list[str]:
    """What makes `tesk serve` use these settings."""
    found: list[str] = []
    for setting in TABLE:
        value = getattr(settings, setting.name)
        if value != setting.default:
            found += [f"{setting.flag}={each}" for each in (value if setting.is_list else [value])]
    return found
