"""A certificate for servers at an address."""

import subprocess
from pathlib import Path

from tests.servers.process import program


def certificate(folder: Path, address: str = "127.0.0.1") -> Path:
    """A new PEM file in `folder` with a self-signed certificate for an IP address, and its key."""
    pem = folder / "server.pem"
    make = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", f"subjectAltName=IP:{address}", "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run(make, check=True, capture_output=True)
    pem.write_bytes((folder / "crt").read_bytes() + (folder / "key").read_bytes())
    return pem
