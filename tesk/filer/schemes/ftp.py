"""`ftp:`: passive, binary, port and credentials in the URL, anonymous without.

The path is relative to the login directory, as RFC 1738 and curl have it; `%2F` at its start makes it absolute.
Names travel as the very bytes of the file system: the wire is Latin-1 here, names are encoded before and after.
Uploads go to a temporary name and are renamed.
"""

import contextlib
import ftplib
import os
import posixpath
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote_to_bytes, urlsplit

from tesk.filer.errors import NotFound, TransferError
from tesk.filer.schemes import Context, Entry, Kind
from tesk.filer.schemes.sockets import from_socket, hang_up
from tesk.filer.streams import Sink, Source

BLOCK: Final = 256 * 1024
MAX_DEPTH: Final = 200
_UNIX: Final = re.compile(r"^([-dlbcps])\S{9,}\s+\d+\s+\S+\s+\S+\s+(\d+)\s+\w{3}\s+\d+\s+[\d:]+ (.+)$")
_WINDOWS: Final = re.compile(r"^\d\d-\d\d-\d\d(?:\d\d)?\s+\d\d:\d\d(?:[AP]M)?\s+(<DIR>|\d+)\s+(.+)$")

T = TypeVar("T")


class Target(NamedTuple):
    """Where a URL points: the path as Latin-1 wire text, relative to the login directory unless it is absolute."""

    host: str
    port: int
    user: str
    password: str
    path: str

    @property
    def peer(self) -> str:
        return f"ftp://{self.host}" + (f":{self.port}" if self.port != 21 else "")


class Listed(NamedTuple):
    """One line of a listing: a wire name, its kind (None for a link, which has to be asked for), its size."""

    name: str
    kind: Kind | None
    size: int | None


def target_of(url: str) -> Target:
    """Raises TransferError for what is no FTP URL."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    try:
        parts = urlsplit(f"{scheme}://{authority}")
        host, port = parts.hostname or "", parts.port or 21
    except ValueError as error:
        raise TransferError(f"not a URL ({error})", "check the URL") from None
    if not host or not slash:
        raise TransferError("not an FTP URL with a host and a path", "check the URL")
    user, password, wire = (
        unquote_to_bytes(part).decode("latin-1") for part in _login(parts.username, parts.password, path)
    )
    if any(c in user + password + wire for c in "\r\n\0"):
        raise TransferError("FTP cannot carry a line break in a name", "rename the file")
    return Target(host, port, user, password, wire.rstrip("/") or "/")


def _login(user: str | None, password: str | None, path: str) -> tuple[str, str, str]:
    return (user or "anonymous", password or ("" if user else "anonymous@"), path)


def wire(name: str) -> str:
    """A name as ftplib has to be given it."""
    return os.fsencode(name).decode("latin-1")


def parse_mlsd(line: str) -> Listed | None:
    """One line of MLSD (RFC 3659); None for the directory itself and its parent."""
    facts_text, _, name = line.partition(" ")
    facts = {key.lower(): value for key, _, value in (f.partition("=") for f in facts_text.split(";"))}
    what = facts.get("type", "").lower()
    if what in ("cdir", "pdir") or name in ("", ".", ".."):
        return None
    kind = {"file": Kind.FILE, "dir": Kind.DIRECTORY}.get(what)
    size = facts.get("size", "")
    return Listed(name, kind, int(size) if size.isdigit() and kind is Kind.FILE else None)


def parse_list(line: str) -> Listed | None:
    """One line of LIST in Unix or Windows style; None for what is no entry."""
    if match := _UNIX.match(line):
        letter, size, name = match.groups()
        if letter == "l":
            return Listed(name.partition(" -> ")[0], None, None)
        kind = {"d": Kind.DIRECTORY, "-": Kind.FILE}.get(letter)
        if kind is None or name in (".", ".."):
            return None
        return Listed(name, kind, int(size) if kind is Kind.FILE else None)
    if match := _WINDOWS.match(line):
        size, name = match.groups()
        return Listed(name, Kind.DIRECTORY, None) if size == "<DIR>" else Listed(name, Kind.FILE, int(size))
    return None


class FtpScheme:
    """Control connections kept by thread and login."""

    def __init__(self, context: Context) -> None:
        self._timeout_s = context.settings.timeout_s
        self._warn = context.warn
        self._mine = threading.local()
        self._all: set[ftplib.FTP] = set()
        self._data: set[socket.socket] = set()
        self._lock = threading.Lock()

    def find(self, url: str, declared: Kind | None) -> tuple[Kind, int | None]:
        return self._do(target_of(url), lambda ftp, path: _find(ftp, path, declared))

    def entries(self, url: str) -> Iterator[Entry]:
        yield from self._do(target_of(url), self._tree)

    def _tree(self, ftp: ftplib.FTP, top: str) -> list[Entry]:
        entries: list[Entry] = []
        pending = [("", 0)]
        while pending:
            relative, depth = pending.pop()
            for found in _listing(ftp, posixpath.join(top, relative)):
                if "/" in found.name or found.name in ("", ".", ".."):
                    raise TransferError(f"the server lists a file named {found.name!r}", "check the server")
                path = posixpath.join(relative, found.name)
                kind, size = found.kind, found.size
                if kind is None:
                    try:
                        kind, size = _find(ftp, posixpath.join(top, path), None)
                    except ftplib.error_perm:
                        self._warn(f"{path} on the FTP server was left out: neither file nor directory")
                        continue
                if kind is Kind.DIRECTORY:
                    if depth >= MAX_DEPTH:
                        raise TransferError(f"{path} is nested deeper than {MAX_DEPTH}", "check for link loops")
                    pending.append((path, depth + 1))
                name = os.fsdecode(path.encode("latin-1"))
                entries.append(Entry(name, kind is Kind.DIRECTORY, size))
        return entries

    def child(self, url: str, relative: str) -> str:
        return f"{url.rstrip('/')}/{quote(os.fsencode(relative))}"

    def fetch(self, url: str, sink: Sink) -> None:
        target = target_of(url)

        def fetch(ftp: ftplib.FTP, path: str) -> None:
            expected = _size(ftp, path)
            buffer = memoryview(bytearray(BLOCK))
            with self._transfer(ftp, f"RETR {path}") as data:
                while n := data.recv_into(buffer):
                    sink.write(buffer[:n])
            if expected is not None and sink.size != expected:
                raise TransferError(
                    f"{target.peer} sent {sink.size} of {expected} bytes", "check the server", passing=True
                )

        self._do(target, fetch)

    def push(self, source: Source, url: str) -> None:
        def push(ftp: ftplib.FTP, path: str) -> None:
            folder, name = posixpath.split(path)
            temporary = posixpath.join(folder, f".tesk-{os.urandom(8).hex()}")
            _make_folders(ftp, folder)
            try:
                with self._transfer(ftp, f"STOR {temporary}") as data:
                    while block := source.read(BLOCK):
                        data.sendall(block)
                _rename(ftp, temporary, posixpath.join(folder, name))
            except BaseException:
                _discard(ftp, temporary)
                raise

        self._do(target_of(url), push)

    def make_directory(self, url: str) -> None:
        self._do(target_of(url), _make_folders)

    def close(self) -> None:
        with self._lock:
            for ftp in self._all:
                hang_up(ftp.sock)
            for data in self._data:
                hang_up(data)

    @contextlib.contextmanager
    def _transfer(self, ftp: ftplib.FTP, command: str) -> Iterator[socket.socket]:
        """The data connection of one command, whose final answer is awaited when the block ends well."""
        with contextlib.closing(ftp.transfercmd(command)) as data:
            with self._lock:
                self._data.add(data)
            try:
                yield data
            finally:
                with self._lock:
                    self._data.discard(data)
        ftp.voidresp()

    def _do(self, target: Target, call: Callable[[ftplib.FTP, str], T]) -> T:
        """Runs `call` on this thread's connection, with the absolute path; what breaks becomes a TransferError."""
        mine = cast(dict[Target, tuple[ftplib.FTP, str]], self._mine.__dict__)
        login = target._replace(path="")
        try:
            if login not in mine or not _alive(mine[login][0]):
                mine[login] = self._log_in(target)
            ftp, home = mine[login]
            return call(ftp, posixpath.join(home, target.path))
        except BaseException as error:
            if not isinstance(error, ftplib.error_perm):
                self._drop(mine.pop(login, None))
            if isinstance(error, ftplib.Error):
                raise _refused(error, target) from error
            if isinstance(error, EOFError):
                raise TransferError(f"{target.peer} hung up", "check the server", passing=True) from error
            if isinstance(error, OSError):
                raise from_socket(error, target.peer, self._timeout_s) from error
            raise

    def _log_in(self, target: Target) -> tuple[ftplib.FTP, str]:
        ftp = ftplib.FTP(timeout=self._timeout_s, encoding="latin-1")  # noqa: S321 - it is what the URL asks for
        with self._lock:
            self._all.add(ftp)
        try:
            ftp.connect(target.host, target.port)
            ftp.login(target.user, target.password)
            ftp.voidcmd("TYPE I")
            return ftp, ftp.pwd()
        except BaseException:
            self._drop((ftp, ""))
            raise

    def _drop(self, known: tuple[ftplib.FTP, str] | None) -> None:
        if known is not None:
            known[0].close()
            with self._lock:
                self._all.discard(known[0])


def _alive(ftp: ftplib.FTP) -> bool:
    try:
        ftp.voidcmd("NOOP")
    except (ftplib.Error, OSError, EOFError):
        ftp.close()
        return False
    return True


def _size(ftp: ftplib.FTP, path: str) -> int | None:
    """A file's size, None where the server does not say."""
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def _is_directory(ftp: ftplib.FTP, path: str) -> bool:
    try:
        ftp.cwd(path)
    except ftplib.error_perm:
        return False
    return True


def _find(ftp: ftplib.FTP, path: str, declared: Kind | None) -> tuple[Kind, int | None]:
    if declared is Kind.DIRECTORY and _is_directory(ftp, path):
        return Kind.DIRECTORY, None
    try:
        return Kind.FILE, ftp.size(path)
    except ftplib.error_perm as error:
        if _is_directory(ftp, path):
            return Kind.DIRECTORY, None
        if str(error).startswith("550"):
            raise
        return Kind.FILE, None


def _listing(ftp: ftplib.FTP, path: str) -> list[Listed]:
    lines: list[str] = []
    parse = parse_mlsd
    try:
        ftp.retrlines(f"MLSD {path}", lines.append)
    except ftplib.error_perm as error:
        if not str(error).startswith(("500", "501", "502", "504")):
            raise
        parse = parse_list
        ftp.cwd(path)
        ftp.retrlines("LIST", lines.append)
    finally:
        # retrlines leaves the connection in text mode, in which some servers refuse SIZE.
        ftp.voidcmd("TYPE I")
    return [found for line in lines if (found := parse(line)) is not None]


def _make_folders(ftp: ftplib.FTP, folder: str) -> None:
    if _is_directory(ftp, folder):
        return
    here = "/" if folder.startswith("/") else ""
    for part in filter(None, folder.split("/")):
        here = posixpath.join(here, part)
        try:
            ftp.mkd(here)
        except ftplib.error_perm:
            if here == folder and not _is_directory(ftp, here):
                raise


def _rename(ftp: ftplib.FTP, temporary: str, path: str) -> None:
    """Renames over what may be there; some servers want that deleted first."""
    try:
        ftp.rename(temporary, path)
    except ftplib.error_perm:
        with contextlib.suppress(ftplib.error_perm):
            ftp.delete(path)
        ftp.rename(temporary, path)


def _discard(ftp: ftplib.FTP, temporary: str) -> None:
    """Deletes a half-written file; an upload that was cut may first have its end to say."""
    with contextlib.suppress(ftplib.Error, OSError, EOFError):
        if ftp.sock is not None:
            ftp.sock.settimeout(2)
        with contextlib.suppress(ftplib.error_temp, ftplib.error_perm):
            ftp.voidcmd("NOOP")
        ftp.delete(temporary)


def _refused(error: ftplib.Error, target: Target) -> TransferError:
    text = " ".join(str(error).split())
    code, phrase = (text[:3], text[3:].strip(" -")) if text[:3].isdigit() else ("", text)
    phrase = phrase.encode("latin-1", "replace").decode("utf-8", "replace")[:200]
    if target.password:
        phrase = phrase.replace(target.password, "…")
    if code in ("530", "532", "331", "332"):
        return TransferError(f"access denied ({code} {phrase}) by {target.peer}", "check user and password in the URL")
    if code == "550":
        return NotFound(f"not there or not allowed ({code} {phrase}) by {target.peer}", "check the path and its rights")
    answer = (
        f"refused ({code} {phrase}) by {target.peer}" if code else f"{target.peer} does not answer as FTP ({phrase})"
    )
    return TransferError(answer, "check the server", passing=not isinstance(error, ftplib.error_perm))


def open_scheme(context: Context) -> FtpScheme:
    return FtpScheme(context)
