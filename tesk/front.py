"""Takes the connections of a server's clients, and waits with those that come while the server is away.

Some workflow engines end a whole run on one refused connection. On one machine the service manager keeps the socket
open through a restart (docs/service.md); in a cluster one pod ends before the next begins, and nothing listens in
between. So this does. It passes bytes on, both ways, and asks a question again over which a server went away. It keeps
no state: any number of it may run, and come and go.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

import uvloop

CHUNK: Final = 64 * 1024
PAUSE_S: Final = 0.1
CONNECT_S: Final = 1.0
SILENT_S: Final = 90.0
"""How long a client may say nothing at first; later the server's own limits hold."""
IDLE_S: Final = 1.0
TRIES: Final = 3
SAFE: Final = (b"GET ", b"HEAD ")
"""Requests that may be made again (RFC 9110 §9.2.2): a second POST could make a second task."""
ENDING_S: Final = 20.0
ABSENT: Final = b'{"status_code":503,"msg":"the server has been away for a while; see its pod"}'
UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(ABSENT), ABSENT)
)


class Front:
    """`wait_s`: how long a client waits for the server."""

    def __init__(self, host: str, port: int, wait_s: float) -> None:
        self._host, self._port, self._wait_s = host, port, wait_s
        self._ending = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    async def take(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """One client, from its first byte to the end of its connection."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._take(Line(client, answers), client, answers)
        except (OSError, TimeoutError):
            pass
        finally:
            self._open.discard(task)
            answers.close()

    async def end(self) -> None:
        """Lets requests come to their ends, and closes connections on which none is under way."""
        self._ending.set()
        if self._open:
            await asyncio.wait(self._open, timeout=ENDING_S)

    async def _take(self, line: "Line", client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(SILENT_S):
            if not await line.hear():
                return
        for _ in range(TRIES):
            reached = await self._reach(client)
            if reached is None:
                answers.write(UNAVAILABLE)
                await answers.drain()
                return
            server, requests = reached
            with contextlib.closing(requests):
                await line.hold(server, requests, self._ending)
            if not line.may_ask_again:
                return

    async def _reach(self, client: asyncio.StreamReader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the server, as soon as it takes one. None when that takes too long or the client goes."""
        limit = time.monotonic() + self._wait_s
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(self._host, self._port, limit=CHUNK)
            except (OSError, TimeoutError):
                if time.monotonic() >= limit or client.at_eof():
                    return None
            await asyncio.sleep(PAUSE_S)


class Line:
    """A client's connection, and what it has asked for that nobody has begun to answer."""

    def __init__(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        self._client, self._answers = client, answers
        self._asked = bytearray()
        self._answered = True
        self._moved_at = time.monotonic()

    @property
    def may_ask_again(self) -> bool:
        """True where a server went away over a request that changes nothing, and the client still waits."""
        whole = len(self._asked) < CHUNK
        return not self._answered and whole and self._asked.startswith(SAFE) and not self._client.at_eof()

    async def hear(self) -> bytes:
        """What the client says next; nothing when it has closed."""
        data = await self._client.read(CHUNK)
        if data and self._answered:
            self._asked.clear()
            self._answered = False
        self._asked += data[: CHUNK - len(self._asked)]
        self._moved_at = time.monotonic()
        return data

    async def hold(self, server: asyncio.StreamReader, requests: asyncio.StreamWriter, ending: asyncio.Event) -> None:
        """Passes on, both ways, until one side closes or, once `ending` is set, nothing is under way."""
        requests.write(bytes(self._asked))
        asking = asyncio.create_task(self._ask(requests))
        answering = asyncio.create_task(self._answer(server))
        resting = asyncio.create_task(self._rest(ending))
        try:
            await asyncio.wait((asking, answering, resting), return_when=asyncio.FIRST_COMPLETED)
            if asking.done() and not asking.exception():
                await asyncio.wait((answering, resting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering, resting):
                task.cancel()
            await asyncio.gather(asking, answering, resting, return_exceptions=True)

    async def _ask(self, requests: asyncio.StreamWriter) -> None:
        while data := await self.hear():
            requests.write(data)
            await requests.drain()
        requests.write_eof()

    async def _answer(self, server: asyncio.StreamReader) -> None:
        while data := await server.read(CHUNK):
            self._answered, self._moved_at = True, time.monotonic()
            self._answers.write(data)
            await self._answers.drain()

    async def _rest(self, ending: asyncio.Event) -> None:
        """Returns when the last that went over the connection was an answer, and that is a moment ago."""
        await ending.wait()
        while not self._answered or time.monotonic() - self._moved_at < IDLE_S:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S)


def main(argv: Sequence[str]) -> int:
    """The command `tesk front`."""
    parser = argparse.ArgumentParser(
        prog="tesk front", description="Passes connections on to a server, and waits with them while it restarts."
    )
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--wait", type=float, default=60.0, metavar="S", help="longest wait (default: %(default)s)")
    chosen = parser.parse_args(argv)
    host, _, port = chosen.to.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--to {chosen.to}: expected HOST:PORT")
    try:
        uvloop.run(_serve(Front(host.strip("[]"), int(port), chosen.wait), chosen.host, chosen.port))
    except OSError as error:
        sys.stderr.write(f"tesk front: cannot listen on {chosen.host}:{chosen.port}: {error.strerror or error}\n")
        return 1
    return 0


async def _serve(front: Front, host: str, port: int) -> None:
    server = await asyncio.start_server(front.take, host, port, backlog=1024, limit=CHUNK)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bound = server.sockets[0].getsockname()
    print(f"front: {bound[0]}:{bound[1]}", flush=True)
    await stop.wait()
    server.close()
    await front.end()
