"""Between a client and a real HTTP server on a Unix socket: all goes through, but for requests that are to be held up
and answers that are to be others than the server's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

Change = Callable[[Any], tuple[int, Any]]
"""From the document that the server has answered to the status and the document that the client gets."""


class Between:
    """Requests whose line holds `held` wait until `go`; `waits` is set while one does. `changes`: by a part of it.

    `lines`: what the first lines of all that came were.
    """

    def __init__(self, socket: Path, server: Path) -> None:
        self.socket, self._server = socket, server
        self.changes: dict[str, Change] = {}
        self.held = ""
        self.lines: list[str] = []
        self.waits, self.go = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_unix_connection(str(self._server))
        back = asyncio.create_task(_pour(there, writer))
        try:
            while data := await reader.read(65536):
                line = data.partition(b"\r\n")[0].decode(errors="replace")
                self.lines.append(line)
                if self.held and self.held in line:
                    self.waits.set()
                    await self.go.wait()
                if change := next((self.changes[part] for part in self.changes if part in line), None):
                    writer.write(await self._changed(line.split()[1], change))
                else:
                    out.write(data)
                    await out.drain()
        except ConnectionError:
            pass
        finally:
            back.cancel()
            await asyncio.wait([back])
            out.close()
            writer.close()

    async def _changed(self, path: str, change: Change) -> bytes:
        session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._server)))
        async with session, session.get(f"http://engine{path}") as answer:
            status, document = change(await answer.json())
        body = msgspec.json.encode(document)
        head = f"HTTP/1.1 {status} Changed\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@contextlib.asynccontextmanager
async def between(folder: Path, server: Path) -> AsyncIterator[Between]:
    """A socket in `folder` that leads to the server's."""
    made = Between(folder / "between.sock", server)
    listening = await asyncio.start_unix_server(made.serve, str(made.socket))
    try:
        yield made
    finally:
        made.go.set()
        listening.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
