"""How a peer that has vanished without a word is noticed, by the server and by the taskmasters alike.

A connection whose other end is gone is found by keepalive within half a minute, not after the quarter of an hour that
TCP takes. One whose other end lives but says nothing, as a proxy that has lost its own peer, is found by what the API
sends unasked: a watch gets a bookmark about once a minute.
"""

import socket
from typing import Final

SILENCE_S: Final = 90.0
"""A watch without a byte for so long is dead."""
KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}


def keep_alive(connection: socket.socket) -> None:
    """Asks the kernel to look after a TCP connection, as far as this platform can."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if option := getattr(socket, name, None):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
