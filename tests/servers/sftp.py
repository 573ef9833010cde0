"""A second SFTP server, unlike OpenSSH's: passwords, no extensions (`python -m tests.servers.sftp`)."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncssh

from tests.known_secrets import known
from tests.servers.process import free_port, serving


@contextlib.contextmanager
def sftp_server(root: Path, user: str, password: str) -> Iterator[tuple[int, str]]:
    """Yields its port and the fingerprint of its host key."""
    known("the password of the SFTP server", password)
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tesk-sftp-") as scratch:
        key = asyncssh.generate_private_key("ssh-ed25519")
        (Path(scratch) / "key").write_bytes(key.export_private_key())
        command = [sys.executable, "-m", "tests.servers.sftp", str(port), str(root), user, password, f"{scratch}/key"]
        with serving(command, port, Path(scratch) / "log", cwd=Path(__file__).parents[2]):
            yield port, key.get_fingerprint()


async def _serve(port: str, root: str, user: str, password: str, key: str) -> None:
    class Server(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, given: str) -> bool:
            return (username, given) == (user, password)

    class Plain(asyncssh.SFTPServer):
        """Old servers do not rename over a file."""

        def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
            raise asyncssh.SFTPOpUnsupported("no such extension")

        def rename(self, oldpath: bytes, newpath: bytes) -> None:
            if self.map_path(newpath) and Path(self.map_path(newpath).decode()).exists():
                raise asyncssh.SFTPFailure("the file exists")
            super().rename(oldpath, newpath)

    def sftp(channel: "asyncssh.SSHServerChannel[bytes]") -> Plain:
        return Plain(channel, chroot=root.encode())

    await asyncssh.listen("127.0.0.1", int(port), server_factory=Server, server_host_keys=[key], sftp_factory=sftp)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
