"""Sends a message to the taskmaster by one short HTTP request.

A plain socket, since this runs beside every executor and an HTTP library would take longer to import than the request
takes. A message that does not arrive is no error: the same is in the pod's status and log, only later.
"""

import socket
import sys
import time
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 1.0
PATIENCE_S: Final = 3.0
PAUSE_S: Final = 0.2


def send_message(taskmaster: str, pod: str, token_file: Path, body: bytes, patience_s: float = PATIENCE_S) -> bool:
    """Posts a JSON body to `taskmaster` ("host:port"); True when it was taken. Tries again for so long."""
    ends = time.monotonic() + patience_s
    while True:
        try:
            status = post(taskmaster, f"/{pod}", token_file.read_text().strip(), body)
        except OSError as error:
            status = str(error)
        if status == "204":
            return True
        if status in ("400", "401", "404", "413") or time.monotonic() >= ends:
            print(f"the taskmaster at {taskmaster} was not told: {status}", file=sys.stderr)
            return False
        time.sleep(PAUSE_S)


def post(address: str, path: str, token: str, body: bytes, timeout_s: float = TIMEOUT_S) -> str:
    """Sends one request; the answer's status code, or words. Raises OSError."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        answer = connection.recv(64)
    words = answer.split(b" ")
    return words[1].decode(errors="replace") if answer.startswith(b"HTTP/") and len(words) > 1 else "no answer"
