"""Times and executable bits: what a copy keeps of a file, by every store, and what no server can make of them."""

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from tesk.filer.attributes import Attributes, from_ftp, from_iso
from tesk.tes import Input, Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import DIRECTORY, Places, Shelf, fetch, write

TIMES = {"d/sub/f": 1_000_000_000, "d/sub": 1_100_000_000, "d/f": 1_200_000_000, "d": 1_300_000_000, "f": 0}
"""What lies in a directory before the directory itself, whose time it changes."""
DIRECTORIES = {
    "file": {"d", "d/sub"},
    "path": {"d", "d/sub"},
    "sftp": {"d", "d/sub"},
    "ftp": {"d", "d/sub"},
}
"""The directories whose time the store tells."""


def changed(path: Path) -> int:
    return int(path.stat().st_mtime)


@pytest.mark.parametrize("scheme", ["file", "path", "s3", "gs", "az", "ftp", "sftp", "http"])
def test_inputs_have_the_times_of_their_sources(places: Places, scheme: str) -> None:
    place = places[scheme]
    write(place.folder, {"d/sub/f": b"1", "d/f": b"2", "f": b"3"})
    inputs = [Input("/in/f", url=place.url("f")), Input("/in/twin", url=place.url("f"))]
    if scheme != "http":
        inputs.append(Input("/in/d", url=place.url("d"), type=DIRECTORY))
    wanted = {"f": TIMES["f"], "twin": TIMES["f"]}
    if isinstance(place.folder, Shelf):
        times = {path: int((place.folder / path).changed().timestamp()) for path in ("f", "d/f", "d/sub/f")}
        wanted = {**times, "twin": times["f"]}
    else:
        for path, when in TIMES.items():
            os.utime(place.folder / path, (when, when))
        if scheme != "http":
            wanted |= {path: TIMES[path] for path in ("d/f", "d/sub/f", *DIRECTORIES.get(scheme, ()))}
    report = places.fetch(*inputs)
    assert report.ok, report.failure
    assert {path: changed(places.root / "in" / path) for path in wanted} == wanted


DATES = {
    "Sun, 09 Sep 2001 01:46:40 GMT": 1_000_000_000,
    "Sun, 09 Sep 2001 03:46:40 +0200": 1_000_000_000,
    "Sunday, 09-Sep-01 01:46:40 GMT": 1_000_000_000,  # RFC 9110, 5.6.7: as older servers write it
    "Thu, 01 Jan 1970 00:00:00 GMT": 0,
    "Wed, 31 Dec 1969 23:59:59 GMT": None,
    "Fri, 31 Dec 9999 23:59:59 GMT": None,
    "Mon, 01 Jan 1000 00:00:00 -9999": None,
    "Sun, 09 Sep 20010000000000 01:46:40 GMT": None,
    "Sun, 99 Sep 2001 01:46:40 GMT": None,
    "Sun, 09 Sep 2001 01:46:40 GMT" + "0" * 10_000: None,
    "2001-09-09": None,
    "0": None,
    "\xff\0": None,
    "": None,
}


def test_a_date_that_cannot_be_is_as_good_as_none(tmp_path: Path) -> None:
    """Of a server that says what it likes."""
    dates = list(DATES)
    before = int(time.time()) - 1  # the times of files are those of a coarser clock

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        date = dates[int(head.split()[1].strip(b"/"))]
        connection.sendall(answer("200 OK", b"x", f"Last-Modified: {date}"))

    with faulty(script) as server:
        report = fetch(tmp_path, *(Input(f"/in/{n}", url=f"{server.url}/{n}") for n in range(len(dates))))
    assert report.ok, report.failure
    found = [changed(tmp_path / f"in/{n}") for n in range(len(dates))]
    assert [when if when < before else None for when in found] == list(DATES.values())


@pytest.mark.parametrize("name", ["line\nbreak", "d"])
def test_s3_tells_times_of_odd_names_too(places: Places, name: str) -> None:
    write(places["s3"].folder, {"line\nbreak": b"1", "d/line\nbreak": b"2"})
    for path in ("line\nbreak", "d/line\nbreak"):
        os.utime(places["s3"].folder / path, (1_000_000_000, 1_000_000_000))
    assert places.fetch(Input("/in", url=places["s3"].url(name))).ok
    assert changed(places.root / ("in/line\nbreak" if name == "d" else "in")) == 1_000_000_000


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        (from_iso("2001-09-09T01:46:40Z"), 1_000_000_000),
        (from_iso("2001-09-09T01:46:40.5+00:00"), 1_000_000_000.5),
        (from_iso("2001-09-09"), 999_993_600),
        (from_iso("9999-12-31T23:59:59-23:59"), None),
        (from_iso("2001-99-09T01:46:40Z", Attributes(5 * 10**9)), 5),
        (from_iso("None"), None),
        (from_ftp("20010909014640"), 1_000_000_000),
        (from_ftp("20010909014640.123"), 1_000_000_000),
        (from_ftp("19101001014640"), None),  # "19" and 101 for the year, as servers wrote it in 2001
        (from_ftp("2001090901464"), None),
        (from_ftp("20010909014699"), None),
        (Attributes(-1), None),
        (Attributes(2**200), None),
    ],
)
def test_dates_of_stores_are_read(attributes: Attributes, seconds: float | None) -> None:
    assert attributes.credible_ns == (None if seconds is None else int(seconds * 10**9))


@pytest.mark.parametrize("scheme", ["file", "path", "sftp", "ftp"])
def test_outputs_have_the_times_and_the_executable_bits_of_files(places: Places, scheme: str) -> None:
    write(places.root / "out", {"run": b"#!/bin/sh", "data": b"", "old": b""})
    (places.root / "out/run").chmod(0o700)
    (places.root / "out/data").chmod(0o660)
    for name, when in (("run", 1_000_000_000), ("data", 1_100_000_000), ("old", -1)):
        os.utime(places.root / "out" / name, (when, when))
    before = int(time.time()) - 1
    report = places.push(Output("/out", places[scheme].url("o")))
    assert report.ok, report.failure
    there = places[scheme].folder / "o"
    assert [changed(there / name) for name in ("run", "data")] == [1_000_000_000, 1_100_000_000]
    assert changed(there / "old") >= before
    keeps = scheme != "ftp"
    assert [bool((there / name).stat().st_mode & 0o111) for name in ("run", "data")] == [keeps, False]


@pytest.mark.parametrize("scheme", ["file", "sftp", "ftp", "http", "content"])
def test_an_input_can_be_run_unless_its_store_says_that_it_cannot(places: Places, scheme: str) -> None:
    given = [Input("/in/run", content="#!/bin/sh"), Input("/in/data", content="data")]
    if scheme != "content":
        write(places[scheme].folder, {"run": b"#!/bin/sh", "data": b"data"})
        (places[scheme].folder / "run").chmod(0o555)
        (places[scheme].folder / "data").chmod(0o444)
        given = [Input(f"/in/{name}", url=places[scheme].url(name)) for name in ("run", "data")]
    assert places.fetch(*given).ok
    modes = [stat.S_IMODE((places.root / "in" / name).stat().st_mode) for name in ("run", "data")]
    assert modes == [0o777, 0o666 if scheme in ("file", "sftp") else 0o777]


@pytest.mark.parametrize("scheme", ["file", "sftp", "http", "content"])
def test_what_is_private_is_marked(places: Places, scheme: str) -> None:
    """Where the store knows of modes; and private keys, wherever they come from."""
    files = {
        "key": "-----BEGIN OPENSSH PRIVATE KEY-----\nx",
        "pkcs": "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
        "public": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----",
        "password": "x",
        "run": "#!/bin/sh",
    }
    given = [Input(f"/in/{name}", content=text) for name, text in files.items()]
    if scheme != "content":
        write(places[scheme].folder, {name: text.encode() for name, text in files.items()})
        for name, mode in (("key", 0o644), ("pkcs", 0o400), ("public", 0o644), ("password", 0o600), ("run", 0o700)):
            (places[scheme].folder / name).chmod(mode if scheme != "http" else 0o644)
        given = [Input(f"/in/{name}", url=places[scheme].url(name)) for name in files]
    assert places.fetch(*given).ok
    tells = scheme in ("file", "sftp")
    marked = ["key", "pkcs", "password", "run"] if tells else ["key", "pkcs"]
    assert [name for name in files if (places.root / "in" / name).stat().st_mode & stat.S_ISVTX] == marked
    assert all((places.root / "in" / name).stat().st_mode & 0o666 == 0o666 for name in files)
