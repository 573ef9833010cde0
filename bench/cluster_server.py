"""`tesk serve` beside a cluster, as a process of its own whose CPU time and memory can be read."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.client import Client
from tesk.settings import TABLE, Settings
from tesk.settings.load import load
from tests.servers.cluster import PRODUCT, Cluster

LOOK_EVERY_S, PAUSE_S = 0.01, 2.0
MIB = 2**20


class Server:
    """The running server. `settings`: as it has them itself."""

    def __init__(self, url: str, process: int, settings: Settings) -> None:
        self.settings = settings
        self.client = Client(url, LOOK_EVERY_S, PAUSE_S)
        self._process = psutil.Process(process)

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory_mib(self) -> float:
        """Resident memory."""
        return float(self._process.memory_info().rss) / MIB


@contextlib.asynccontextmanager
async def served(cluster: Cluster, namespace: str, folder: Path, **chosen: Any) -> AsyncIterator[Server]:
    """`tesk serve` with its defaults, but for what is `chosen`; its data and log are in `folder`."""
    given: dict[str, Any] = {
        "engine": "kubernetes", "kubeconfig": str(cluster.kubeconfig), "namespace": namespace, "image": PRODUCT,
        "port": 0, "data": f"{folder}/data", **chosen,
    }  # fmt: skip
    written = folder / "settings.toml"
    paths = {setting.name: setting.path for setting in TABLE}
    written.write_text("".join(f"{paths[name]} = {json.dumps(value)}\n" for name, value in given.items()))
    command = [sys.executable, "-m", "tesk", "serve", f"--config={written}"]
    with (folder / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=log)
    try:
        assert process.stdout
        url = (await process.stdout.readline()).decode().removeprefix("server: ").strip()
        assert url, (folder / "server.log").read_text()[-3000:]
        server = Server(url, process.pid, load({}, {}, written))
        yield server
        await server.client.close()
    finally:
        process.terminate()
        await process.wait()
