"""`ftp:` and `ftps:`: passive, binary, port and credentials in the URL or configured, anonymous without.

The path is relative to the login directory, as RFC 1738 and curl have it; `%2F` at its start makes it absolute.
Names travel as the very bytes of the file system: the wire is Latin-1 here, names are encoded before and after.
Uploads go to a temporary name and are renamed. Large files come in parts (REST) over several connections; since a part
ends by hanging up on a server that goes on sending for a while, parts are large. `ftps:` is TLS from the first byte, or
AUTH TLS where the server greets in the clear.
"""

import contextlib
import ftplib
import os
import posixpath
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar
from urllib.parse import quote

from tesk.filer import bounds, splices
from tesk.filer.attributes import SECOND_NS, UNKNOWN, Attributes, from_ftp
from tesk.filer.bounds import Listing
from tesk.filer.credentials import Credentials, login
from tesk.filer.errors import Changed, TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.ftp.listing import FtpEntry, parse_list, parse_mlsd
from tesk.filer.schemes.ftp.wire import FtpTarget, Sessions, target_of
from tesk.filer.streams import Sink, Source
from tesk.filer.wire.sockets import send_file

BLOCK: Final = 256 * 1024
SENT: Final = 64 * 1024
"""What servers read at once (vsftpd does)."""
_LINE_END: Final = 2
LEAST_PART: Final = 64 * 1024 * 1024

T = TypeVar("T")


class FtpScheme:
    """Each call borrows a connection from the pool."""

    def __init__(self, context: Context) -> None:
        self._timeout_s = context.settings.timeout_s
        self._credentials = Credentials(context.settings.credentials)
        self._sessions = Sessions(context.reach, context.settings.timeout_s, context.meter.stop)
        self._warn = context.warn
        self._listings = context.listings
        self._gives_parts: dict[FtpTarget, bool] = {}
        self._sets_no_times: set[FtpTarget] = set()

    def _target(self, url: str) -> FtpTarget:
        """Where the URL points. A URL without a user gets the user of the credentials or of netrc."""
        target = target_of(url)
        if "@" in url.partition("://")[2].partition("/")[0]:
            return target
        user, password = (text.encode().decode("latin-1") for text in login(self._credentials.of(url), target.host))
        if any(c in user + password for c in "\r\n\0"):
            raise TransferError("the configured user or password holds a line break", "check the credentials")
        return target._replace(user=user, password=password) if user else target

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        return self._do(self._target(url), lambda ftp, path: _find(ftp, path, declared))

    def entries(self, url: str) -> Iterator[Entry]:
        target = self._target(url)
        with self._listings.listing(target.peer) as listing:
            yield from self._do(target, lambda ftp, path: self._tree(ftp, path, listing))

    def _tree(self, ftp: ftplib.FTP, top: str, listing: Listing) -> list[Entry]:
        entries: list[Entry] = []
        pending = [("", 0)]
        while pending:
            relative, depth = pending.pop()
            for found in _listing(ftp, posixpath.join(top, relative)):
                if "/" in found.name or found.name in ("", ".", ".."):
                    raise TransferError(f"the server lists a file named {found.name[:200]!r}", "check the server")
                path = posixpath.join(relative, found.name)
                listing.add(path)
                kind, size, attributes = found.kind, found.size, found.attributes
                if kind is None:
                    try:
                        kind, size, attributes = _find(ftp, posixpath.join(top, path), None)
                    except ftplib.error_perm:
                        self._warn(f"{path} on the FTP server was left out: neither file nor directory")
                        continue
                if kind is Kind.DIRECTORY:
                    bounds.check_depth(depth + 1, path)
                    pending.append((path, depth + 1))
                name = os.fsdecode(path.encode("latin-1"))
                entries.append(Entry(name, kind is Kind.DIRECTORY, size, attributes))
        return entries

    def child(self, url: str, relative: str) -> str:
        return f"{url.rstrip('/')}/{quote(os.fsencode(relative))}"

    def fetch(self, url: str, sink: Sink) -> None:
        target = self._target(url)

        def fetch(ftp: ftplib.FTP, path: str) -> None:
            sink.total = _size(ftp, path)
            if sink.attributes.modified_ns is None:
                sink.attributes = sink.attributes._replace(modified_ns=_changed(ftp, path).modified_ns)
            if sink.total and sink.total >= 2 * LEAST_PART and self._can_rest(ftp, target):
                sink.offer(sink.total, _version(ftp, path), LEAST_PART)
            self._retrieve(ftp, path, target, sink)

        self._do(target, fetch)

    def fetch_part(self, url: str, sink: Sink) -> None:
        target = self._target(url)

        def fetch(ftp: ftplib.FTP, path: str) -> None:
            if not sink.is_full:
                if (_size(ftp, path), _version(ftp, path)) != (sink.total, sink.version):
                    raise Changed(f"{target.peer} has another version of the file than at first", "see that it rests")
                self._retrieve(ftp, path, target, sink)

        self._do(target, fetch)

    def _retrieve(self, ftp: ftplib.FTP, path: str, target: FtpTarget, sink: Sink) -> None:
        """Fills the sink from its position. A part ends by closing the connection; servers answer that differently."""
        buffer = memoryview(bytearray(BLOCK))
        with self._sessions.transfer(ftp, f"RETR {path}", sink.position or None) as data:
            if not isinstance(data, ssl.SSLSocket):
                splices.fill(data.fileno(), sink, sink.room(sys.maxsize), self._timeout_s)
            while (room := sink.room(BLOCK)) and (n := data.recv_into(buffer[:room])):
                sink.write(buffer[:n])
        try:
            ftp.voidresp()
        except ftplib.Error:
            if sink.end is None or not sink.is_full:
                raise
        wanted = sink.total if sink.end is None else sink.end
        if wanted is not None and sink.position != wanted:
            sent = f"{target.peer} sent {sink.position} of {sink.total} bytes"
            raise TransferError(sent, "check the server", passing=True)

    def _can_rest(self, ftp: ftplib.FTP, target: FtpTarget) -> bool:
        login = target._replace(path="")
        if login not in self._gives_parts:
            try:
                self._gives_parts[login] = "REST STREAM" in ftp.sendcmd("FEAT").upper()
            except ftplib.error_perm:
                self._gives_parts[login] = False
        return self._gives_parts[login]

    def push(self, source: Source, url: str) -> None:
        target = self._target(url)

        def push(ftp: ftplib.FTP, path: str) -> None:
            folder, name = posixpath.split(path)
            temporary = posixpath.join(folder, f".tesk-{os.urandom(8).hex()}")
            _make_folders(ftp, folder)
            try:
                self._store(ftp, temporary, source)
                arrived = _size(ftp, temporary)
                if arrived not in (None, source.size):
                    got = f"{target.peer} got {arrived} of {source.size} bytes"
                    raise TransferError(got, "check the server", passing=True)
                self._set_time(ftp, temporary, target, source.attributes)
                _rename(ftp, temporary, posixpath.join(folder, name))
            except BaseException:
                _discard(ftp, temporary)
                raise

        self._do(target, push)

    def _store(self, ftp: ftplib.FTP, path: str, source: Source) -> None:
        try:
            with self._sessions.transfer(ftp, f"STOR {path}") as data:
                send_file(data, source, SENT)
        except (ConnectionError, ssl.SSLError):
            # A server that takes no more hangs up, and says why: that tells more than the broken pipe.
            ftp.voidresp()
            raise
        ftp.voidresp()

    def _set_time(self, ftp: ftplib.FTP, path: str, target: FtpTarget, attributes: Attributes) -> None:
        """Sets the file's time, where the server has MFMT (draft-somers-ftp-mfxx), as few have."""
        login, modified_ns = target._replace(path=""), attributes.credible_ns
        if modified_ns is None or login in self._sets_no_times:
            return
        try:
            ftp.sendcmd(f"MFMT {time.strftime('%Y%m%d%H%M%S', time.gmtime(modified_ns // SECOND_NS))} {path}")
        except ftplib.error_perm:
            self._sets_no_times.add(login)

    def make_directory(self, url: str) -> None:
        self._do(self._target(url), _make_folders)

    def close(self) -> None:
        self._sessions.close()

    def _do(self, target: FtpTarget, call: Callable[[ftplib.FTP, str], T]) -> T:
        """Runs `call` on a connection, with the absolute path."""
        with self._sessions.session(target) as (ftp, home):
            return call(ftp, posixpath.join(home, target.path) if target.path else home)


def _size(ftp: ftplib.FTP, path: str) -> int | None:
    """A file's size, None where the server does not say."""
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def _version(ftp: ftplib.FTP, path: str) -> str:
    """What tells one version of a file from another: the time of its last change, if the server tells it."""
    try:
        return ftp.sendcmd(f"MDTM {path}")
    except ftplib.error_perm:
        return "unknown"


def _changed(ftp: ftplib.FTP, path: str) -> Attributes:
    return from_ftp(_version(ftp, path).removeprefix("213 ").strip())


def _is_directory(ftp: ftplib.FTP, path: str) -> bool:
    try:
        ftp.cwd(path)
    except ftplib.error_perm:
        return False
    return True


def _find(ftp: ftplib.FTP, path: str, declared: Kind | None) -> FileInfo:
    if declared is Kind.DIRECTORY and _is_directory(ftp, path):
        return _directory(ftp, path)
    try:
        return FileInfo(Kind.FILE, ftp.size(path))
    except ftplib.error_perm as error:
        if _is_directory(ftp, path):
            return _directory(ftp, path)
        if str(error).startswith("550"):
            raise
        return FileInfo(Kind.FILE)


def _directory(ftp: ftplib.FTP, path: str) -> FileInfo:
    """A directory, with its time where the server has MLST, which needs no data connection (RFC 3659)."""
    try:
        lines = ftp.sendcmd(f"MLST {path}").splitlines()
    except ftplib.error_perm:
        lines = []
    listed = parse_mlsd(lines[1].strip()) if len(lines) > 1 else None
    return FileInfo(Kind.DIRECTORY, None, listed.attributes if listed else UNKNOWN)


def _listing(ftp: ftplib.FTP, path: str) -> list[FtpEntry]:
    """What is in one directory. Raises TransferError, which leaves the connection in the middle of the listing."""
    lines = _ListingLines()
    parse = parse_mlsd
    try:
        ftp.retrlines(f"MLSD {path}", lines.add)
    except ftplib.error_perm as error:
        if not str(error).startswith(("500", "501", "502", "504")):
            _leave_text(ftp)
            raise
        parse = parse_list
        ftp.cwd(path)
        ftp.retrlines("LIST", lines.add)
    _leave_text(ftp)
    return [found for line in lines.all if (found := parse(line)) is not None]


def _leave_text(ftp: ftplib.FTP) -> None:
    """After retrlines the connection is in text mode, in which some servers refuse SIZE."""
    ftp.voidcmd("TYPE I")


class _ListingLines:
    """The lines of one directory's listing."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._size = 0

    def add(self, line: str) -> None:
        self._size += len(line) + _LINE_END
        if self._size > bounds.MAX_PAGE_BYTES:
            raise TransferError(
                f"the server lists one directory in more than {bounds.MAX_PAGE_BYTES:,} bytes", "name the files"
            )
        self.all.append(line)


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
    """Deletes a half-written file. After a cut upload the server may first send the reply to that upload."""
    with contextlib.suppress(ftplib.Error, OSError, EOFError):
        if ftp.sock is not None:
            ftp.sock.settimeout(2)
        with contextlib.suppress(ftplib.error_temp, ftplib.error_perm):
            ftp.voidcmd("NOOP")
        with contextlib.suppress(ftplib.error_temp, ftplib.error_perm):
            ftp.delete(temporary)
        if ftp.sock is not None:
            ftp.sock.settimeout(ftp.timeout)


open_scheme = FtpScheme
