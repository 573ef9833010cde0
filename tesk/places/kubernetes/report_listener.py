"""Takes the reports of the pods that run a whole task each, from a port that any pod of the cluster may reach.

Whoever connects is a stranger until the pod's word has been read: a stranger gets room for one small head and little
time for it, and where there are too many the oldest gives way. Nothing depends on a report: the same stands in the
pod's log.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Final

from tesk.errors import PlaceError
from tesk.kubernetes.message_head import HEAD_BYTES, HEAD_END, Head, Refused, answer, parse_head

log = logging.getLogger(__name__)

HEAD_S: Final = 3.0
BODY_BYTES: Final = 1_500_000
"""A record that its sender has made as small as the server asks for has 900,000."""
BODY_S: Final = 15.0
STRANGERS: Final = 256
SENDERS: Final = 32
"""Pods whose reports are being read: each may be of BODY_BYTES."""
BACKLOG: Final = 1024


class ReportListener:
    """Serves a port. `check` takes a pod's name and its word, and raises Refused; `take` the pod's name and its report,
    which it may refuse too."""

    def __init__(self, check: Callable[[str, bytes], None], take: Callable[[str, bytes], None]) -> None:
        self._check, self._take = check, take
        self._server: asyncio.Server | None = None
        self._strangers: dict[asyncio.StreamWriter, None] = {}
        self._senders = asyncio.Semaphore(SENDERS)
        self._served: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self, port: int) -> None:
        """Port 0 takes a free one. Raises PlaceError."""
        try:
            self._server = await asyncio.start_server(self._serve, sock=_bound(port), limit=HEAD_BYTES, backlog=BACKLOG)
        except OSError as error:
            raise PlaceError(f"the port for the reports of pods, report_port {port}, cannot be had: {error}") from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        try:
            status = await self._status(reader, writer)
            if status:
                writer.write(answer(status))
        except Exception:
            log.exception("a report could not be taken")
        finally:
            self._served.discard(task)
            self._strangers.pop(writer, None)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):  # whoever told has gone: the same is in its pod's log
                async with asyncio.timeout(HEAD_S):
                    await writer.wait_closed()

    async def _status(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The answer's status code; 0 where nobody is there to be answered."""
        self._let_in(writer)
        try:
            async with asyncio.timeout(HEAD_S):
                head = await self._head(reader)
            self._strangers.pop(writer, None)
            async with asyncio.timeout(BODY_S), self._senders:
                body = await reader.readexactly(head.size)
            self._take(head.pod, body)
        except Refused as refused:
            return refused.status
        except TimeoutError:
            return 408
        except asyncio.LimitOverrunError:
            return 431
        except (asyncio.IncompleteReadError, OSError):
            return 0
        return 204

    async def _head(self, reader: asyncio.StreamReader) -> Head:
        return parse_head((await reader.readuntil(HEAD_END)).removesuffix(HEAD_END), self._check, BODY_BYTES)

    def _let_in(self, writer: asyncio.StreamWriter) -> None:
        """Where all places are taken, the oldest stranger gives way."""
        if len(self._strangers) >= STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()
        self._strangers[writer] = None


def _bound(port: int) -> socket.socket:
    """A socket that listens on all addresses, of both kinds where there are both."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
