"""`sftp:` by asyncssh: absolute paths, `/~/` for the login folder, names of any bytes.

Large files go by many requests at once, so that the way there and back costs nothing. Uploads go to a temporary name
and are renamed once their size is right.
"""

import asyncio
import contextlib
import os
import posixpath
import stat
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import asyncssh
from asyncssh import SFTPAttrs, SFTPClient

from tesk.filer import bounds
from tesk.filer.attributes import SECOND_NS, UNKNOWN, Attributes, of_mode
from tesk.filer.errors import Changed, NotFound, TransferError
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.schemes.sftp.ssh import Connections, target_of
from tesk.filer.streams import Sink, Source

BLOCK: Final = 255 * 1024
"""What OpenSSH takes and gives in one request, at most."""
REQUESTS: Final = 24

T = TypeVar("T")


def _still() -> int:
    return 0


class SftpScheme:
    """Uses the shared SSH connections of one step."""

    def __init__(self, context: Context) -> None:
        self._warn = context.warn
        self._listings = context.listings
        self._connections = Connections(context)

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        async def find(sftp: SFTPClient, path: bytes) -> SFTPAttrs:
            return await sftp.stat(path)

        attrs = self._connections.run(url, find, _still)
        kind = _kind(attrs)
        if kind is None:
            raise TransferError("is neither a file nor a directory", "only these are staged")
        return FileInfo(kind, attrs.size if kind is Kind.FILE else None, _attributes(attrs))

    def entries(self, url: str) -> Iterator[Entry]:
        found: list[Entry] = []

        async def walk(sftp: SFTPClient, top: bytes) -> None:
            pending = [(b"", 0)]
            while pending:
                relative, depth = pending.pop()
                async for name in sftp.scandir(posixpath.join(top, relative)):
                    entry = await self._entry(sftp, top, relative, cast(bytes, name.filename), name.attrs)
                    if entry is None:
                        continue
                    listing.add(entry.relative)
                    found.append(entry)
                    if entry.is_directory:
                        bounds.check_depth(depth + 1, entry.relative)
                        pending.append((os.fsencode(entry.relative), depth + 1))

        with self._listings.listing(target_of(url).peer) as listing:
            self._connections.run(url, walk, lambda: listing.entries)
        yield from found

    async def _entry(self, sftp: SFTPClient, top: bytes, above: bytes, name: bytes, attrs: SFTPAttrs) -> Entry | None:
        """None for the directory itself, its parent, and what is neither file nor directory."""
        if name in (b".", b".."):
            return None
        if b"/" in name or not name:
            raise TransferError(f"the server lists a file named {os.fsdecode(name)!r}", "check the server")
        path = posixpath.join(above, name)
        kind = _kind(attrs)
        if kind is None:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied):
                attrs = await sftp.stat(posixpath.join(top, path))
                kind = _kind(attrs)
        shown = os.fsdecode(path)
        if kind is None:
            self._warn(f"{shown!r} on the SFTP server was left out: neither file nor directory")
            return None
        return Entry(shown, kind is Kind.DIRECTORY, attrs.size if kind is Kind.FILE else None, _attributes(attrs))

    def child(self, url: str, relative: str) -> str:
        return f"{url.rstrip('/')}/{quote(os.fsencode(relative))}"

    def fetch(self, url: str, sink: Sink) -> None:
        self._connections.run(url, lambda sftp, path: _fetch(sftp, path, sink, begins=True), lambda: sink.size)

    def fetch_part(self, url: str, sink: Sink) -> None:
        self._connections.run(url, lambda sftp, path: _fetch(sftp, path, sink, begins=False), lambda: sink.size)

    def push(self, source: Source, url: str) -> None:
        if url.endswith("/"):
            raise TransferError("names a directory, not a file", "leave out the last slash")
        self._connections.run(url, lambda sftp, path: _push(sftp, path, source), lambda: source.position)

    def make_directory(self, url: str) -> None:
        self._connections.run(url, _make_folders, _still)

    def close(self) -> None:
        self._connections.close()


def _kind(attrs: SFTPAttrs) -> Kind | None:
    """None for what is neither, for links, and where the server does not say."""
    if attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY:
        return Kind.DIRECTORY
    if attrs.type == asyncssh.FILEXFER_TYPE_REGULAR:
        return Kind.FILE
    mode = attrs.permissions
    if attrs.type == asyncssh.FILEXFER_TYPE_UNKNOWN and mode is not None:
        return Kind.DIRECTORY if stat.S_ISDIR(mode) else Kind.FILE if stat.S_ISREG(mode) else None
    return None


def _attributes(attrs: SFTPAttrs) -> Attributes:
    changed = None if attrs.mtime is None else attrs.mtime * SECOND_NS + (attrs.mtime_ns or 0)
    known = UNKNOWN if attrs.permissions is None else of_mode(attrs.permissions)
    return known._replace(modified_ns=changed)


async def _fetch(sftp: SFTPClient, path: bytes, sink: Sink, *, begins: bool) -> None:
    """Asks for the first block together with the size, which saves small files a way there and back."""
    file = await sftp.open(path, "rb")
    pending: deque[tuple[int, asyncio.Task[bytes]]] = deque()
    try:
        asked = sink.position
        size = BLOCK if sink.end is None else min(BLOCK, sink.end - asked)
        pending.append((size, _asked(_read(file, size, asked))))
        asked += size
        attrs = await file.stat()
        if attrs.size is None or _kind(attrs) is Kind.DIRECTORY:
            raise NotFound("is no file of known size", "check the path")
        sink.attributes = _attributes(attrs)
        version = f"{attrs.size}-{attrs.mtime}"
        if begins:
            sink.offer(attrs.size, version, least_part=attrs.size)
        elif version != sink.version:
            raise Changed("the file changed while it was fetched", "check what writes to it", passing=True)
        end = attrs.size if sink.end is None else sink.end
        while sink.position < end:
            while asked < end and len(pending) < REQUESTS:
                size = min(BLOCK, end - asked)
                pending.append((size, _asked(_read(file, size, asked))))
                asked += size
            size, task = pending.popleft()
            sink.write(await _whole(file, sink.position, min(size, end - sink.position), await task))
    finally:
        for _, task in pending:
            task.cancel()
        _asked(file.close())


async def _whole(file: asyncssh.SFTPClientFile, offset: int, size: int, data: bytes) -> bytes:
    """The bytes that were asked for, where the server gave less at once. Raises TransferError."""
    while len(data) < size:
        more = await _read(file, size - len(data), offset + len(data))
        if not more:
            raise TransferError(f"the server ends the file after {offset + len(data)} bytes", "try again", passing=True)
        data += more
    return data[:size]


def _asked(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Starts a request. When several fail together, only the first error is raised; the others are ignored."""
    task = asyncio.create_task(call)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _read(file: asyncssh.SFTPClientFile, size: int, offset: int) -> bytes:
    return cast(bytes, await file.read(size, offset))


async def _push(sftp: SFTPClient, path: bytes, source: Source) -> None:
    folder, name = posixpath.split(path)
    temporary = posixpath.join(folder, f".tesk-{os.urandom(8).hex()}".encode())
    try:
        wanted = SFTPAttrs(permissions=0o777) if source.attributes.executable else SFTPAttrs()
        try:
            file = await sftp.open(temporary, "wb", wanted)
        except asyncssh.SFTPError:
            await _make_folders(sftp, folder)
            file = await sftp.open(temporary, "wb", wanted)
        try:
            await _write(file, source)
        except BaseException:
            _asked(file.close())
            raise
        attrs, *_ = await asyncio.gather(file.stat(), _set_time(file, source.attributes), file.close())
        if attrs.size is not None and attrs.size != source.size:
            raise TransferError(
                f"{attrs.size} of {source.size} bytes arrived at the server", "check its space and quota", passing=True
            )
        await _rename(sftp, temporary, posixpath.join(folder, name))
    except BaseException:
        with contextlib.suppress(Exception):
            await asyncio.shield(asyncio.wait_for(sftp.remove(temporary), 2))
        raise


async def _set_time(file: asyncssh.SFTPClientFile, attributes: Attributes) -> None:
    """Sets the file's time, where the server allows it."""
    if (modified_ns := attributes.credible_ns) is not None:
        seconds = modified_ns // SECOND_NS
        with contextlib.suppress(asyncssh.SFTPError):
            await file.setstat(SFTPAttrs(atime=seconds, mtime=seconds))


async def _write(file: asyncssh.SFTPClientFile, source: Source) -> None:
    pending: deque[asyncio.Task[int]] = deque()
    try:
        offset = 0
        while data := source.read(BLOCK):
            if len(pending) >= REQUESTS:
                await pending.popleft()
            pending.append(_asked(file.write(data, offset)))
            offset += len(data)
        while pending:
            await pending.popleft()
    finally:
        for task in pending:
            task.cancel()


async def _rename(sftp: SFTPClient, temporary: bytes, path: bytes) -> None:
    """Renames over what may be there; servers without OpenSSH's way of it want that removed first."""
    try:
        await sftp.posix_rename(temporary, path)
        return
    except asyncssh.SFTPOpUnsupported:
        pass
    try:
        await sftp.rename(temporary, path)
    except asyncssh.SFTPError:
        with contextlib.suppress(asyncssh.SFTPError):
            await sftp.remove(path)
        await sftp.rename(temporary, path)


async def _make_folders(sftp: SFTPClient, folder: bytes) -> None:
    if not folder or await sftp.isdir(folder):
        return
    with contextlib.suppress(asyncssh.SFTPFailure):  # another thread may make the same
        await sftp.makedirs(folder, exist_ok=True)
    if not await sftp.isdir(folder):
        raise TransferError("the folder cannot be made: something else has its name", "use another path")


open_scheme = SftpScheme
