"""SSH connections for `sftp:`: one for each login and table of the credentials, shared by all threads, driven by
an event loop in one thread.

SFTP answers by number, so one connection carries any number of files at once. Who asks waits in its own thread and
gives up on a connection from which nothing came for the time that the settings allow. Host keys are checked against
the known_hosts of the credentials or of the account; an unknown one is refused, for a password would go to it.
"""

import asyncio
import concurrent.futures
import contextlib
import getpass
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import asyncssh

from tesk.filer.credentials import Credentials, Table
from tesk.filer.errors import NO_HOST, NotFound, Stopped, TransferError
from tesk.filer.scheme import Context
from tesk.filer.wire.sockets import from_socket

CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""These first: processors have instructions for them, which halves the time of a large file."""
TICK_S: Final = 0.5

T = TypeVar("T")


class SftpTarget(NamedTuple):
    """Where a URL points; `port` is 0 and `user` is "" where the URL says none."""

    host: str
    port: int
    user: str
    password: str
    path: bytes

    @property
    def peer(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"sftp://{host}" + (f":{self.port}" if self.port else "")


def target_of(url: str) -> SftpTarget:
    """Raises TransferError for what is no SFTP URL."""
    authority, slash, path = url.partition("://")[2].partition("/")
    try:
        parts = urlsplit(f"sftp://{authority}")
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        raise TransferError("not a URL: its host or port cannot be read", NO_HOST) from None
    if not host or not slash:
        raise TransferError("not an SFTP URL with a host and a path", "an SFTP URL is sftp://user@host/absolute/path")
    path_bytes = unquote_to_bytes(os.fsencode("/" + path))
    if b"\0" in path_bytes:
        raise TransferError("a path cannot hold a NUL character", "check the URL")
    home = path_bytes == b"/~" or path_bytes.startswith(b"/~/")
    where = (path_bytes[3:] or b".") if home else path_bytes
    return SftpTarget(
        host, port, unquote(parts.username or ""), unquote(parts.password or ""), where.rstrip(b"/") or b"/"
    )


class Login(NamedTuple):
    """What a connection is made with: where the URL points, without its path, and the table of the credentials."""

    target: SftpTarget
    table: Table

    @property
    def key(self) -> tuple[SftpTarget, Path, str]:
        return self.target, self.table.file, self.table.prefix


class _Client(asyncssh.SSHClient):
    """Judges a host key that no known_hosts has."""

    def __init__(self, trusted: str) -> None:
        self._trusted = trusted

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._trusted == "any" or (self._trusted != "" and key.get_fingerprint() == self._trusted)


class Connections:
    """SSH connections, opened at first use, and again after they broke."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._timeout_s = context.settings.timeout_s
        self._credentials = Credentials(context.settings.credentials)
        self._open: dict[tuple[SftpTarget, Path, str], tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]] = {}
        self._locks: dict[tuple[SftpTarget, Path, str], threading.Lock] = {}
        self._lock = threading.Lock()
        self._asked: set[concurrent.futures.Future[Any]] = set()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="ssh").start()

    def run(
        self, url: str, call: Callable[[asyncssh.SFTPClient, bytes], Coroutine[Any, Any, T]], moved: Callable[[], int]
    ) -> T:
        """What `call` gives for the client and path of `url`; `moved` grows while bytes come or go.

        Raises TransferError, Stopped.
        """
        target = target_of(url)
        login = Login(target._replace(path=b""), self._credentials.of(url))
        try:
            client = self._client(login)
            return self._await(call(client, target.path), moved)
        except (Stopped, TransferError):
            raise
        except concurrent.futures.CancelledError:
            raise Stopped from None
        except Exception as error:
            failure = translate(error, target.peer, self._timeout_s)
            if not isinstance(error, asyncssh.SFTPError) or isinstance(
                error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection
            ):
                self._drop(login)
            raise failure from error

    def _client(self, login: Login) -> asyncssh.SFTPClient:
        key = login.key
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._open:
                self._open[key] = self._connect(login)
            return self._open[key][1]

    def _connect(self, login: Login) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
        options = self._options(login.target, login.table)

        async def connect(**way: Any) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
            connection = await asyncssh.connect(options.host, options.port, options=options, **way)
            try:
                return connection, await connection.start_sftp_client(path_encoding=None)
            except BaseException:
                connection.abort()
                raise

        if options.tunnel:
            return self._await(connect(), lambda: 0)
        sock = self._context.reach.connect(options.host, options.port, min(self._timeout_s, 30))
        try:
            sock.setblocking(False)
            return self._await(connect(sock=sock), lambda: 0)
        except BaseException:
            sock.close()
            raise

    def _options(self, login: SftpTarget, table: Table) -> asyncssh.SSHClientConnectionOptions:
        """What the URL says, then the credentials, then ~/.ssh with its config, keys and agent."""
        given: dict[str, Any] = {}
        if user := login.user or table.read("user"):
            given["username"] = user
        if password := login.password or table.read("password").rstrip("\r\n"):
            given["password"] = password
        if login.port:
            given["port"] = login.port
        try:
            if key := table.read("private_key"):
                secret = table.read("passphrase").rstrip("\r\n") or None
                given |= {"client_keys": [asyncssh.import_private_key(key, secret)], "agent_path": None}
            if hosts := table.read("known_hosts"):
                given["known_hosts"] = asyncssh.import_known_hosts(hosts)
        except (ValueError, asyncssh.KeyEncryptionError) as error:
            raise TransferError(f"the credentials in {table.file} are not usable ({error})", "check the key") from None
        trusted = table.values.get("host_key", "")
        try:
            getpass.getuser()
        except (KeyError, OSError):
            os.environ["LOGNAME"] = "tesk"  # asyncssh asks for the account's name, which a pod's user may not have
        try:
            return asyncssh.SSHClientConnectionOptions(
                host=login.host,
                config=(),
                client_factory=lambda: _Client(trusted),
                proxy_command=None,
                encryption_algs=CIPHERS,
                login_timeout=max(1, self._timeout_s),
                keepalive_interval=max(1, self._timeout_s / 3),
                **given,
            )
        except (ValueError, OSError, asyncssh.Error) as error:
            raise TransferError(f"not a usable SSH configuration ({error})", "check ~/.ssh") from None

    def _await(self, coroutine: Coroutine[Any, Any, T], moved: Callable[[], int]) -> T:
        """The coroutine's result, run by the loop; TimeoutError when nothing moved for the time allowed."""
        with self._lock:
            if self._closed:
                coroutine.close()
                raise Stopped
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._asked.add(future)
        try:
            before, waited = moved(), 0.0
            while True:
                tick = min(TICK_S, self._timeout_s)
                done, _ = concurrent.futures.wait([future], tick)
                if done:
                    return future.result()
                now, waited = moved(), waited + tick
                if now != before:
                    before, waited = now, 0.0
                if waited >= self._timeout_s:
                    future.cancel()
                    raise TimeoutError
        finally:
            with self._lock:
                self._asked.discard(future)

    def _drop(self, login: Login) -> None:
        with self._lock:
            known = self._open.pop(login.key, None)
        if known is not None:
            self._loop.call_soon_threadsafe(known[0].abort)

    def close(self) -> None:
        """Ends every connection and every wait."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            asked = list(self._asked)
            connections = [connection for connection, _ in self._open.values()]
        for future in asked:
            future.cancel()

        async def end() -> None:
            for connection in connections:
                with contextlib.suppress(Exception):
                    connection.abort()
            if left := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(left, timeout=1)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)


def translate(error: Exception, peer: str, timeout_s: float) -> TransferError:
    """The TransferError for an error of asyncssh."""
    reason = (str(getattr(error, "reason", "")) or str(error) or type(error).__name__).strip().rstrip(".")[:200]
    if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath):
        return NotFound(f"not found by {peer}", "check the path")
    if isinstance(error, asyncssh.SFTPPermissionDenied | asyncssh.SFTPWriteProtect):
        return TransferError(f"access denied ({reason.lower()}) by {peer}", "check the rights there")
    if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection | asyncssh.ConnectionLost):
        return TransferError(f"the connection to {peer} broke ({reason})", "check the server", passing=True)
    if isinstance(error, asyncssh.SFTPNoSpaceOnFilesystem | asyncssh.SFTPQuotaExceeded):
        return TransferError(f"no room left at {peer}", "free some space there")
    if isinstance(error, asyncssh.SFTPError):
        return TransferError(f"refused ({reason}) by {peer}", "check the path and the rights there")
    if isinstance(error, asyncssh.PermissionDenied):
        return TransferError(f"access denied ({reason}) by {peer}", "check user, password and key")
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return TransferError(
            f"the host key of {peer} is unknown ({reason})", "add it to known_hosts, or set host_key in the credentials"
        )
    if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolNotSupported | asyncssh.IllegalUserName):
        return TransferError(f"no understanding with {peer} ({reason})", "check the server")
    if isinstance(error, asyncssh.Error):
        return TransferError(f"the connection to {peer} broke ({reason})", "check the server", passing=True)
    if isinstance(error, OSError):
        return from_socket(error, peer, timeout_s)
    raise error
