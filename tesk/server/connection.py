"""uvicorn's HTTP connection, made safe against clients that are slow, send without end or send no HTTP.

uvicorn with httptools waits for a request's head without a limit of time or size. Here both are limited, and bytes that
are not HTTP get a JSON error like every other. A handler's answer is sent in one call, not in two ASGI messages whose
headers uvicorn checks one by one: that saves a seventh of the time of a GET.

`Upgrade` is ignored (RFC 9110 §7.8). Clients that prefer HTTP/2 send `Upgrade` with their first request, and httptools
takes the bytes after such a head for another protocol. So the head is parsed again without that header.

tests/unit/test_inner_parts.py says what this module uses of uvicorn's inner parts.
"""

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tesk.server.exchange import ANSWER, WHEN_SENT, Refusal

HEAD_LIMIT_S: Final = 20.0
"""Time for a request's line and headers to arrive, from the begin of the connection or from their first byte."""
UNREAD_LIMIT_S: Final = 30.0
"""A client that takes nothing of its answer for this long, or up to twice as long, is cut off."""
JOINED_BYTES: Final = 64 * 1024
"""Answers up to this size are copied behind their head, so that one write sends both."""
HEAD_BYTES: Final = 64 * 1024
"""Largest request line and headers together."""

MOST_PIPELINED: Final = 512
"""Requests of one connection that may wait for the answers before theirs. One TCP segment can hold thousands."""

_REASONS: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
}


class HttpConnection(HttpToolsProtocol):
    """One client's connection. One timer watches all of its requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._since = self.loop.time()
        self._unread = 0
        self._when_sent: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch(HEAD_LIMIT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sent()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def _sent(self) -> None:
        done, self._when_sent = self._when_sent, []
        for each in done:
            each()

    def _call_when_sent(self, done: Callable[[], None]) -> None:
        """Calls `done` at once unless the transport has paused us: what it buffers until then is little."""
        if self.flow.write_paused and self.parser is not None:
            self._when_sent.append(done)
        else:
            done()

    def data_received(self, data: bytes) -> None:
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(400, "the request is not valid HTTP")
        if self.scope is not None and "method" in self.scope:
            self._in_head = False
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"request line and headers are larger than {HEAD_BYTES} bytes")
        elif not self._in_head:
            self._in_head = True
            self._since = self.loop.time()
            self._watch(HEAD_LIMIT_S)

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"\r\n"))

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self._since = self.loop.time()
        self.flow.resume_reading()

    def _watch(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Closes a connection whose client is too slow, or has sent no request for long."""
        unread, before = _unread_bytes(self.transport), self._unread
        self._unread = unread
        if unread and unread == before:
            self.transport.abort()
        elif unread or self.transport.is_closing():
            self._since = self.loop.time()
            self._watch(UNREAD_LIMIT_S)
        else:
            self._look_at_idle()

    def _look_at_idle(self) -> None:
        limit = HEAD_LIMIT_S if self._in_head else self.timeout_keep_alive
        left = self._since + limit - self.loop.time()
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and left <= 0:
            if self._in_head:
                self._refuse(408, f"no complete request arrived within {limit:.0f} s")
            self.transport.close()
        self._watch(min(limit if busy or left <= 0 else left, UNREAD_LIMIT_S))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():  # the head is parsed again
            if self.parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("no tunnels")
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            raise httptools.HttpParserError("too many requests at once")
        super().on_headers_complete()
        extensions: dict[str, Any] = {ANSWER: partial(self._answer, self.cycle), WHEN_SENT: self._call_when_sent}
        self.scope["extensions"] = extensions

    def _answer(self, cycle: RequestResponseCycle, status: int, head: bytes, body: bytes) -> bool:
        """Sends a whole answer; `head` is the header lines. False where the answer must go through ASGI messages."""
        if cycle.scope["method"] == "HEAD" or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        if cycle.disconnected:
            return True
        lines = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            lines += name, b": ", value, b"\r\n"
        if b"connection: close\r\n" in head:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        if len(body) > JOINED_BYTES:
            self.transport.write(b"".join((*lines, head, b"\r\n")))
            self.transport.write(body)
        else:
            self.transport.write(b"".join((*lines, head, b"\r\n", body)))
        cycle.message_event.set()
        cycle.scope[
            "extensions"
        ].clear()  # They refer to the cycle, and a reference cycle is work for the garbage collector.
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _refuse(self, status: int, msg: str) -> None:
        """Closes the connection; sends the error first, unless an earlier request is being answered."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            body = Refusal(status, msg).reply().body
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _unread_bytes(transport: asyncio.Transport) -> int:
    """How many bytes of answers the client has not taken; 0 where the kernel has taken all bytes from us.

    The bytes in the kernel count too: it takes more from us only after the client has taken many of them. Source:
    tcp(7), SIOCOUTQ.
    """
    waiting = transport.get_write_buffer_size()
    if not waiting:
        return 0
    sending = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return waiting + int.from_bytes(sending, sys.byteorder)
