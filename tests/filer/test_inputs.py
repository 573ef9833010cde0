"""What an input becomes in the scratch folder, and what is refused."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from tesk.filer.errors import TransferError
from tesk.filer.inputs import Arrival, large, merge
from tesk.filer.plan import Event, FilerSettings, InputsPlan, Large, Progress
from tesk.tes import Input
from tests.filer.faulty import answer, faulty
from tests.filer.stores import DIRECTORY, Places, carry_out, fetch, tree, write


def test_content_is_written_as_it_is_and_wins_over_a_url(tmp_path: Path) -> None:
    report = fetch(
        tmp_path,
        Input("/a/utf8", content="é\r\n\0end"),
        Input("/a/both", content="content", url="http://127.0.0.1:1/x"),
        Input("/a/empty", content=""),
    )
    assert report.ok, report.failure
    assert tree(tmp_path) == {"a": None, "a/utf8": "é\r\n\0end".encode(), "a/both": b"content", "a/empty": b""}


def test_an_empty_content_gives_way_to_the_url(places: Places) -> None:
    write(places["path"].folder, {"f": b"from the url"})
    assert places.fetch(Input("/f", content="", url=places["path"].url("f"))).ok
    assert tree(places.root) == {"f": b"from the url"}


def test_inputs_are_private_copies_that_any_user_can_run_and_change(places: Places) -> None:
    write(places["path"].folder, {"d/run": b"#!/bin/sh\n"})
    (places["path"].folder / "d/run").chmod(0o500)
    assert places.fetch(Input("/in/d", url=places["path"].url("d")), Input("/in/c", content="x")).ok
    modes = {"in": 0o777, "in/d": 0o777, "in/d/run": 0o1777, "in/c": 0o777}
    assert {path: stat.S_IMODE((places.root / path).stat().st_mode) for path in modes} == modes
    with (places.root / "in/d/run").open("ab") as file:
        file.write(b"changed")
    assert (places["path"].folder / "d/run").read_bytes() == b"#!/bin/sh\n"
    assert (places.root / "in/d/run").stat().st_nlink == 1


def test_several_inputs_merge_into_one_directory_and_later_ones_win(places: Places) -> None:
    folder = places["path"].folder
    write(folder, {"one/a": b"1", "one/b": b"1", "two/b": b"2", "two/c": b"2", "three": b"3"})
    report = places.fetch(
        Input("/in", url=places["path"].url("one"), type=DIRECTORY),
        Input("/in", url=places["path"].url("two"), type=DIRECTORY),
        Input("/in/c", url=places["path"].url("three")),
    )
    assert report.ok, report.failure
    assert tree(places.root) == {"in": None, "in/a": b"1", "in/b": b"2", "in/c": b"3"}


def test_a_path_that_would_be_file_and_directory_is_refused(places: Places) -> None:
    write(places["path"].folder, {"d/x": b""})
    report = places.fetch(Input("/in", content="a file"), Input("/in/d", url=places["path"].url("d")))
    assert "collide: /in would be both a file and a directory" in report.failure


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([[Arrival("/a", False, "u1")], [Arrival("/a", True, "u2")]], "inputs u1 and u2 collide: /a "),
        ([[Arrival("/a/b/c", False, "u1")], [Arrival("/a", False, "u2")]], "inputs u2 and u1 collide: /a "),
    ],
)
def test_merging_names_both_sides_of_a_collision(found: list[list[Arrival]], message: str) -> None:
    with pytest.raises(TransferError) as caught:
        merge(found)
    assert message in caught.value.answer


def test_folders_outside_the_roots_are_closed(places: Places, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    share = places["path"].folder
    (share / "link").symlink_to(secret)
    (share / "dir").symlink_to(tmp_path)
    write(share, {"d/f": b"f"})
    (share / "d/link").symlink_to(secret)
    for url in (
        str(secret),
        f"file://{secret}",
        f"{share}/link",
        f"{share}/dir/secret",
        f"{share}/../../../etc/passwd",
    ):
        report = places.fetch(Input("/in/f", url=url))
        assert "outside the folders that tasks may use" in report.failure, url
    report = places.fetch(Input("/in/d", url=f"{share}/d"))
    assert report.ok
    assert "outside the folders" in report.warnings[0]
    assert tree(places.root / "in") == {"d": None, "d/f": b"f"}
    failure = fetch(places.root, Input("/in/f", url=f"{share}/d/f")).failure
    assert "no folder is open to tasks after 1 try; have it added to file_roots" in failure


def test_a_root_is_no_prefix_of_names_but_a_folder(places: Places) -> None:
    beside = Path(places.file_roots[0] + "-not")
    write(beside, {"f": b""})
    assert "outside the folders" in places.fetch(Input("/f", url=str(beside / "f"))).failure


def test_fifos_and_loops_of_a_shared_folder_are_left_out(places: Places) -> None:
    folder = places["path"].folder / "d"
    write(folder, {"f": b"f"})
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to(folder)
    report = places.fetch(Input("/in", url=str(folder), type=DIRECTORY))
    assert report.ok, report.failure
    assert len(report.warnings) == 2
    assert tree(places.root / "in") == {"f": b"f"}
    assert "is a fifo" in places.fetch(Input("/in2", url=str(folder / "fifo"))).failure


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file://elsewhere/a", "not a file on this system"),
        ("file:a", "not an absolute path"),
        ("gopher://h/a", "unsupported URL scheme 'gopher'"),
        ("relative/path", "unsupported URL scheme ''"),
        ("s3:///key", "names no bucket"),
        ("ftp://user:pa/ss@host/x", "input ftp://host/x: not a URL: its host or port cannot be read"),
        ("sftp://user:pa/ss@host/x", "input sftp://host/x: not a URL: its host or port cannot be read"),
        ("http://user:pa/ss@host/x", "input http://host/x: not a URL: its host or port cannot be read"),
        ("s3://bucket/a/../b", "empty component, '.', '..'"),
        ("s3://bucket/a//b", "empty component"),
        ("http://[bad/x", "not a URL"),
        ("http:///x", "not an http or https URL with a host"),
        ("http://h:99999/x", "not a URL"),
        ("ftp://h:x/y", "not a URL"),
        ("ftp://h/a%0d%0aDELE%20b", "line break"),
    ],
)
def test_what_is_no_usable_url_is_refused(tmp_path: Path, url: str, reason: str) -> None:
    assert reason in fetch(tmp_path, Input("/f", url=url), file_roots=("/srv",)).failure


def test_what_several_inputs_name_is_fetched_once_and_copied(tmp_path: Path) -> None:
    with faulty(lambda connection, _n, _h: connection.sendall(answer("200 OK", b"bytes"))) as server:
        report = fetch(tmp_path, *(Input(f"/in/{name}", url=f"{server.url}/f") for name in "abc"))
        assert report.ok, report.failure
        assert len(server.requests) == 1
    assert tree(tmp_path / "in") == {"a": b"bytes", "b": b"bytes", "c": b"bytes"}
    (tmp_path / "in/a").write_bytes(b"changed")
    assert (tmp_path / "in/b").read_bytes() == b"bytes"
    assert (tmp_path / "in/b").stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize("nameless", [True, False])
def test_files_land_whole_in_place_of_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    """With and without files that have no name, which not every file system gives."""
    if not nameless:
        monkeypatch.setattr("os.O_TMPFILE", os.O_DIRECTORY)
    write(tmp_path, {"in/a": b"older", "in/deep/b": b"older"})
    other = os.open(tmp_path / "in/a", os.O_RDONLY)
    report = fetch(tmp_path, Input("/in/a", content="new"), Input("/in/deep/b", content=""), Input("/c", content="c"))
    assert report.ok, report.failure
    assert tree(tmp_path) == {"in": None, "in/a": b"new", "in/deep": None, "in/deep/b": b"", "c": b"c"}
    assert os.read(other, 10) == b"older"
    assert (tmp_path / "in/a").stat().st_mode & 0o777 == 0o777
    os.close(other)


def test_an_input_onto_a_directory_of_the_task_names_the_reason(tmp_path: Path) -> None:
    plan = InputsPlan(str(tmp_path), [Input("/data", content="x")], directories=["/data"])
    assert carry_out(plan).failure == "input /data: writing /data: is a directory after 1 try"


def test_nothing_is_left_behind_and_no_secret_told_when_an_input_fails(places: Places) -> None:
    write(places["path"].folder, {"big": b"x" * 3_000_000})
    report = places.fetch(
        Input("/in/a", url=places["path"].url("big")),
        Input("/in/b", url=f"{places['ftp'].base.replace('%2F', 'x')}/f"),
        Input("/in/c", content="content that is secret"),
        retries=0,
    )
    assert "access denied (530" in report.failure
    assert not [path for path in tree(places.root) if ".tesk" in path]
    told = repr(report.events)
    assert "p%40ss" not in told
    assert "p@ss" not in told
    assert "is secret" not in told


def test_a_step_that_was_told_to_stop_ends_and_cleans_up(places: Places) -> None:
    stop = threading.Event()
    stop.set()
    plan = InputsPlan(str(places.root), [Input("/in/a", content="x")])
    assert carry_out(plan, stop).failure == "the transfer was stopped"
    assert tree(places.root) == {}


def test_inputs_that_are_too_large_to_be_copied_lie_where_they_are_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that a container's folder holds; the others have so many bytes together."""
    monkeypatch.setattr("tesk.filer.inputs.MOST_COPIED", 7)
    inputs = [Input(path, content=text) for path, text in (("/app/a", "123"), ("/app/b", "12345"), ("/app/c", "1234"))]
    plan = InputsPlan(str(tmp_path), [*inputs, Input("/mnt/d", content="123456789")], uncopied=["/mnt"])
    report = carry_out(plan)
    assert report.ok, report.failure
    assert [event.path for event in report.events if isinstance(event, Large)] == ["/app/b"]
    found = tree(tmp_path)
    assert {path for path in found if path.startswith(".tesk/files/app/")} == {".tesk/files/app/a", ".tesk/files/app/c"}
    assert (found["app/b"], found["mnt/d"]) == (b"12345", b"123456789")


def test_what_is_of_unknown_size_is_large(tmp_path: Path) -> None:
    plan = InputsPlan(str(tmp_path), uncopied=["/mnt"])
    found = [Arrival("/app/a", False, "http://host/a", None, None), Arrival("/app/b", False, "", "x", 1)]
    assert large(plan, [[each] for each in found]) == ["/app/a"]
    assert large(InputsPlan(str(tmp_path)), [[each] for each in found]) == []
    many = [[Arrival(f"/app/{n}", False, "http://x", size=None if n % 2 else n)] for n in range(1000)]
    assert len(large(plan, many)) == 100, "each has a mount of its own"
    assert large(InputsPlan(str(tmp_path), uncopied=["/mnt"], copies_all=True), many) == []


def test_progress_is_told_with_totals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.step.PROGRESS_INTERVAL_S", 0.0)
    report = fetch(tmp_path, *(Input(f"/f{n}", content="1234") for n in range(5)), concurrency=1)
    told = [event for event in report.events if isinstance(event, Progress)]
    assert told[-1] == Progress(20, 5, 20, 5)
    assert [event.files_done for event in told] == sorted(event.files_done for event in told)


def test_events_come_one_at_a_time(tmp_path: Path) -> None:
    inside = threading.Lock()

    def emit(_: Event) -> None:
        assert inside.acquire(blocking=False), "two threads at once"
        time.sleep(0.001)
        inside.release()

    from tesk.filer.main import run

    write(tmp_path, {f"share/d/f{n}": b"" for n in range(40)})
    for n in range(40):
        (tmp_path / f"share/d/l{n}").symlink_to("/nowhere")
    (tmp_path / "root").mkdir()
    roots = FilerSettings(file_roots=(str(tmp_path / "share"),))
    given = [Input(f"/{n}", url=str(tmp_path / "share/d")) for n in range(4)]
    assert run(InputsPlan(str(tmp_path / "root"), given, settings=roots), emit, threading.Event())
