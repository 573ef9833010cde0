"""Which files leave a scratch folder, to where; and that a hostile one gives nothing of the host away."""

import os
from pathlib import Path

import pytest

from tesk.filer.plan import Pushed
from tesk.tes import Input, Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import DIRECTORY, Places, fetch, push, tree, write


@pytest.mark.parametrize(
    ("pattern", "prefix", "arrived"),
    [
        ("/out/*.txt", "/out", {"a.txt", "b.txt"}),
        ("/out/*.txt", "/out/", {"a.txt", "b.txt"}),
        ("/out/*.txt", "/", {"out", "out/a.txt", "out/b.txt"}),
        ("/out/*/*.txt", "/out", {"sub", "sub/c.txt"}),
        ("/out/*/*.txt", "/out/sub", {"c.txt"}),
        ("/out/s*", "/out", {"sub", "sub/c.txt", "sub/d.bin"}),
        ("/out/[ab].*", "/out", {"a.txt", "b.txt"}),
    ],
)
def test_urls_of_matches_are_the_paths_without_the_prefix(
    places: Places, pattern: str, prefix: str, arrived: set[str]
) -> None:
    write(places.root, {"out/a.txt": b"a", "out/b.txt": b"b", "out/sub/c.txt": b"c", "out/sub/d.bin": b"d"})
    report = places.push(Output(pattern, places["path"].base, path_prefix=prefix))
    assert report.ok, report.failure
    assert set(tree(places["path"].folder)) == arrived


def test_without_wildcards_the_prefix_is_ignored(places: Places) -> None:
    write(places.root, {"out/a": b"a"})
    assert places.push(Output("/out/a", places["path"].url("b"), path_prefix="/out")).ok
    assert tree(places["path"].folder) == {"b": b"a"}


NEXTFLOW: dict[str, set[str]] = {
    "*.{html,zip}": {"a.html", "b.zip"},
    "**.txt": {"1.txt", "sub/2.txt", "sub/deep/3.txt"},
    "sub/**": {"sub/2.txt", "sub/deep/3.txt"},
    "x.{bai,csi}": {"x.bai", "x.csi"},
    "sub/{2,4}.txt": {"sub/2.txt"},
    "y[12]": {"y1", "y2"},
    "a[1].dat": {"a[1].dat"},
    "b[1].dat": {"b[1].dat", "b1.dat"},
    "a\\[1\\].dat": {"a[1].dat"},
    "\\{b\\}": {"{b}"},
    "{c,d}": {"{c,d}"},
    "back\\slash": {"back\\slash"},
    "*.[": {"z.["},
}
"""What a process declares, and what Nextflow looks for in its work directory then."""


@pytest.mark.parametrize(("declared", "arrived"), NEXTFLOW.items())
@pytest.mark.parametrize("scheme", ["path", "file"])
def test_what_nextflow_sends_arrives_where_it_looks_for_it(
    places: Places, scheme: str, declared: str, arrived: set[str]
) -> None:
    """nf-ga4gh sends what holds a `*` or a `?` with a prefix, and anything else as if it were a name."""
    files = set().union(*NEXTFLOW.values()) | {"no", "c", "sub/.hidden.txt", "html"}
    write(places.root, {f"work/{name}": name.encode() for name in files})
    place = places[scheme]
    output = Output(f"/work/{declared}", place.url(declared))
    if "*" in declared or "?" in declared:
        output = Output(f"/work/{declared}", place.base, path_prefix="/work")
    report = places.push(output)
    assert report.ok, report.failure
    found = {path: data for path, data in tree(place.folder).items() if data is not None}
    assert found == {name: name.encode() for name in arrived}


def test_what_may_be_a_pattern_and_matches_nothing_is_missing(places: Places) -> None:
    write(places.root, {"work/a": b""})
    report = places.push(
        *(Output(f"/work/{name}", places["path"].url(name)) for name in ("x.{b,c}", "x\\[1\\]", "x[1]"))
    )
    assert [warning.partition(": ")[2] for warning in report.warnings] == [
        "does not exist",
        "does not exist",
        "nothing matches the pattern",
    ]


def test_a_file_sent_to_a_url_that_ends_in_a_slash_keeps_its_name(places: Places) -> None:
    write(places.root, {"out/a b": b"a"})
    for scheme in ("path", "file", "s3", "ftp", "http"):
        assert places.push(Output("/out/a b", places[scheme].url("d") + "/")).ok
        assert tree(places[scheme].folder) == {"d": None, "d/a b": b"a"}, scheme


def test_overlapping_outputs_all_arrive(places: Places) -> None:
    write(places.root, {"w/stdout": b"out", "w/d/f": b"f"})
    report = places.push(
        Output("/w", places["path"].url("all/"), type=DIRECTORY),
        Output("/w/stdout", places["path"].url("stdout")),
        Output("/w/d/*", places["path"].url("some"), path_prefix="/w/d"),
    )
    assert report.ok, report.failure
    assert {path: data for path, data in tree(places["path"].folder).items() if data is not None} == {
        "all/stdout": b"out",
        "all/d/f": b"f",
        "stdout": b"out",
        "some/f": b"f",
    }
    assert len([event for event in report.events if isinstance(event, Pushed)]) == 4


def test_a_missing_output_is_a_warning_and_the_rest_arrives(places: Places) -> None:
    write(places.root, {"out/a": b"a"})
    outputs = [
        Output("/out/none", places["path"].url("none")),
        Output("/out/*.none", places["path"].url(""), path_prefix="/out"),
        Output("/out/a", places["path"].url("a")),
    ]
    report = places.push(*outputs)
    assert report.ok
    assert report.warnings == ["output /out/none: does not exist", "output /out/*.none: nothing matches the pattern"]
    assert tree(places["path"].folder) == {"a": b"a"}


def test_a_missing_output_can_be_an_error_after_the_rest_arrived(places: Places) -> None:
    write(places.root, {"out/a": b"a"})
    report = places.push(
        Output("/out/none", places["path"].url("none")),
        Output("/out/a", places["path"].url("a")),
        missing_outputs="error",
    )
    assert report.failure == "output /out/none: does not exist"
    assert tree(places["path"].folder) == {"a": b"a"}


def test_a_failing_output_does_not_keep_the_others(places: Places) -> None:
    write(places.root, {"out/a": b"a", "out/b": b"b", "out/c": b"c"})
    report = places.push(
        Output("/out/a", "/not/allowed/a"),
        Output("/out/b", places["path"].url("b")),
        Output("/out/c", "http://127.0.0.1:1/c"),
        retries=0,
    )
    assert "output /not/allowed/a: /not/allowed/a is outside" in report.failure
    assert "output http://127.0.0.1:1/c: http://127.0.0.1:1 cannot be reached" in report.failure
    assert tree(places["path"].folder) == {"b": b"b"}
    assert list(report.pushed) == ["/out/b"]


def test_many_failures_are_told_within_bounds(tmp_path: Path) -> None:
    write(tmp_path, {f"out/{n:03}": b"" for n in range(100)})
    failure = push(tmp_path, Output("/out", "/closed", type=DIRECTORY)).failure
    assert failure.count("output /closed") == 20
    assert "and 80 more" in failure


def test_links_are_followed_inside_the_scratch_only(places: Places) -> None:
    root = places.root
    write(root, {"work/real": b"real", "other/x": b"x"})
    (root / "work/result").symlink_to("/work/real")
    (root / "work/dir").symlink_to("../other")
    (root / "work/shadow").symlink_to("/etc/shadow")
    (root / "work/host").symlink_to("../" * 20 + "etc/hostname")
    report = places.push(
        Output("/work/result", places["path"].url("result")),
        Output("/work/dir/x", places["path"].url("x")),
        Output("/work/shadow", places["path"].url("shadow")),
        Output("/work/host", places["path"].url("host")),
        Output("/work", places["path"].url("all"), type=DIRECTORY),
    )
    assert report.ok, report.failure
    arrived = {path: data for path, data in tree(places["path"].folder).items() if data is not None}
    assert arrived == {
        "result": b"real",
        "x": b"x",
        "all/real": b"real",
        "all/result": b"real",
        "all/dir/x": b"x",
    }
    assert (
        "output /work/shadow: does not exist; it is a link to /etc/shadow, which is not among the task's files"
        in report.warnings
    )
    assert len(report.warnings) == 4


def test_traps_are_left_out_with_a_warning(places: Places) -> None:
    root = places.root
    write(root, {"work/good": b"good"})
    os.mkfifo(root / "work/fifo")
    (root / "work/a").symlink_to("b")
    (root / "work/b").symlink_to("a")
    report = places.push(
        Output("/work/fifo", places["path"].url("fifo")),
        Output("/work/*", places["path"].url("all"), path_prefix="/work"),
    )
    assert tree(places["path"].folder) == {"all": None, "all/good": b"good"}
    assert "output /work/fifo was left out: it is a fifo" in report.warnings
    assert "output /work/a: its links loop" in report.warnings


def test_an_upload_never_writes_through_a_link(places: Places, tmp_path: Path) -> None:
    write(places.root, {"out": b"new"})
    victim = tmp_path / "victim"
    victim.write_text("kept")
    share = places["path"].folder
    (share / "f").symlink_to(victim)
    (share / "d").symlink_to(tmp_path)
    assert places.push(Output("/out", f"{share}/f")).ok
    assert victim.read_text() == "kept"
    assert (share / "f").read_text() == "new"
    assert not (share / "f").is_symlink()
    assert "outside the folders" in places.push(Output("/out", f"{share}/d/victim")).failure
    assert "outside the folders" in places.push(Output("/out", f"{share}/d/new/deep")).failure
    assert "outside the folders" in places.push(Output("/out", f"{share}/../../../victim")).failure
    assert victim.read_text() == "kept"
    assert not (tmp_path / "new").exists()


def test_a_directory_onto_a_file_is_a_clear_error(places: Places) -> None:
    write(places.root, {"out/f": b"f"})
    write(places["path"].folder, {"d": b"a file"})
    failure = places.push(Output("/out", places["path"].url("d"), type=DIRECTORY)).failure
    assert "not a directory" in failure
    assert tree(places["path"].folder) == {"d": b"a file"}


def test_no_outputs_is_done(tmp_path: Path) -> None:
    assert push(tmp_path).ok


def test_a_slash_at_the_end_of_a_query_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"f": b"", "d/g": b""})
    with faulty(lambda c, _n, _h: c.sendall(answer("200 OK"))) as server:
        report = push(tmp_path, Output("/f", f"{server.url}/x?key=a/"), Output("/d", f"{server.url}/d/?key=a/"))
        assert report.ok, report.failure
        asked = sorted(head.split(b" ")[1] for head in server.requests)
        assert asked == [b"/d/g?key=a/", b"/x?key=a/"]
        assert fetch(tmp_path, Input("/h", url=f"{server.url}/x?key=a/")).ok
