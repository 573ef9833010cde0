"""Every declared store, both ways, against real servers: byte for byte, by any name, files and directories.

A scheme that is declared without a place in the fixture `places` fails here.
"""

import os
import random
import re
import resource

import pytest

from tesk.filer.errors import redact
from tesk.schemes import DECLARATIONS
from tesk.tes import FileType, Input, Output
from tests.filer.cutting import relay
from tests.filer.stores import DIRECTORY, FILE, Places, tree, write

READ = [declared.package for declared in DECLARATIONS if declared.reads]
BOTH_WAYS = ["path", *(declared.package for declared in DECLARATIONS if declared.reads and declared.writes)]
READ_ONLY = [scheme for scheme in READ if scheme not in BOTH_WAYS]
AS_DECLARED = {"http"}
"""Those that list only what is declared as a directory, with a file of tests of their own: test_http_directories.py."""
LISTED = ["path", *(d.package for d in DECLARATIONS if d.directories and d.package not in AS_DECLARED)]
KEPT = [scheme for scheme in BOTH_WAYS if scheme not in AS_DECLARED]
BINARY = bytes(range(256)) * 4099
NAMES = [
    "plain",
    "two words",
    "100%",
    "%41",
    "é",
    "a+b&c=d",
    "q'\"q",
    "#hash",
    "what?",
    "semi;colon",
    "日本",
    "~t",
    "[x]",
]


def scratch_file(places: Places, path: str, content: bytes) -> None:
    write(places.root, {path.lstrip("/"): content})


@pytest.mark.parametrize("scheme", BOTH_WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_goes_out_and_comes_in(places: Places, scheme: str, name: str) -> None:
    place = places[scheme]
    scratch_file(places, "/out/f", b"\0\r\n\xff" + name.encode())
    report = places.push(Output("/out/f", place.url(name)))
    assert report.ok, report.failure
    assert (place.folder / name).read_bytes() == b"\0\r\n\xff" + name.encode()
    assert report.pushed["/out/f"].size_bytes == 4 + len(name.encode())
    assert places.fetch(Input("/in/f", url=place.url(name))).ok
    assert (places.root / "in/f").read_bytes() == b"\0\r\n\xff" + name.encode()


@pytest.mark.parametrize("scheme", READ_ONLY)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_comes_in_from_where_none_goes_out(places: Places, scheme: str, name: str) -> None:
    write(places[scheme].folder, {name: BINARY})
    assert places.fetch(Input("/in/f", url=places[scheme].url(name))).ok
    assert (places.root / "in/f").read_bytes() == BINARY
    assert "for reading only" in places.push(Output("/in/f", places[scheme].url("other"))).failure


@pytest.mark.parametrize("scheme", BOTH_WAYS)
@pytest.mark.parametrize("content", [b"", BINARY, b"x" * (17 * 1024 * 1024 + 1)], ids=["empty", "binary", "parts"])
def test_sizes_and_bytes_are_exact(places: Places, scheme: str, content: bytes) -> None:
    place = places[scheme]
    scratch_file(places, "/out/f", content)
    report = places.push(Output("/out/f", place.url("deep/er/f")))
    assert report.ok, report.failure
    assert report.pushed["/out/f"].size_bytes == len(content)
    assert (place.folder / "deep/er/f").read_bytes() == content
    assert places.fetch(Input("/in/f", url=place.url("deep/er/f"))).ok
    assert (places.root / "in/f").read_bytes() == content
    assert not [path for path in tree(place.folder) if ".tesk" in path]


@pytest.mark.parametrize("scheme", BOTH_WAYS)
def test_an_output_replaces_what_was_there(places: Places, scheme: str) -> None:
    write(places[scheme].folder, {"f": b"older and longer"})
    scratch_file(places, "/out/f", b"new")
    assert places.push(Output("/out/f", places[scheme].url("f"))).ok
    assert tree(places[scheme].folder) == {"f": b"new"}


TREE: dict[str, bytes | None] = {
    "a": b"1",
    "sub": None,
    "sub/b c": b"22",
    "sub/%41": b"",
    "sub/deep": None,
    "sub/deep/é": b"333",
    ".hidden": b"4",
}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("declared", [DIRECTORY, FILE, None])
@pytest.mark.parametrize("scheme", LISTED)
def test_a_directory_comes_in_whatever_it_was_declared_as(
    places: Places, scheme: str, declared: object, slash: str
) -> None:
    write(places[scheme].folder / "d", TREE)
    given = Input("/in/d", url=places[scheme].url("d") + slash, type=declared)  # type: ignore[arg-type]
    report = places.fetch(given)
    assert report.ok, report.failure
    assert tree(places.root / "in/d") == TREE


@pytest.mark.parametrize("scheme", LISTED)
def test_a_file_declared_as_a_directory_comes_in_as_a_file(places: Places, scheme: str) -> None:
    write(places[scheme].folder, {"f": b"file"})
    report = places.fetch(Input("/in/f", url=places[scheme].url("f"), type=DIRECTORY))
    assert report.ok, report.failure
    assert tree(places.root) == {"in": None, "in/f": b"file"}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("declared", [DIRECTORY, FILE, None])
@pytest.mark.parametrize("scheme", BOTH_WAYS)
def test_a_directory_goes_out_whatever_it_was_declared_as(
    places: Places, scheme: str, declared: object, slash: str
) -> None:
    write(places.root / "out/d", TREE)
    url = places[scheme].url("d") + slash
    report = places.push(Output("/out/d", url, type=declared))  # type: ignore[arg-type]
    assert report.ok, report.failure
    assert tree(places[scheme].folder / "d") == TREE
    files = {path: content for path, content in TREE.items() if content is not None}
    assert {path: event.size_bytes for path, event in report.pushed.items()} == {
        f"/out/d/{path}": len(content) for path, content in files.items()
    }
    shown = redact(places[scheme].url("d/sub/b c"))
    assert report.pushed["/out/d/sub/b c"].url == shown


@pytest.mark.parametrize("scheme", KEPT)
def test_empty_directories_are_kept_where_the_store_can_say_so(places: Places, scheme: str) -> None:
    write(places.root / "out/d", {"empty": None, "full": None, "full/f": b""})
    assert places.push(Output("/out/d", places[scheme].url("d"))).ok
    assert tree(places[scheme].folder / "d") == {"empty": None, "full": None, "full/f": b""}
    assert places.fetch(Input("/in/d", url=places[scheme].url("d"))).ok
    assert tree(places.root / "in/d") == {"empty": None, "full": None, "full/f": b""}


@pytest.mark.parametrize("scheme", LISTED)
def test_a_directory_of_more_files_than_one_page_lists(places: Places, scheme: str) -> None:
    files: dict[str, bytes | None] = {f"f{n:04}": b"%d" % n for n in range(1203)}
    write(places[scheme].folder / "d", files)
    report = places.fetch(Input("/in", url=places[scheme].url("d"), type=DIRECTORY))
    assert report.ok, report.failure
    assert tree(places.root / "in") == files


@pytest.mark.parametrize(("scheme", "endpoint"), [("gs", "STORAGE_EMULATOR_HOST"), ("az", "AZURE_STORAGE_ENDPOINT")])
def test_connections_that_are_cut_give_the_same_bytes(
    places: Places, monkeypatch: pytest.MonkeyPatch, scheme: str, endpoint: str
) -> None:
    content = BINARY * 20
    port = re.search(r":(\d+)", os.environ[endpoint])
    assert port is not None
    for way_out in (True, False):
        with relay(int(port[1]), after_bytes=len(content) // 3, times=2) as way:
            monkeypatch.setenv(endpoint, os.environ[endpoint].replace(port[1], str(way.port)))
            if way_out:
                scratch_file(places, "/out/f", content)
                report = places.push(Output("/out/f", places[scheme].url("f")))
            else:
                report = places.fetch(Input("/in/f", url=places[scheme].url("f")))
            monkeypatch.setenv(endpoint, os.environ[endpoint].replace(str(way.port), port[1]))
            assert report.ok, report.failure
            assert way.cuts == 2
    assert (places.root / "in/f").read_bytes() == content


@pytest.mark.parametrize("scheme", READ)
def test_what_is_not_there_is_told_at_once(places: Places, scheme: str) -> None:
    report = places.fetch(Input("/in/f", url=places[scheme].url("none")), retries=3)
    assert "none" in report.failure
    assert "1 try" in report.failure
    assert tree(places.root) == {}


@pytest.mark.parametrize("declared", [DIRECTORY, FILE, None])
def test_control_characters_pass_through_s3(places: Places, declared: FileType | None) -> None:
    files = {"line\nbreak": b"1", "tab\t/\r\x7f": b"22", "plain +%41": b"3", "emp\nty": None, "tab\t": None}
    write(places.root / "out/d", files)
    for name in ("d\n", "d"):
        report = places.push(Output("/out/d", places["s3"].url(name)))
        assert report.ok, report.failure
        assert tree(places["s3"].folder / name) == files
        report = places.fetch(Input(f"/in/{name}", url=places["s3"].url(name), type=declared))
        assert report.ok, report.failure
        assert tree(places.root / "in" / name) == files


@pytest.mark.parametrize("scheme", ["file", "path", "sftp"])
def test_names_of_any_bytes_pass_between_folders(places: Places, scheme: str) -> None:
    name = os.fsdecode(b"\xff\n\x01")
    write(places.root / "out/d", {name: b"x"})
    report = places.push(Output("/out/d", places[scheme].url("d")))
    assert report.ok, report.failure
    assert tree(places[scheme].folder / "d") == {name: b"x"}
    assert places.fetch(Input("/in/d", url=places[scheme].url("d"))).ok
    assert tree(places.root / "in/d") == {name: b"x"}


def test_names_of_any_bytes_pass_over_ftp(places: Places) -> None:
    name = os.fsdecode(b"caf\xe9")
    write(places["ftp"].folder / "d", {name: b"x"})
    report = places.fetch(Input("/in/d", url=places["ftp"].url("d")))
    assert report.ok, report.failure
    assert tree(places.root / "in/d") == {name: b"x"}


@pytest.mark.parametrize(
    ("scheme", "name", "reason"),
    [
        ("s3", os.fsdecode(b"\xff"), "UTF-8"),
        ("gs", "line\nbreak", "control character"),
        ("az", "line\nbreak", "control character"),
        ("az", os.fsdecode(b"\xff"), "UTF-8"),
        ("gs", os.fsdecode(b"\xff"), "UTF-8"),
        ("ftp", "line\nbreak", "line break"),
    ],
)
def test_a_name_that_a_store_cannot_hold_is_a_clear_error(places: Places, scheme: str, name: str, reason: str) -> None:
    write(places.root / "out/d", {name: b"x", "good": b"y"})
    report = places.push(Output("/out/d", places[scheme].url("d")))
    assert reason in report.failure
    assert tree(places[scheme].folder / "d") == {"good": b"y"}


def test_a_dead_store_is_tried_again_then_named(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:1/f", "ftp://127.0.0.1:1/f"):
        failure = places.fetch(Input("/in/f", url=url), retries=1).failure
        assert failure.startswith(f"input {url}: ")
        assert "127.0.0.1:1 cannot be reached (Connection refused) after 2 tries" in failure
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    failure = places.fetch(Input("/in/f", url="s3://lab/f"), retries=1).failure
    assert failure.startswith(
        "input s3://lab/f: http://127.0.0.1:1 cannot be reached (connection refused) after 2 tries"
    )


def test_random_trees_come_back_as_they_went(places: Places) -> None:
    chance = random.Random(20250101)
    files: dict[str, bytes | None] = {}
    for n in range(60):
        path = "/".join(f"{chance.choice(NAMES)}{chance.randrange(3)}.d" for _ in range(chance.randrange(3)))
        files[f"{path}/f{n}" if path else f"f{n}"] = chance.randbytes(chance.randrange(20_000))
    write(places.root / "out", files)
    for scheme in KEPT:
        assert places.push(Output("/out", places[scheme].url(f"t-{scheme}"), type=DIRECTORY)).ok
        assert places.fetch(Input(f"/back/{scheme}", url=places[scheme].url(f"t-{scheme}"), type=DIRECTORY)).ok
        back = {path: data for path, data in tree(places.root / "back" / scheme).items() if data is not None}
        assert back == files


@pytest.mark.parametrize("scheme", [scheme for scheme in READ if scheme != "file"])
@pytest.mark.parametrize("size", [200_000, 8_000_000], ids=["small", "large"])
def test_a_file_that_finds_no_room_is_told_and_not_tried_again(places: Places, scheme: str, size: int) -> None:
    write(places[scheme].folder, {"f": bytes(size)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        report = places.fetch(Input("/f", url=places[scheme].url("f")), retries=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "writing the file: file too large after 1 try" in report.failure
    assert tree(places.root) == {}
