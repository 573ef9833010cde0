"""A real SFTP server: OpenSSH's sshd as the user that runs the tests, with its own internal SFTP server."""

import contextlib
import getpass
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.servers.process import free_port, program, serving

CONFIGURATION = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Sshd(NamedTuple):
    """Where it listens, who may log in, with which private key, and the line of known_hosts that it has."""

    port: int
    user: str
    key: str
    known_hosts: str

    @property
    def url(self) -> str:
        return f"sftp://{self.user}@127.0.0.1:{self.port}"

    def settle(self, home: Path) -> None:
        """Makes the key and the host known to whose home it is."""
        folder = home / ".ssh"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "id_ed25519").write_text(self.key)
        (folder / "id_ed25519").chmod(0o600)
        (folder / "known_hosts").write_text(self.known_hosts)


@contextlib.contextmanager
def sshd() -> Iterator[Sshd]:
    """Serves the whole file system, with what its user may do."""
    port = free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tesk-sshd-") as scratch:
        folder = Path(scratch)
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
        (folder / "config").write_text(CONFIGURATION.format(port=port, folder=folder))
        host_key = (folder / "host_key.pub").read_text()
        command = [program("sshd"), "-D", "-e", "-f", str(folder / "config")]
        with serving(command, port, folder / "log"):
            key = (folder / "user_key").read_text()
            yield Sshd(port, getpass.getuser(), key, f"[127.0.0.1]:{port} {host_key}")
