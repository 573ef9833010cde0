"""A TCP proxy that can go silent: its connections stay open and carry nothing any more, while new ones work."""

import asyncio
import contextlib
from types import TracebackType


class Proxy:
    """Listens on loopback and passes on to `target` ("host:port")."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._server: asyncio.Server | None = None
        self._silence = 0
        self._passing: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._server
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def go_silent(self) -> None:
        """Nothing passes any more on the connections that there are."""
        self._silence += 1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        born = self._silence
        there, back = await asyncio.open_connection(self._host, int(self._port))
        both = asyncio.gather(self._pass(reader, back, born), self._pass(there, writer, born))
        task = asyncio.ensure_future(self._until_end(both, writer, back))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _until_end(self, both: "asyncio.Future[tuple[None, None]]", *ends: asyncio.StreamWriter) -> None:
        try:
            await both
        finally:
            for end in ends:
                end.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, born: int) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if born == self._silence:
                    sink.write(data)
                    await sink.drain()
            if born == self._silence:
                sink.close()
