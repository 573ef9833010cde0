"""The server is killed with SIGKILL again and again while tasks are in every stage: each ends as if it had not been."""

import asyncio
import contextlib
import random
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.engines.places import containers_and_folders
from tests.engines.running import content, sh
from tests.servers import containers

TASKS = 36
KILLS = 14
START_S = 300.0


class Server:
    """`tesk serve` as a process, started and killed at will; what it keeps is in `folder`."""

    def __init__(self, folder: Path, socket: str) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir()
        self.data = folder / "data"
        self._socket = socket
        self._process: Process | None = None
        self.url = ""

    async def start(self) -> None:
        arguments = ["--port=0", f"--data={self.data}", f"--file-root={self.shared}", f"--engine-socket={self._socket}"]
        arguments += ["--network=none", "--default-cpu-cores=0.5", "--default-ram-gb=0.1", "--grace-s=1"]
        with (self.folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "tesk", "serve", *arguments]
            self._process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=log)
        assert self._process.stdout
        async with asyncio.timeout(START_S):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("server: "), (self.folder / "server.log").read_text()[-3000:]
        self.url = line.removeprefix("server: ").strip()

    async def end(self, number: signal.Signals) -> list[psutil.Process]:
        """Signals the server; its former child processes that still exist a while after its end.

        Podman's conmon is none of them, nor what is below it: it stays with a container that has not started yet, which
        the next server takes up or removes. One that was just being made is known by its name only later.
        """
        assert self._process
        children = _below(psutil.Process(self._process.pid))
        self._process.send_signal(number)
        async with asyncio.timeout(START_S):
            await self._process.wait()

        def alive() -> list[psutil.Process]:
            return [each for each in children if each.is_running() and _name(each) not in ("conmon", "")]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while alive():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        return alive()

    async def ready(self, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(START_S):
            while (answer := await client.get(f"{self.url}/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert answer


def _below(process: psutil.Process) -> list[psutil.Process]:
    """The process' children and theirs, but for conmons and what is below them."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in process.children():
            if _name(child) != "conmon":
                found += [child, *_below(child)]
    return found


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def document(n: int, shared: Path) -> dict[str, Any]:
    """Task N: inputs, two executors that each note that they ran, outputs; every fifth fails in the second."""
    (shared / f"in-{n}").write_text(f"input {n}\n")
    pause = (n % 4) * 0.4
    return {
        "name": f"task {n}",
        "inputs": [content("/work/inline", f"inline {n}\n"), {"path": "/work/in", "url": f"file://{shared}/in-{n}"}],
        "outputs": [{"path": "/work/ran", "url": f"file://{shared}/ran-{n}"}],
        "executors": [
            sh(f"echo first >> /work/ran; sleep {pause}; cat /work/in /work/inline >> /work/ran"),
            sh(f"echo second >> /work/ran; sleep {pause}; echo out {n}; exit {3 if n % 5 == 0 else 0}"),
        ],
    }


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["podman", "docker"])
async def test_tasks_survive_a_server_that_is_killed_at_random_moments(
    tmp_path_factory: pytest.TempPathFactory, engine: str
) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    moments = random.Random(seed)
    folder = tmp_path_factory.mktemp("x")  # short, since sockets lie deep below it
    async with contextlib.AsyncExitStack() as stack:
        socket = "podman"
        if engine == "docker":
            socket = str(stack.enter_context(containers.docker_daemon(folder)))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=600))
        server = Server(folder, socket)
        await server.start()
        await server.ready(client)
        path = Path(socket) if engine == "docker" else server.data / "run" / "podman.sock"
        await _load_image(path)
        ids = [await _create(client, server.url, document(n, server.shared)) for n in range(TASKS)]
        for _ in range(KILLS):
            await asyncio.sleep(moments.uniform(0.05, 3.0))
            assert await server.end(signal.SIGKILL) == []
            await server.start()
        tasks = [await _ended(client, server.url, task_id) for task_id in ids]
        for n, task in enumerate(tasks):
            assert task["state"] == ("EXECUTOR_ERROR" if n % 5 == 0 else "COMPLETE"), task
            assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [0, 3 if n % 5 == 0 else 0]
            assert task["logs"][0]["logs"][1]["stdout"] == f"out {n}\n"
            ran = (server.shared / f"ran-{n}").read_text()
            assert ran == f"first\ninput {n}\ninline {n}\nsecond\n", f"task {n} ran more than once"
        assert await containers_and_folders(path, server.data) == []
        assert await server.end(signal.SIGTERM) == []
    shutil.rmtree(server.data)


async def _create(client: httpx.AsyncClient, url: str, task: dict[str, Any]) -> str:
    answer = await client.post(f"{url}/ga4gh/tes/v1/tasks", json=task)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def _ended(client: httpx.AsyncClient, url: str, task_id: str) -> dict[str, Any]:
    async with asyncio.timeout(600):
        while True:
            task: dict[str, Any] = (await client.get(f"{url}/v1/tasks/{task_id}?view=FULL")).json()
            if task["state"] not in ("QUEUED", "INITIALIZING", "RUNNING"):
                return task
            await asyncio.sleep(0.1)


async def _load_image(socket: Path) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, timeout=300) as engine:
        archive = containers.image_archive(containers.IMAGE)
        (await engine.post("http://engine/images/load", content=archive)).raise_for_status()
