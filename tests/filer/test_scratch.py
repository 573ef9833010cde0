"""The scratch folder: made ready, read without being led astray, scrubbed whatever is in it."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tesk.beneath import LOOK, open_beneath
from tesk.filer.bounds import Listing, Listings
from tesk.filer.jail import Scratch, Shared, walk
from tesk.filer.scratch import prepare, scrub, staging


def listing() -> Listing:
    return Listing(Listings(), "the folder", 1_000_000)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_directories_and_files_are_open_to_any_user_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        prepare(str(tmp_path), ["/data/out", "/data/out/deep/er"], ["/etc/hosts", "/data/out/log"])
    finally:
        os.umask(before)
    for name in ("data", "data/out", "data/out/deep", "data/out/deep/er", "etc"):
        assert mode(tmp_path / name) == 0o777, name
    for name in ("etc/hosts", "data/out/log"):
        assert mode(tmp_path / name) == 0o666, name


def test_making_ready_twice_keeps_what_is_there(tmp_path: Path) -> None:
    prepare(str(tmp_path), ["/d"], ["/d/f"])
    (tmp_path / "d/f").write_text("kept")
    (tmp_path / "d").chmod(0o700)
    prepare(str(tmp_path), ["/d"], ["/d/f"])
    assert (tmp_path / "d/f").read_text() == "kept"
    assert mode(tmp_path / "d") == 0o777


def test_making_ready_does_not_leave_the_root_through_a_link(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "a").symlink_to(outside)
    (root / "b").symlink_to("../../outside")
    prepare(str(root), ["/a/x", "/b/x"], ["/a/y"])
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("links", "path", "found"),
    [
        ({}, "/d/f", "/d/f"),
        ({"l": "d"}, "/l/f", "/d/f"),
        ({"l": "/d"}, "/l/f", "/d/f"),
        ({"d/l": "../d/f"}, "/d/l", "/d/f"),
        ({"d/l": "../../../../d/f"}, "/d/l", "/d/f"),  # .. of the root is the root
        ({"l": "/d/m", "d/m": "./f"}, "/l", "/d/f"),
        ({"l": "/"}, "/l/l/d/f", "/d/f"),
    ],
)
def test_links_are_read_as_a_container_reads_them(tmp_path: Path, links: dict[str, str], path: str, found: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert Scratch(str(tmp_path)).resolve(path) == found


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        Scratch(str(tmp_path)).resolve("/a")


def test_a_component_swapped_for_a_link_after_resolving_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/d/passwd").write_text("ours")
    scratch = Scratch(str(tmp_path / "root"))
    canonical = scratch.resolve("/d/passwd")
    (tmp_path / "root/d").rename(tmp_path / "root/e")
    (tmp_path / "root/d").symlink_to("/etc")
    with pytest.raises(NotADirectoryError):
        scratch.open_file(canonical)
    with pytest.raises(OSError, match=r"\.\."):
        open_beneath(str(tmp_path / "root"), "../x", LOOK)


def test_copied_paths_lie_apart_and_are_read_as_one_tree_with_the_others(tmp_path: Path) -> None:
    """As the containers of the task saw it: what is mounted at its place, all else in the folder of copies."""
    for path in ("opt/vol/in", ".tesk/files/opt/vol", ".tesk/files/etc"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "opt/vol/in/v").write_text("mounted")
    (tmp_path / ".tesk/files/opt/vol/v").write_text("a copy of what is mounted")
    (tmp_path / ".tesk/files/etc/c").write_text("copied")
    (tmp_path / "opt/vol/up").symlink_to("../../etc/c")
    (tmp_path / ".tesk/files/down").symlink_to("/opt/vol/in/v")
    (tmp_path / "s.sh").write_text("alone")
    scratch = Scratch(str(tmp_path), ["/s.sh", "/opt/vol", "/var/lib/x"])
    assert scratch.names("/") == ["down", "etc", "opt", "s.sh", "var"]
    assert scratch.names("/opt") == ["vol"]
    for path, canonical, text in (
        ("/down", "/opt/vol/in/v", "mounted"),
        ("/opt/vol/up", "/etc/c", "copied"),
        ("/s.sh", "/s.sh", "alone"),
    ):
        assert scratch.resolve(path) == canonical
        with open(scratch.open_file(canonical)) as file:
            assert file.read() == text
    found = {node.relative for node in walk(scratch, "/opt", pytest.fail, listing()) if not node.is_directory}
    assert found == {"vol/in/v", "vol/up"}
    for made, where in (
        ("/opt/vol/new/f", "opt/vol/new"),
        ("/usr/x/f", ".tesk/files/usr/x"),
        ("/var/lib/x", "var/lib"),
    ):
        os.close(scratch.open_parent(made)[0])
        assert (tmp_path / where).is_dir(), made


def test_a_walk_follows_links_inside_and_warns_of_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "out/sub").mkdir(parents=True)
    (root / "out/empty").mkdir()
    (root / "else").mkdir()
    (root / "else/x").write_text("x")
    (root / "out/f").write_text("four")
    (root / "out/inside").symlink_to("/else")
    (root / "out/self").symlink_to(".")
    (root / "out/sub/up").symlink_to("/")
    (root / "out/shadow").symlink_to("/etc/shadow")
    (root / "out/dots").symlink_to("../../../../../../../../etc/shadow")
    os.mkfifo(root / "out/fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.getcwd()
        os.chdir(root / "out")
        try:
            unix.bind("socket")
        finally:
            os.chdir(here)
    warnings: list[str] = []
    nodes = list(walk(Scratch(str(root)), "/out", warnings.append, listing()))
    assert {node.relative for node in nodes if node.is_directory} == {
        "",
        "sub",
        "empty",
        "inside",
        "sub/up",
        "sub/up/else",
    }
    assert {node.relative: node.size for node in nodes if not node.is_directory} == {
        "f": 4,
        "inside/x": 1,
        "sub/up/else/x": 1,
    }
    for name, reason in {
        "/out/self": "loop",
        "/out/shadow": "no such file",
        "/out/dots": "no such file",
        "/out/fifo": "a fifo",
        "/out/socket": "a socket",
        "/out/sub/up/out": "loop",
    }.items():
        assert any(w.startswith(f"{name} was left out") and reason in w for w in warnings), (name, warnings)


def test_shared_folders_are_not_left_through_links(tmp_path: Path) -> None:
    for name in ("share/d", "other", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret/key").write_text("key")
    (tmp_path / "other/f").write_text("f")
    (tmp_path / "share/d/up").symlink_to("../../secret")
    (tmp_path / "share/d/ok").symlink_to(tmp_path / "other")
    warnings: list[str] = []
    shared = Shared([str(tmp_path / "share"), str(tmp_path / "other")])
    files = [
        node.relative
        for node in walk(shared, str(tmp_path / "share"), warnings.append, listing())
        if not node.is_directory
    ]
    assert files == ["d/ok/f"]
    assert len(warnings) == 1
    assert "outside the folders" in warnings[0]


def test_staging_is_hidden_and_gone_afterwards_even_when_a_killed_filer_left_some(tmp_path: Path) -> None:
    (tmp_path / ".tesk-staging-0123456789abcdef").mkdir()
    (tmp_path / ".tesk-staging-0123456789abcdef/f").touch()
    with contextlib.suppress(KeyError), staging(str(tmp_path)) as folder:
        assert [entry.name for entry in tmp_path.iterdir()] == [os.path.basename(folder)]
        (Path(folder) / "half").touch()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_scrubbing_removes_what_a_container_can_leave(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    (root / "locked/inner").mkdir(parents=True)
    (root / "locked/inner/f").touch()
    (root / "link").symlink_to(outside)
    (root / "locked/link").symlink_to(outside / "precious")
    os.mkfifo(root / "fifo")
    os.mkdir(os.path.join(os.fsencode(root), b"\xff\xfe"))
    with open(os.path.join(os.fsencode(root), b"\xff\xfe", b"\n\x80"), "wb"):
        pass
    (root / "locked/inner").chmod(0)
    (root / "locked").chmod(0)
    scrub(str(root))
    assert not root.exists()
    assert (outside / "precious").read_text() == "kept"
    assert mode(outside) != 0o700


DEEP = """
import os, sys
os.chdir(sys.argv[1])
for n in range(int(sys.argv[2])):
    os.mkdir("d" * 100); os.chdir("d" * 100)
open("f", "w").close()
"""


def test_scrubbing_removes_trees_deeper_than_a_path_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    subprocess.run([sys.executable, "-c", DEEP, str(tmp_path / "root"), "2000"], check=True)
    scrub(str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def as_nobody(base: Path, call: Callable[[], None]) -> None:
    """Calls as a user without rights, who owns all below `base`; directly where the tests have none themselves."""
    if os.geteuid() != 0:
        return call()
    for here, directories, files in os.walk(base):
        for path in (here, *(os.path.join(here, name) for name in directories + files)):
            os.chown(path, 65534, 65534)
    for above in list(base.parents)[:4]:
        above.chmod(0o755)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            call()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    return None


def test_scrubbing_works_without_root_on_directories_without_rights(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "root/a/b").mkdir(parents=True)
    (base / "root/a/b/f").touch()
    (base / "root/a/b").chmod(0)
    (base / "root/a").chmod(0o500)
    as_nobody(base, lambda: scrub(str(base / "root")))
    assert not (base / "root").exists()


def test_scrubbing_nothing_is_well_and_a_file_goes(tmp_path: Path) -> None:
    scrub(str(tmp_path / "none"))
    (tmp_path / "f").touch()
    scrub(str(tmp_path / "f"))
    assert not (tmp_path / "f").exists()


SCRUB = "import sys; from tesk.filer.scratch import scrub; scrub(sys.argv[1])"


def test_scrubbing_does_not_cross_a_mount(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d/mounted").mkdir(parents=True)
    outside.mkdir()
    (outside / "precious").write_text("kept")
    script = f'mount --bind "{outside}" "{root}/d/mounted" && exec "{sys.executable}" -c "$0" "{root}"'
    done = subprocess.run(
        ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", script, SCRUB], capture_output=True, text=True
    )
    assert "busy" in done.stderr.lower() or "cross-device" in done.stderr.lower(), done.stderr
    assert (outside / "precious").read_text() == "kept"
