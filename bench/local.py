"""How much the local engine adds to the containers: `scripts/bench local [--quick] [--engine podman|docker]...`

The baseline is the same container, run through the same engine's API in the fastest way known (create, attach, start,
wait for the streams to close, inspect), in turn with tesk's tasks. A task's time is from POST to COMPLETE as a client
sees it that asks every few milliseconds. While many run, of either, two clients ask a server twenty times a second.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiodocker

from bench.api_figures import Figures
from bench.api_servers import bare as bare_server
from bench.client import Client, asking, fetched, interleaved, p99_ms, session
from tesk.places.local.containers import Containers
from tests.servers import containers as servers
from tests.servers.containers import IMAGE

HELLO_LIMIT, STAGED_LIMIT, RATE_LIMIT, P99_LIMIT = 1.2, 1.35, 0.85, 4.0
LOOK_EVERY_S, PAUSE_S = 0.004, 0.3
COMMAND = ["echo", "hello"]
HELLO: dict[str, Any] = {"executors": [{"image": IMAGE, "command": COMMAND}]}
ENGINES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "podman": servers.podman_service,
    "docker": servers.docker_daemon,
}


class Baseline:
    """The same container without tesk."""

    def __init__(self, socket: Path, network: str) -> None:
        self._containers = Containers(socket, "bench")
        self._network = network
        self._count = 0

    async def close(self) -> None:
        await self._containers.close()

    async def run(self) -> str:
        """Runs one container to its end; its name."""
        self._count += 1
        name = f"bench-{self._count}"
        await self._containers.create(
            name, {"Image": IMAGE, "Cmd": COMMAND, "AttachStdout": True, "HostConfig": {"NetworkMode": self._network}}
        )
        state = await self._containers.run(name, lambda: self._containers.start(name))
        assert state is not None
        assert state.exit_code == 0
        return name

    async def timed(self) -> float:
        began = time.perf_counter()
        name = await self.run()
        elapsed = time.perf_counter() - began
        await self._containers.remove(name)
        return elapsed

    async def rate(self, count: int, at_once: int) -> float:
        """Containers per second, `at_once` of them side by side, removed again."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                await self._containers.remove(await self.run())

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return count / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def served(socket: Path, folder: Path) -> AsyncIterator[Client]:
    """`tesk serve` on the engine, with its defaults."""
    shared = folder / "shared"
    shared.mkdir()
    arguments = ["--port=0", f"--data={folder}/data", f"--file-root={shared}", f"--engine-socket={socket}"]
    with (folder / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tesk", "serve", *arguments, stdout=PIPE, stderr=log
        )
    try:
        assert process.stdout
        url = (await process.stdout.readline()).decode().removeprefix("server: ").strip()
        client = Client(url, LOOK_EVERY_S, PAUSE_S)
        await client.ended(await client.create(HELLO))
        yield client
        await client.close()
    finally:
        process.terminate()
        await process.wait()


async def measure(engine: str, figures: Figures, *, rounds: int, count: int, network: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tesk-bench-") as name, ENGINES[engine](Path(name)) as socket:
        folder = Path(name)
        async with aiodocker.Docker(url=f"unix://{socket}") as docker:
            await docker.images.import_image(servers.image_archive(IMAGE))
        staged = {
            **HELLO,
            "inputs": [{"path": "/in/text", "content": "hello\n"}],
            "outputs": [{"path": "/out/text", "url": f"{folder}/shared/text"}],
            "executors": [{"image": IMAGE, "command": ["cp", "/in/text", "/out/text"]}],
        }
        async with served(socket, folder) as client:
            bare = Baseline(socket, network)
            base, hello, moved = await interleaved(
                rounds, bare.timed, lambda: client.timed(HELLO), lambda: client.timed(staged)
            )
            figures.plain(f"{engine}: the container alone", f"{base * 1000:.0f} ms")
            figures.at_most(f"{engine}: hello task", f"{hello * 1000:.0f} ms", hello / base, HELLO_LIMIT)
            name = f"{engine}: with one input and one output"
            figures.at_most(name, f"{moved * 1000:.0f} ms", moved / base, STAGED_LIMIT)
            with bare_server() as floor:
                async with session() as http:
                    async with asking(lambda: fetched(http, floor.url)), asking(lambda: fetched(http, floor.url)):
                        rates = {at_once: await bare.rate(count, at_once) for at_once in (2, 4, 8)}
                    async with asking(lambda: fetched(http, floor.url)) as took:
                        rate, get_ms = await client.rate(HELLO, count)
            best = max(rates.values())
            shown = ", ".join(f"{rate:.1f} at {at_once}" for at_once, rate in rates.items())
            figures.plain(f"{engine}: {count} containers, per s", shown)
            floor_ms = p99_ms(took)
            figures.at_least(f"{engine}: {count} hello tasks at once, per s", f"{rate:.1f}", rate / best, RATE_LIMIT)
            figures.plain(f"{engine}: p99 of a GET of uvicorn alone meanwhile", f"{floor_ms:.1f} ms")
            figures.at_most(f"{engine}: p99 of a GET meanwhile", f"{get_ms:.1f} ms", get_ms / floor_ms, P99_LIMIT)
            await bare.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench local", description=__doc__)
    parser.add_argument("--engine", action="append", choices=[*ENGINES], help="which engine; both by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--network", default="bridge", help="network of the baseline's containers")
    options = parser.parse_args()
    figures = Figures()
    for engine in options.engine or ENGINES:
        rounds, count = (5, 30) if options.quick else (15, 100)
        asyncio.run(measure(engine, figures, rounds=rounds, count=count, network=options.network))
    figures.end()


if __name__ == "__main__":
    main()
