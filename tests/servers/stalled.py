"""A database that takes no write for a while: another process has its lock, as a backup or a long transaction may."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from tests.servers.postgres import program_path

HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=300)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def stalled(url: str) -> Iterator[None]:
    """Until the end of this context manager no row of the database at the URL can be added or changed."""
    if url.startswith("sqlite"):
        command = [sys.executable, "-c", HOLD, unquote(urlsplit(url).path)[1:]]
        begin = b""
    else:
        command = [program_path("psql"), url, "-qAtX", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        begin = b"BEGIN; LOCK TABLE task IN SHARE MODE; SELECT 'held';\n"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write(begin)
            holder.stdin.flush()
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.kill()
