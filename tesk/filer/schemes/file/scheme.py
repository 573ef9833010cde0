"""`file:` URLs and bare paths: folders of the host or of a mounted volume, only below the configured roots.

A `file:` URL is percent-decoded, a bare path is taken as it is. Copies are made by the kernel (copy_file_range,
which shares blocks where the file system can) and are never links.
"""

import os
import posixpath
import stat
from collections.abc import Iterator
from urllib.parse import quote, unquote

from tesk.beneath import DIRECTORY, NotAFile, kind, open_beneath
from tesk.filer.attributes import of_status
from tesk.filer.copies import copy, copy_out
from tesk.filer.errors import NotFound, TransferError, from_file, printable
from tesk.filer.jail import Shared, look, walk
from tesk.filer.scheme import Context, Entry, FileInfo, Kind
from tesk.filer.streams import Sink, Source


def path_of(url: str) -> str:
    """The absolute path that a `file:` URL or a bare path names. Raises TransferError."""
    if url.startswith("/"):
        return url
    rest = url[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost") or not slash:
            raise TransferError("not a file on this system", "a file URL is file:///absolute/path")
        rest = "/" + path
    path = unquote(rest, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise TransferError("not an absolute path", "a file URL is file:///absolute/path")
    return path


class FileScheme:
    """Files below the roots."""

    def __init__(self, context: Context) -> None:
        self._shared = Shared(context.settings.file_roots)
        self._warn = context.warn
        self._listings = context.listings

    def _path(self, url: str) -> str:
        if not self._shared.roots:
            raise TransferError("no folder is open to tasks", "have it added to file_roots")
        return path_of(url)

    def find(self, url: str, declared: Kind | None) -> FileInfo:
        path = self._path(url)
        try:
            _, status = look(self._shared, path)
        except OSError as error:
            raise from_file(error, printable(path)) from error
        if stat.S_ISDIR(status.st_mode):
            return FileInfo(Kind.DIRECTORY, None, of_status(status))
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(f"{printable(path)} is {kind(status.st_mode)}", "only files and directories are staged")
        return FileInfo(Kind.FILE, status.st_size, of_status(status))

    def entries(self, url: str) -> Iterator[Entry]:
        path = self._path(url)
        try:
            with self._listings.listing(printable(path)) as listing:
                for node in walk(self._shared, path, self._warn, listing):
                    if node.relative:
                        yield Entry(node.relative, node.is_directory, node.size, node.attributes)
        except OSError as error:
            raise from_file(error, printable(path)) from error

    def child(self, url: str, relative: str) -> str:
        tail = relative if url.startswith("/") else quote(os.fsencode(relative))
        return f"{url.rstrip('/')}/{tail}"

    def fetch(self, url: str, sink: Sink) -> None:
        path = self._path(url)
        try:
            fd = self._shared.open_file(self._shared.resolve(path))
        except NotAFile as error:
            raise NotFound(f"{printable(path)}: {error.strerror}, no regular file") from error
        except OSError as error:
            raise from_file(error, printable(path)) from error
        try:
            sink.attributes = of_status(os.fstat(fd))
            copy(fd, sink)
        except OSError as error:
            raise from_file(error, printable(path)) from error
        finally:
            os.close(fd)

    def push(self, source: Source, url: str) -> None:
        path = self._path(url)
        if path.endswith("/"):
            raise TransferError("names a directory, not a file", "leave out the last slash")
        try:
            self._replace(source, posixpath.normpath(path))
        except OSError as error:
            raise from_file(error, printable(path)) from error

    def _replace(self, source: Source, path: str) -> None:
        parent, name = self._shared.open_parent(path)
        temporary = f".tesk-{os.urandom(8).hex()}"
        try:
            mode = 0o777 if source.attributes.executable else 0o666
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=parent)
            try:
                copy_out(source, fd)
                source.attributes.set_time(fd)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                os.unlink(temporary, dir_fd=parent)
                raise
            finally:
                os.close(fd)
        finally:
            os.close(parent)

    def make_directory(self, url: str) -> None:
        path = self._path(url)
        try:
            real = os.path.realpath(path)
            root = self._shared.root_of(real, path)
            os.close(open_beneath(root, real[len(root) :], DIRECTORY, make_mode=0))
        except OSError as error:
            raise from_file(error, printable(path)) from error

    def close(self) -> None:
        """Nothing is kept open."""


open_scheme = FileScheme
