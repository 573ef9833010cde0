"""A real FTP server over a folder: pyftpdlib in a process of its own (`python -m tests.servers.ftp` runs it)."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.servers.process import free_port, serving


@contextlib.contextmanager
def ftp_server(root: Path, *, user: str = "", password: str = "", mlsd: bool = True) -> Iterator[str]:
    """Yields the URL of `root`, with the credentials in it; anonymous may read and write where there is no user.

    Without `mlsd` it knows LIST only, as old servers do.
    """
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.servers.ftp", str(port), str(root), user, password, "mlsd" if mlsd else ""]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    with (
        tempfile.TemporaryDirectory(prefix="tesk-ftp-") as scratch,
        serving(command, port, Path(scratch) / "log", cwd=Path(__file__).parents[2]),
    ):
        yield f"ftp://{login}127.0.0.1:{port}"


def _serve(port: str, root: str, user: str, password: str, mlsd: str) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer  # type: ignore[import-untyped]
    from pyftpdlib.handlers import FTPHandler  # type: ignore[import-untyped]
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
    FTPServer(("127.0.0.1", int(port)), FTPHandler).serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
