"""What schemes share that speak over sockets: names of peers, errors, sending, hanging up."""

import contextlib
import errno
import socket
from typing import Final

from tesk.filer.errors import TransferError
from tesk.filer.streams import Source
from tesk.schemes import BY_NAME

STEP: Final = 256 * 1024
UNSENT: Final = 64 * 1024
"""Bytes that the kernel may hold which are not on their way yet (TCP_NOTSENT_LOWAT in tcp(7)).

With megabytes, as it takes them by itself, they have left the processor's cache when they are sent: a server on the
same machine took a third longer to receive them. Between two network namespaces 4 GB/s still go through.
"""


def peer_of(scheme: str, host: str, port: int) -> str:
    """`scheme://host:port`, as errors name it: without the port where that is the usual one."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + (f":{port}" if port not in (0, BY_NAME[scheme].ports[scheme]) else "")


def from_socket(error: OSError, peer: str, timeout_s: float) -> TransferError:
    """The TransferError for an error of a connection to `peer` (scheme://host:port)."""
    if isinstance(error, TimeoutError):
        return TransferError(f"{peer} sent nothing for {timeout_s:g} s", "check the server", passing=True)
    if isinstance(error, socket.gaierror):
        passing = error.errno == socket.EAI_AGAIN
        return TransferError(f"the name in {peer} is unknown ({error.strerror})", "check the URL", passing=passing)
    if type(error).__name__ == "SSLCertVerificationError":
        reason = getattr(error, "verify_message", "") or error
        return TransferError(f"the certificate of {peer} is not trusted ({reason})", "check the certificate")
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED):
        return TransferError(f"{peer} cannot be reached ({error.strerror})", "check that it runs", passing=True)
    reason = error.strerror or str(error) or type(error).__name__
    return TransferError(f"the connection to {peer} broke ({reason})", "check the server", passing=True)


def send_all(sock: socket.socket, data: bytes) -> None:
    """Sends all, as long as some of it goes within the socket's timeout, which `sendall` would count for the whole."""
    rest = memoryview(data)
    while rest:
        rest = rest[sock.send(rest) :]


def send_file(sock: socket.socket, source: Source, step: int = STEP) -> None:
    """Sends the rest of a file. By hand: sendfile(2) was a third slower to a server on the same machine."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
    while data := source.read(step):
        send_all(sock, data)


def hang_up(sock: socket.socket | None) -> None:
    """Ends a connection from any thread: one that waits for its bytes sees the end.

    Closing the buffered streams that http.client and ftplib keep would wait for that very thread.
    """
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
