"""FTP's connections: made where transfers may go, lent to one thread at a time, each failure a TransferError.

Many servers allow a few logins at once. One that refuses a further login while others are open is asked for no more
than those: whoever wants one waits until it is free.
"""

import contextlib
import ftplib
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from tesk.filer import bounds
from tesk.filer.errors import NO_HOST, NotFound, Stopped, TransferError
from tesk.filer.reach import Reach
from tesk.filer.wire.sockets import from_socket, hang_up, peer_of

FRESH_S: Final = 5.0
GREETING_S: Final = 1.0
_TOO_MANY: Final = ("421", "530 too many", "530 sorry, the maximum", "530 maximum", "530 connection limit")


class FtpTarget(NamedTuple):
    """Where a URL points: the path as Latin-1 wire text, relative to the login directory (empty: that itself)
    unless it is absolute.
    """

    host: str
    port: int
    user: str
    password: str
    path: str
    secure: bool = False

    @property
    def peer(self) -> str:
        return peer_of(f"ftp{'s' * self.secure}", self.host, self.port)


def target_of(url: str) -> FtpTarget:
    """Raises TransferError for what is no FTP URL."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    try:
        parts = urlsplit(f"{scheme}://{authority}")
        secure = parts.scheme.lower() == "ftps"
        host, port = parts.hostname or "", parts.port or (990 if secure else 21)
    except ValueError:
        raise TransferError("not a URL: its host or port cannot be read", NO_HOST) from None
    if not host or not slash:
        raise TransferError("not an FTP URL with a host and a path", "check the URL")
    user, password, wire = (
        unquote_to_bytes(part).decode("latin-1") for part in _login(parts.username, parts.password, path)
    )
    if any(c in user + password + wire for c in "\r\n\0"):
        raise TransferError("FTP cannot carry a line break in a name", "rename the file")
    return FtpTarget(host, port, user, password, wire.rstrip("/") or wire[:1], secure)


def _login(user: str | None, password: str | None, path: str) -> tuple[str, str, str]:
    return (user or "anonymous", password or ("" if user else "anonymous@"), path)


class Session(NamedTuple):
    """A control connection that is logged in, and the directory that it began in."""

    ftp: ftplib.FTP
    home: str


class _Bounded(ftplib.FTP):
    """ftplib with a bound for the length of a reply; by itself it reads any number of lines."""

    _left = 0

    def getmultiline(self) -> str:
        self._left = bounds.MAX_HEAD_BYTES
        return super().getmultiline()

    def getline(self) -> str:
        line = super().getline()
        self._left -= len(line) + 1
        if self._left < 0:
            raise TransferError(
                f"the FTP server's reply is longer than {bounds.MAX_HEAD_BYTES:,} bytes", "check the server"
            )
        return line


class _PlainSession(_Bounded):
    """ftplib over a connection that was made already."""

    def greet(self, sock: socket.socket) -> None:
        self.sock, self.af = sock, sock.family
        self.file = sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()


class _SecureSession(_Bounded, ftplib.FTP_TLS):
    """The same with TLS, from the first byte or by AUTH. Data connections resume the session, as servers want it."""

    context: ssl.SSLContext

    def greet(self, sock: socket.socket) -> None:
        self.af = sock.family
        implicit = _is_silent(sock)
        self.sock = self.context.wrap_socket(sock, server_hostname=self.host) if implicit else sock
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        if not implicit:
            self.auth()

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        plain, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 - it is what the URL asks for
        assert isinstance(self.sock, ssl.SSLSocket)
        session = self.sock.session
        return self.context.wrap_socket(plain, server_hostname=self.host, session=session), size


def _is_silent(sock: socket.socket) -> bool:
    """Whether a server waits for us to begin, as one does that speaks TLS from the first byte."""
    return not select.select([sock], [], [], GREETING_S)[0]


class Sessions:
    """A pool of logged-in connections for each login."""

    def __init__(self, reach: Reach, timeout_s: float, stop: threading.Event) -> None:
        self._reach = reach
        self._timeout_s = timeout_s
        self._stop = stop
        self._free = threading.Condition()
        self._idle: dict[FtpTarget, list[tuple[Session, float]]] = {}
        self._count: dict[FtpTarget, int] = {}
        self._most: dict[FtpTarget, int] = {}
        self._all: set[ftplib.FTP] = set()
        self._data: set[socket.socket] = set()

    @contextlib.contextmanager
    def session(self, target: FtpTarget) -> Iterator[Session]:
        """A connection for the time of the block. Errors become TransferErrors."""
        login = target._replace(path="")
        session: Session | None = None
        try:
            session = self._borrow(login)
            yield session
        except BaseException as error:
            if session is not None:
                self._give_back(login, session, isinstance(error, ftplib.error_perm))
            if isinstance(error, ftplib.Error):
                raise refused(error, target) from error
            if isinstance(error, EOFError):
                raise TransferError(f"{target.peer} hung up", "check the server", passing=True) from error
            if isinstance(error, OSError):
                raise from_socket(error, target.peer, self._timeout_s) from error
            raise
        self._give_back(login, session, True)

    def _borrow(self, login: FtpTarget) -> Session:
        while True:
            with self._free:
                while not (idle := self._idle.get(login)) and self._is_full(login):
                    if self._stop.is_set():
                        raise Stopped
                    self._free.wait(0.5)
                if not idle:
                    self._count[login] = self._count.get(login, 0) + 1
                    break
                session, used_at = idle.pop()
            if time.monotonic() - used_at < FRESH_S or _is_alive(session.ftp):
                return session
            self._give_back(login, session, False)
        try:
            return self._log_in(login)
        except BaseException as error:
            with self._free:
                self._count[login] -= 1
                others = self._count[login]
                full = isinstance(error, ftplib.Error) and str(error).lower().startswith(_TOO_MANY) and others
                if full:
                    self._most[login] = others
                self._free.notify_all()
            if full:
                return self._borrow(login)
            raise

    def _is_full(self, login: FtpTarget) -> bool:
        return login in self._most and 0 < self._most[login] <= self._count.get(login, 0)

    def _give_back(self, login: FtpTarget, session: Session, usable: bool) -> None:
        with self._free:
            if usable and session.ftp.sock is not None:
                self._idle.setdefault(login, []).append((session, time.monotonic()))
            else:
                self._count[login] -= 1
                self._all.discard(session.ftp)
                session.ftp.close()
            self._free.notify()

    def _log_in(self, target: FtpTarget) -> Session:
        ftp: _PlainSession | _SecureSession
        if target.secure:
            ftp = _SecureSession(timeout=self._timeout_s, encoding="latin-1", context=ssl.create_default_context())
        else:
            ftp = _PlainSession(timeout=self._timeout_s, encoding="latin-1")
        ftp.host = target.host
        try:
            sock = self._reach.connect(target.host, target.port, self._timeout_s)
            with self._free:
                self._all.add(ftp)
            ftp.greet(sock)
            ftp.login(target.user, target.password)
            if isinstance(ftp, _SecureSession):
                ftp.prot_p()
            ftp.voidcmd("TYPE I")
            return Session(ftp, ftp.pwd())
        except BaseException:
            ftp.close()
            with self._free:
                self._all.discard(ftp)
            raise

    @contextlib.contextmanager
    def transfer(self, ftp: ftplib.FTP, command: str, rest: int | None = None) -> Iterator[socket.socket]:
        """The data connection of one command. Whoever uses it reads the final answer afterwards (`voidresp`)."""
        with contextlib.closing(ftp.transfercmd(command, rest)) as data:
            with self._free:
                self._data.add(data)
            try:
                yield data
                if isinstance(data, ssl.SSLSocket):
                    with contextlib.suppress(OSError):
                        data.unwrap()
            finally:
                with self._free:
                    self._data.discard(data)

    def close(self) -> None:
        with self._free:
            for ftp in self._all:
                hang_up(ftp.sock)
            for data in self._data:
                hang_up(data)
            self._free.notify_all()


def _is_alive(ftp: ftplib.FTP) -> bool:
    try:
        ftp.voidcmd("NOOP")
    except (ftplib.Error, OSError, EOFError):
        return False
    return True


def refused(error: ftplib.Error, target: FtpTarget) -> TransferError:
    text = " ".join(str(error).split())
    code, phrase = (text[:3], text[3:].strip(" -")) if text[:3].isdigit() else ("", text)
    phrase = phrase.encode("latin-1", "replace").decode("utf-8", "replace")[:200]
    if target.password:
        phrase = phrase.replace(target.password, "…")
    if code in ("530", "532", "331", "332"):
        return TransferError(f"access denied ({code} {phrase}) by {target.peer}", "check user and password")
    if code == "550":
        return NotFound(f"not there or not allowed ({code} {phrase}) by {target.peer}", "check the path and its rights")
    answer = (
        f"refused ({code} {phrase}) by {target.peer}" if code else f"{target.peer} does not answer as FTP ({phrase})"
    )
    return TransferError(
        answer, "check the server", passing=not isinstance(error, ftplib.error_perm), pushed_back=code == "421"
    )
