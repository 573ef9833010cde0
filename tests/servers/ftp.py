"""Real FTP servers over a folder: pyftpdlib in a process of its own (`python -m tests.servers.ftp` runs it), vsftpd."""

import contextlib
import os
import pwd
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.known_secrets import known
from tests.servers.process import free_port, program, serving


@contextlib.contextmanager
def ftp_server(
    root: Path,
    *,
    user: str = "",
    password: str = "",
    mlsd: bool = True,
    logins: int = 0,
    cut: int = 0,
    quota: int = 0,
    line: str = "",
    home: str = "/",
) -> Iterator[str]:
    """Yields the URL of `root`, with the credentials in it; anonymous may read and write where there is no user.

    Without `mlsd` it knows LIST only, as old servers do. `logins` bounds the connections of one client, `cut` the
    bytes that it sends of a file before it breaks off, `quota` those that it takes of one. `line` is what LIST prints
    of a file, with its {mode}, {size} and {name}. `home` is where a login begins.
    """
    if password:
        known("the password of the FTP server", password)
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.servers.ftp", str(port), str(root), user, password]
    command += ["mlsd" if mlsd else "", str(logins), str(cut), str(quota), line, home]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    with (
        tempfile.TemporaryDirectory(prefix="tesk-ftp-") as scratch,
        serving(command, port, Path(scratch) / "log", cwd=Path(__file__).parents[2]),
    ):
        yield f"ftp://{login}127.0.0.1:{port}"


VSFTPD = """\
listen=YES
listen_port={port}
listen_address=127.0.0.1
background=NO
anonymous_enable=YES
anon_root={root}
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
anon_umask=022
no_anon_password=YES
ftp_username={user}
write_enable=YES
run_as_launching_user=YES
pasv_enable=YES
secure_chroot_dir={scratch}/empty
seccomp_sandbox=NO
{more}
"""
VSFTPD_TLS = """\
ssl_enable=YES
allow_anon_ssl=YES
force_anon_data_ssl=YES
force_anon_logins_ssl=YES
rsa_cert_file={certificate}
implicit_ssl={implicit}
"""


@contextlib.contextmanager
def ftps_server(root: Path, certificate: Path, *, implicit: bool) -> Iterator[str]:
    """vsftpd with TLS for anonymous users, from the first byte or by AUTH. `certificate` is a PEM file with its key."""
    more = VSFTPD_TLS.format(certificate=certificate, implicit="YES" if implicit else "NO")
    with _vsftpd(root, more) as port:
        yield f"ftps://127.0.0.1:{port}"


@contextlib.contextmanager
def plain_vsftpd(root: Path) -> Iterator[str]:
    """vsftpd for anonymous users: a process for each connection, as on busy sites."""
    with _vsftpd(root, "") as port:
        yield f"ftp://127.0.0.1:{port}"


@contextlib.contextmanager
def _vsftpd(root: Path, more: str) -> Iterator[int]:
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tesk-ftp-", dir=root.parent) as scratch:
        (Path(scratch) / "empty").mkdir()
        configuration = Path(scratch) / "vsftpd.conf"
        user = pwd.getpwuid(os.geteuid()).pw_name
        configuration.write_text(VSFTPD.format(port=port, root=root, scratch=scratch, user=user, more=more))
        with serving([program("vsftpd"), str(configuration)], port, Path(scratch) / "log"):
            yield port


def _serve(
    port: str, root: str, user: str, password: str, mlsd: str, logins: str, cut: str, quota: str, line: str, home: str
) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer  # type: ignore[import-untyped]
    from pyftpdlib.filesystems import AbstractedFS  # type: ignore[import-untyped]
    from pyftpdlib.handlers import DTPHandler, FTPHandler  # type: ignore[import-untyped]
    from pyftpdlib.servers import FTPServer  # type: ignore[import-untyped]

    authorizer = DummyAuthorizer()
    if user:
        authorizer.add_user(user, password, root, perm="elradfmwMT")
    else:
        authorizer.add_anonymous(root, perm="elradfmw")
    FTPHandler.authorizer = authorizer
    FTPHandler.unicode_errors = "surrogateescape"  # names as bytes, as servers in C have them
    if not mlsd:
        FTPHandler.proto_cmds = {k: v for k, v in FTPHandler.proto_cmds.items() if k not in ("MLSD", "MLST")}
    if int(cut):

        class Cutting(DTPHandler):  # type: ignore[misc]
            def send(self, data: bytes) -> int:
                if self.tot_bytes_sent >= int(cut):
                    self._resp = ("426 The transfer was cut.", None)
                    self.close()
                    return 0
                return int(super().send(data))

        FTPHandler.dtp_handler = Cutting
        FTPHandler.use_sendfile = False
    if int(quota):

        class Full(DTPHandler):  # type: ignore[misc]
            def handle_read(self) -> None:
                super().handle_read()
                if self.tot_bytes_received >= int(quota):
                    self._resp = ("552 The quota is used up.", None)
                    self.close()

            handle_read_event = handle_read

        FTPHandler.dtp_handler = Full
    if line:

        class Lines(AbstractedFS):  # type: ignore[misc]
            def format_list(self, basedir: str, listing: list[str], ignore_err: bool = True) -> Iterator[bytes]:
                for name in listing:
                    status = os.stat(os.path.join(basedir, name))
                    mode = stat.filemode(status.st_mode)
                    yield (line.format(mode=mode, size=status.st_size, name=name) + "\r\n").encode()

        FTPHandler.abstracted_fs = Lines
    if home != "/":

        class Homes(AbstractedFS):  # type: ignore[misc]
            def __init__(self, root: str, cmd_channel: FTPHandler) -> None:
                super().__init__(root, cmd_channel)
                self.cwd = home

        FTPHandler.abstracted_fs = Homes
    server = FTPServer(("127.0.0.1", int(port)), FTPHandler)
    server.max_cons_per_ip = int(logins)
    server.serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
