"""Stand-in runners: what those of tasks of one pod each ask and report, without pods that could run them.

As cluster_standin.py does for taskmasters: for each pod that a simulated node has started, the stand-in reads the pod's
Secret, as its kubelet would, and reports to the server what tesk/pod/runner.py reports of one executor without files.
"""

import asyncio
import base64
import json

import msgspec

from tesk.clock import now
from tesk.kubernetes import names, objects
from tesk.kubernetes import record as records
from tesk.kubernetes.errors import ApiError
from tesk.kubernetes.record import Attempt, Record
from tesk.places.kubernetes.client import Client
from tesk.places.kubernetes.watch import Cache
from tesk.tes import ExecutorLog, State, TaskLog

REPORTS_AT_ONCE = 32
AGAIN_S = 0.2
_pod = msgspec.json.Decoder(objects.Pod).decode


class Runners:
    """The runners of all tasks of an `instance`, which report to `server` ("host:port"). With `hold` they stop at
    RUNNING."""

    def __init__(self, client: Client, instance: str, server: str, *, hold: bool) -> None:
        self._client, self._instance, self._server, self._hold = client, instance, server, hold
        self._running = 0
        self._runs = asyncio.Event()
        self._gate = asyncio.Semaphore(REPORTS_AT_ONCE)
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Runners":
        cache = Cache(self._client, "pods", _pod, names.selector(self._instance), self._pod_changed)
        self._watch = asyncio.create_task(cache.follow())
        await cache.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch
        tasks = [self._watch, *self._lives.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def all_run(self, count: int) -> None:
        """Returns when so many tasks have come to RUNNING."""
        while self._running < count:
            self._runs.clear()
            await self._runs.wait()

    def _pod_changed(self, name: str, pod: objects.Pod | None) -> None:
        if pod is not None and pod.status.container_statuses and name not in self._lives:
            self._lives[name] = asyncio.create_task(self._live(name))

    async def _live(self, name: str) -> None:
        """One task's life, as far as the API and the server see it."""
        record = Record(State.INITIALIZING, [Attempt(TaskLog(start_time=now()))])
        try:
            found = await self._client.get("secrets", names.task_object(names.task_of(name)))
        except ApiError as error:
            print(f"stand-in of pod {name}: {error}")
            return
        assert found is not None
        word = base64.b64decode(json.loads(found)["data"][names.TOKEN_KEY]).decode().strip()
        await self._report(name, word, record)
        record.state, record.now.started = State.RUNNING, now()
        await self._report(name, word, record)
        self._running += 1
        self._runs.set()
        if self._hold:
            return
        entry = ExecutorLog(0, record.now.started, now(), "hello\n", "")
        record.now.log = TaskLog(logs=[entry], start_time=record.now.log.start_time, end_time=now())
        record.state, record.now.started = State.COMPLETE, msgspec.UNSET
        await self._report(name, word, record)

    async def _report(self, pod: str, word: str, record: Record) -> None:
        """Until it was taken: the server may not have seen the pod yet."""
        body = records.pack(record)
        while await self._post(pod, word, body) != b"204":  # noqa: ASYNC110
            await asyncio.sleep(AGAIN_S)

    async def _post(self, pod: str, word: str, body: bytes) -> bytes:
        host, _, port = self._server.rpartition(":")
        head = f"POST /{pod} HTTP/1.1\r\nAuthorization: Bearer {word}\r\nContent-Length: {len(body)}\r\n\r\n"
        async with self._gate:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(head.encode() + body)
                return (await reader.read(64)).split(b" ")[1]
            except (OSError, IndexError) as error:
                return str(error).encode()
            finally:
                writer.close()
