"""Files below a folder that a hostile program filled: nothing is followed, and nothing is opened before it is known."""

import ctypes
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from tesk.beneath import NotAFile, look_beneath, open_beneath, open_file
from tesk.filer.errors import NotFound
from tesk.filer.jail import Scratch
from tesk.filer.plan import FilerSettings
from tesk.filer.reach import Reach
from tesk.filer.scheme import Context
from tesk.filer.schemes.file.scheme import FileScheme
from tesk.filer.streams import Meter, Sink
from tesk.places.local.folder import Folder
from tesk.tails import oddity, tail, trim

IN_OPEN = 0x20
NULL = os.makedev(1, 3)


def traps(folder: Path) -> dict[str, str]:
    """Makes what a program may leave in place of a file; its name and what it is."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "file").write_text("x")
    made = {"pipe": "a fifo", "folder": "a folder", "link": "a symlink", "socket": "a socket"}
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "socket"))
    try:
        os.mknod(folder / "device", 0o020666, NULL)
    except PermissionError:  # as in a container: there the test has no device
        return made
    return made | {"device": "a device"}


def opened(folder: Path, call: Callable[[], None]) -> set[str]:
    """The names of what in the folder was opened by a call, as the kernel tells (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) > 0
    try:
        call()
        names, data = set(), b""
        while select.select([watch], [], [], 0)[0]:
            data = os.read(watch, 65536)
            while data:
                size = int.from_bytes(data[12:16], "little")
                names.add(data[16 : 16 + size].rstrip(b"\0").decode())
                data = data[16 + size :]
        return names - {""}
    finally:
        os.close(watch)


def test_what_is_no_file_is_refused_by_its_kind_and_never_opened(tmp_path: Path) -> None:
    made = traps(tmp_path)

    def look_at_all() -> None:
        for name, what in made.items():
            with pytest.raises(NotAFile, match=what):
                open_file(str(tmp_path), f"/{name}")
            assert tail(tmp_path, f"/{name}", 10) == ""
            trim(tmp_path, f"/{name}")
            assert oddity(tmp_path, f"/{name}") == f"it is {what}"
        assert tail(tmp_path, "/file", 10) == "x"
        assert oddity(tmp_path, "/file") is oddity(tmp_path, "/none") is None

    assert opened(tmp_path, look_at_all) == {"file"}


def test_the_filer_opens_neither_outputs_nor_shared_files_that_are_no_files(tmp_path: Path) -> None:
    """A program may put something else there after the filer has looked at it."""
    made = traps(tmp_path)
    settings = FilerSettings(file_roots=(str(tmp_path),))
    scheme = FileScheme(Context(settings, Meter(Event()), lambda _: None, Reach((), ())))

    def open_all() -> None:
        for name in made.keys() - {"link"}:
            with pytest.raises(NotAFile):
                Scratch(str(tmp_path)).open_file(f"/{name}")
            with pytest.raises(NotFound, match="no regular file"):
                scheme.fetch(f"{tmp_path}/{name}", Sink(-1, Meter(Event())))

    assert opened(tmp_path, open_all) == set()


def test_a_file_that_is_opened_can_be_written_and_has_no_link_on_its_way(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    (tmp_path / "up").symlink_to("d")
    with open(open_file(str(tmp_path), "/d/f", os.O_RDWR), "r+b") as file:
        file.write(b"y")
    assert (tmp_path / "d/f").read_text() == "y"
    for path in ("/up/f", "/d/../d/f", "/none"):
        with pytest.raises(OSError, match=r"Not a directory|\.\.|No such file"):
            open_file(str(tmp_path), path)
    (tmp_path / "root").symlink_to(tmp_path / "d")
    with pytest.raises(NotADirectoryError):
        open_beneath(str(tmp_path / "root"), "f", os.O_PATH)


def test_what_is_to_be_mounted_is_a_folder_or_a_file_to_which_no_link_leads(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "task")
    folder.make()
    folder.control(0)
    (folder.scratch / "data/in").mkdir(parents=True)
    (folder.scratch / "file").touch()
    folder.verify(0, ["/data", "/data/in", "/file"])
    (folder.scratch / "link").symlink_to("/etc")
    os.mkfifo(folder.scratch / "pipe")
    for path in ("/link", "/link/passwd", "/pipe", "/none"):
        with pytest.raises(OSError, match=path):
            folder.verify(0, ["/data", path])
    with pytest.raises(FileNotFoundError):
        folder.verify(1, [])


def test_a_folder_of_programs_that_was_swapped_for_a_link_is_not_given_away(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "task")
    folder.make()
    assert folder.program_folders() == [folder.scratch, folder.path / "control"]
    folder.scratch.rmdir()
    assert folder.program_folders() == [folder.path / "control"]
    folder.scratch.symlink_to("/etc")
    with pytest.raises(NotAFile, match="symlink"):
        folder.program_folders()
    with pytest.raises(NotADirectoryError):
        Scratch(str(folder.scratch)).names("/")
    look_beneath(str(tmp_path), "task")
