"""`tesk front`: takes the connections of a server's clients, and lets them wait while the server restarts.

Some workflow engines end a whole run on one refused connection. On one machine the service manager keeps the socket
open through a restart (docs/service.md). In a cluster one pod ends before the next begins, and nothing listens in
between; so the front listens. It relays bytes both ways. When the server ends before it answers a request that changes
nothing, the front sends that request again. The front keeps no state: any number of fronts may run, start and stop.
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
FIRST_BYTE_S: Final = 90.0
"""Time for a client's first bytes to arrive. After them the server's own limits apply."""
IDLE_S: Final = 1.0
"""A connection on which an answer was the last to pass, this long ago, is idle."""
TRIES: Final = 3
SAFE: Final = (b"GET ", b"HEAD ")
"""Requests that may be sent again (RFC 9110 §9.2.2): a second POST could make a second task."""
ENDING_S: Final = 20.0
ABSENT: Final = b'{"status_code":503,"msg":"the server has been away for a while; see its pod"}'
UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(ABSENT), ABSENT)
)


class Front:
    """Relays connections to the server at `host` and `port`. A client waits `wait_s` at most for the server."""

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
            await self._relay(ClientConnection(client, answers), client, answers)
        except (OSError, TimeoutError):
            pass
        finally:
            self._open.discard(task)
            answers.close()

    async def end(self) -> None:
        """Waits for the requests under way, and closes each connection when it is idle."""
        self._ending.set()
        if self._open:
            await asyncio.wait(self._open, timeout=ENDING_S)

    async def _relay(
        self, connection: "ClientConnection", client: asyncio.StreamReader, answers: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(FIRST_BYTE_S):
            if not await connection.read():
                return
        for _ in range(TRIES):
            reached = await self._connect(client)
            if reached is None:
                answers.write(UNAVAILABLE)
                await answers.drain()
                return
            server, requests = reached
            with contextlib.closing(requests):
                await connection.relay(server, requests, self._ending)
            if not connection.may_repeat:
                return

    async def _connect(self, client: asyncio.StreamReader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the server, once it accepts one. None when that takes too long or the client has gone."""
        limit = time.monotonic() + self._wait_s
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(self._host, self._port, limit=CHUNK)
            except (OSError, TimeoutError):
                if time.monotonic() >= limit or client.at_eof():
                    return None
            await asyncio.sleep(PAUSE_S)


class ClientConnection:
    """A client's connection, and the bytes of the request that no server has begun to answer."""

    def __init__(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        self._client, self._answers = client, answers
        self._request = bytearray()
        self._answered = True
        self._moved_at = time.monotonic()

    @property
    def may_repeat(self) -> bool:
        """True if the server ended before it answered a request that changes nothing, and the client still waits."""
        whole = len(self._request) < CHUNK
        return not self._answered and whole and self._request.startswith(SAFE) and not self._client.at_eof()

    async def read(self) -> bytes:
        """The client's next bytes; none when it has closed."""
        data = await self._client.read(CHUNK)
        if data and self._answered:
            self._request.clear()
            self._answered = False
        self._request += data[: CHUNK - len(self._request)]
        self._moved_at = time.monotonic()
        return data

    async def relay(self, server: asyncio.StreamReader, requests: asyncio.StreamWriter, ending: asyncio.Event) -> None:
        """Relays both ways until one side closes or, after `ending` is set, until the connection is idle."""
        requests.write(bytes(self._request))
        asking = asyncio.create_task(self._send_requests(requests))
        answering = asyncio.create_task(self._send_answers(server))
        idle = asyncio.create_task(self._until_idle(ending))
        try:
            await asyncio.wait((asking, answering, idle), return_when=asyncio.FIRST_COMPLETED)
            if asking.done() and not asking.exception():
                await asyncio.wait((answering, idle), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering, idle):
                task.cancel()
            await asyncio.gather(asking, answering, idle, return_exceptions=True)

    async def _send_requests(self, requests: asyncio.StreamWriter) -> None:
        while data := await self.read():
            requests.write(data)
            await requests.drain()
        requests.write_eof()

    async def _send_answers(self, server: asyncio.StreamReader) -> None:
        while data := await server.read(CHUNK):
            self._answered, self._moved_at = True, time.monotonic()
            self._answers.write(data)
            await self._answers.drain()

    async def _until_idle(self, ending: asyncio.Event) -> None:
        """Returns once `ending` is set and the connection is idle."""
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
