"""Takes the reports of the pods that run a whole task each, from a port that any pod of the cluster may reach: the
task's record, whenever it changes (tesk/pod/record_sender.py).

Whoever connects is a stranger until the pod's word has been read: a stranger gets room for one small head and little
time for it, and where there are too many the oldest gives way. Nothing depends on a report: the same stands in the
pod's log.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import socket
from collections.abc import Callable
from typing import Final

from tesk.errors import PlaceError
from tesk.kubernetes import names
from tesk.kubernetes import record as records
from tesk.kubernetes.message_head import HEAD_BYTES, HEAD_END, Head, Refused, answer, parse_head
from tesk.life.status import TaskId
from tesk.places.kubernetes.observed import ObservedTask

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
    """Serves a port. What is reported is taken in by the tasks that are `observed`, which are then evaluated."""

    def __init__(self, observed: dict[TaskId, ObservedTask], evaluate: Callable[[TaskId], None]) -> None:
        self._observed, self._evaluate = observed, evaluate
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

    def _check(self, pod: str, word: bytes) -> None:
        """Raises Refused for a pod of which there is none, and for a word that is not that of its task."""
        task = self._observed.get(names.task_of(pod))
        found = task.pods.get(pod) if task is not None else None
        digest = found.metadata.annotations.get(names.WORD_SHA256, "") if found is not None else ""
        if not digest:
            raise Refused(404)
        if not hmac.compare_digest(hashlib.sha256(word).hexdigest(), digest):
            raise Refused(401)

    def _take(self, pod: str, packed: bytes) -> None:
        """Takes the record that a pod has sent, unless another attempt has begun. Raises Refused for what is none."""
        task_id = names.task_of(pod)
        try:
            record = records.unpack(packed)
        except ValueError as error:
            log.warning("pod %s reports something that cannot be read: %s", pod, error)
            raise Refused(400) from None
        task = self._observed.get(task_id)
        if task is not None and task.last_pod is not None and task.last_pod.metadata.name == pod:
            task.set_record(record)
            task.is_told = True
            self._evaluate(task_id)

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
