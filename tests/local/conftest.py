"""The local engine on real container engines: the whole way of a task without HTTP, and what it must leave behind."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from tesk import tes
from tesk.dispatcher import Dispatcher
from tesk.engines import open_engine
from tesk.engines.local.containers import Containers
from tesk.engines.local.engine import instance
from tesk.settings import Settings
from tesk.store import open_store
from tesk.store.base import NewTask, Row
from tests.servers import containers

SHORT_S = 60.0
IMAGES = {
    containers.IMAGE: {},
    containers.NOBODY_IMAGE: {"user": "nobody", "entrypoint": ["/bin/false"]},
    containers.BARE_IMAGE: {"shell": False},
}  # type: dict[str, dict[str, Any]]

Document = dict[str, Any]


@pytest.fixture(scope="session", params=["podman", "docker"])
def engine_socket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a real container engine that holds the tests' images."""
    start = containers.podman_service if request.param == "podman" else containers.docker_daemon
    with start(tmp_path_factory.mktemp(request.param)) as socket:
        asyncio.run(_load_images(socket))
        yield socket


async def _load_images(socket: Path) -> None:
    async with aiodocker.Docker(url=f"unix://{socket}") as docker:
        for name, options in IMAGES.items():
            await docker.images.import_image(containers.image_archive(name, **options))


class Tesk:
    """A dispatcher with its store and the local engine, as `tesk serve` puts them together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data = Path(settings.data)
        self.store = open_store(f"sqlite:///{self.data}/tesk.db", log_tail_bytes=settings.log_tail_bytes)
        self.engine = open_engine(settings)
        self.dispatcher = Dispatcher(self.store, self.engine, settings)

    async def create(self, **document: Any) -> str:
        task, warnings = tes.parse(json.dumps(document).encode())
        task_id = await self.store.create(NewTask(*tes.documents(task), warnings=warnings))
        self.dispatcher.wake()
        return task_id

    async def task(self, task_id: str) -> Document:
        """The FULL view, as a client would see it."""
        row = await self.store.get(task_id, "FULL")
        assert isinstance(row, Row)
        logs = json.loads(row.logs) if row.logs else []
        return {**json.loads(row.document), "id": row.id, "state": row.state.name, "logs": logs}

    async def until(self, task_id: str, reached: Callable[[Document], bool], seconds: float = SHORT_S) -> Document:
        async with asyncio.timeout(seconds):
            while not reached(document := await self.task(task_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return document

    async def ended(self, task_id: str, seconds: float = SHORT_S) -> Document:
        return await self.until(task_id, lambda task: tes.State[task["state"]].is_terminal, seconds)

    async def run(self, **document: Any) -> Document:
        return await self.ended(await self.create(**document))

    async def leftovers(self, socket: Path) -> list[str]:
        return await leftovers(socket, self.data)


async def leftovers(socket: Path, data: Path) -> list[str]:
    """Containers and folders that a tesk has not removed within a while after its tasks' ends."""
    listing = Containers(socket, instance(data))
    try:
        for _ in range(250):
            left = [*await listing.names(), *(entry.name for entry in (data / "tasks").iterdir())]
            if not left:
                break
            await asyncio.sleep(0.04)
        return left
    finally:
        await listing.close()


@pytest.fixture
def settings(engine_socket: Path, tmp_path: Path) -> Settings:
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "data").mkdir()
    return Settings(
        data=str(tmp_path / "data"), engine_socket=str(engine_socket), network="none", grace_s=1.0,
        file_roots=(str(shared),), default_cpu_cores=0.5, default_ram_gb=0.1, transfer_retries=1,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Tesk]:
    tesk = Tesk(settings)
    await tesk.store.open()
    try:
        await tesk.dispatcher.start()
        yield tesk
    finally:
        await tesk.dispatcher.stop()
        await tesk.store.close()


@pytest.fixture
async def tesk(settings: Settings, engine_socket: Path) -> AsyncIterator[Tesk]:
    """A running tesk; a test fails that leaves a container or a folder behind."""
    async with started(settings) as running:
        yield running
        assert await running.leftovers(engine_socket) == []


@pytest.fixture
def shared(settings: Settings) -> Path:
    """A folder that file: URLs may use."""
    return Path(settings.file_roots[0])


def sh(script: str, **executor: Any) -> Document:
    """An executor that runs a script with the image's shell."""
    return {"image": containers.IMAGE, "command": ["sh", "-c", script], **executor}


def content(path: str, text: str = "x") -> Document:
    """An inline input."""
    return {"path": path, "content": text}
