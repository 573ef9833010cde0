"""The listening socket: inherited from systemd, or another service manager with its protocol, else bound here.

An inherited socket stays open while the server restarts. So clients wait and are not refused: some workflow engines end
a whole run on one refused connection. Source: sd_listen_fds(3).
"""

import os
import socket
from collections.abc import Mapping
from typing import Final

FIRST_FD: Final = 3
BACKLOG: Final = 2048


class CannotListen(OSError):
    """The address cannot be listened on: the message says why and what to do."""


def listen(host: str, port: int, environ: Mapping[str, str]) -> socket.socket:
    """A listening TCP socket, the inherited one if there is one. Raises CannotListen."""
    inherited = _inherited(environ)
    return inherited if inherited is not None else _bound(host, port)


def url(listener: socket.socket) -> str:
    """Where a client on this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    return at(host, port)


def at(host: str, port: int) -> str:
    """The URL of a port on a host."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _inherited(environ: Mapping[str, str]) -> socket.socket | None:
    if environ.get("LISTEN_PID") != str(os.getpid()) or "LISTEN_FDS" not in environ:
        return None
    number = environ["LISTEN_FDS"]
    if number != "1":
        raise CannotListen(f"LISTEN_FDS is {number}: tesk takes over exactly one listening socket")
    try:
        listener = socket.socket(fileno=FIRST_FD)
    except OSError as error:
        raise CannotListen(f"file descriptor {FIRST_FD}, named by LISTEN_FDS, is no socket: {error.strerror}") from None
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        raise CannotListen(f"file descriptor {FIRST_FD}, named by LISTEN_FDS, is no TCP socket")
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def _bound(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise CannotListen(f"cannot listen on {where}: {reason}; check the setting host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {where}: {error.strerror}; choose another --host or --port") from None
    listener.setblocking(False)
    return listener
