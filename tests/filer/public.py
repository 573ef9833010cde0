"""What a public server leads to, in a network of its own where a public address is this machine's.

`python -m tests.filer.public FOLDER WAY`, in a new network namespace: prints what the filer said of an input that leads
to loopback, and how many requests arrived there. WAY is the status of a redirect, or `drs` for an object whose DRS
server names such a URL: `drs with headers` that the store wants, `drs by name` of a host that has both addresses.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tesk.tes import Input
from tests.filer.faulty import answer, faulty
from tests.filer.stores import fetch

ADDRESS = "8.8.8.8"
BOTH = "both.test"


def resolve_both() -> None:
    """Names are what the filer is told here, for this network has no server of them."""
    known = socket.getaddrinfo

    def found(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        addresses = [ADDRESS, "127.0.0.1"] if host == BOTH else [host]
        return [one for address in addresses for one in known(address, port, *more, **named)]

    socket.getaddrinfo = found


def redirect(folder: Path, inner: str, status: str) -> str:
    with faulty(lambda c, _n, _h: c.sendall(answer(status, b"", f"Location: {inner}/secret")), ADDRESS) as outer:
        return fetch(folder, Input("/f", url=f"{outer.url}/f")).failure


def drs(folder: Path, inner: str, way: str) -> str:
    where: dict[str, Any] = {"url": inner.replace("127.0.0.1", BOTH) if way == "drs by name" else inner}
    if way == "drs with headers":
        where["headers"] = ["Authorization: Bearer x"]
    document = json.dumps({"size": 1, "access_methods": [{"type": "http", "access_url": where}]}).encode()
    with faulty(lambda c, _n, _h: c.sendall(answer("200 OK", document)), ADDRESS) as outer:
        (folder / "stores.toml").write_text(f'["drs://lab"]\nendpoint = "{outer.url}"\n')
        told = (str(folder / "stores.toml"),)
        return fetch(folder, Input("/f", url="drs://lab/x"), credentials=told, retries=0).failure


def main(folder: Path, way: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", ADDRESS, "dev", "lo"], check=True)
    resolve_both()
    with faulty(lambda c, _n, _h: c.sendall(answer("200 OK", b"x"))) as inner:
        print((drs if way.startswith("drs") else redirect)(folder, inner.url, way))
        print(len(inner.requests))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
