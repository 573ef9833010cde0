"""FTP: every way a server lists, logs in, refuses and breaks off."""

import os
import random
import re
import ssl
from pathlib import Path

import pytest

from tesk.filer.attributes import Attributes
from tesk.filer.errors import TransferError
from tesk.filer.scheme import Kind
from tesk.filer.schemes.ftp.listing import FtpEntry, parse_list, parse_mlsd
from tesk.filer.schemes.ftp.wire import target_of
from tesk.tes import Input, Output
from tests.filer.stores import DIRECTORY, fetch, push, tree, write
from tests.servers.certificates import certificate
from tests.servers.ftp import ftp_server, ftps_server

F, D = Kind.FILE, Kind.DIRECTORY
NEW_YEAR_NS = 1_577_836_800 * 10**9


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        ("-rw-r--r--   1 ftp      ftp           12 Jan 01  2020 plain", FtpEntry("plain", F, 12)),
        ("-rw-r--r--   1 1000     1000  3000000000 Jan 01 12:34 two  words ", FtpEntry("two  words ", F, 3000000000)),
        ("drwxr-xr-x   2 ftp      ftp         4096 Jan 01 12:34 dir", FtpEntry("dir", D, None)),
        ("drwxrwxrwt+  2 ftp      ftp         4096 Jan 01 12:34 acl", FtpEntry("acl", D, None)),
        ("lrwxrwxrwx   1 ftp      ftp            4 Jan 01 12:34 link -> target", FtpEntry("link", None, None)),
        ("drwxr-xr-x   2 ftp      ftp         4096 Jan 01 12:34 ..", None),
        ("srwxr-xr-x   1 ftp      ftp            0 Jan 01 12:34 socket", None),
        ("total 12", None),
        ("insgesamt 12", None),
        ("", None),
        ("01-31-20  12:34PM       <DIR>          Program Files", FtpEntry("Program Files", D, None)),
        ("01-31-2020  12:34               1024 a.txt", FtpEntry("a.txt", F, 1024)),
        ("-rw-r--r--   1 owner     1803128 Jul 10 10:18 no group", FtpEntry("no group", F, 1803128)),
        ("-rw-r--r--   1 1803128 Jul 10 10:18 f", FtpEntry("f", F, 1803128)),
        ("-rw-r--r-- 1 ftp ftp 5 2024-07-10 10:18 iso", FtpEntry("iso", F, 5)),
        ("-rw-r--r-- 1 ftp ftp 5 2024-07-10 10:18:22.000000000 +0200 full iso", FtpEntry("full iso", F, 5)),
        ("-rw-r--r-- 1 DOM\\Domain Users 512 grp 5 Jan 2 2024 8 Feb 1 2023 x", FtpEntry("8 Feb 1 2023 x", F, 5)),
        ("-rw-r--r-- 1 a b 5 M\xc3\xa4r  2 2024 another tongue", FtpEntry("another tongue", F, 5)),
        ("-rw-r--r-- 1 a b 5 2. Jul 10:18:59 day first", FtpEntry("day first", F, 5)),
        ("crw-rw-rw- 1 root root 1, 3 Jan  1 12:34 null", None),
        ("01/31/2020  12:34 PM              1024 a.txt", FtpEntry("a.txt", F, 1024)),
        ("2024-01-02  10:00 5 iso.txt", FtpEntry("iso.txt", F, 5)),
        ("01-31-20  12:34PM       <DIR>          ..", None),
        ("01-31-2020  12:34PM       <SYMLINKD>     x y [C:\\z]", FtpEntry("x y", None, None)),
        ("Total 1.2G", None),
    ],
)
def test_lists_of_unix_and_windows_are_read(line: str, listed: FtpEntry | None) -> None:
    assert parse_list(line) == listed


@pytest.mark.parametrize(
    "line", ["-rw-r--r-- 1 a b 5 yesterday f", "f 12 g", "f;12;2024", "01-31-20 noon 5 f", "totals", "-rw-r--r-- a b f"]
)
def test_a_line_that_is_not_understood_is_told(line: str) -> None:
    with pytest.raises(TransferError, match=re.escape(f"the server lists {line!r}, which tesk cannot read")):
        parse_list(line)


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        (
            "type=file;size=12;modify=20200101000000.5;unix.mode=0755; two words",
            FtpEntry("two words", F, 12, Attributes(NEW_YEAR_NS, True)),
        ),
        ("Type=dir;Modify=20200101000000; d", FtpEntry("d", D, None, Attributes(NEW_YEAR_NS))),
        ("type=file;modify=20201332000000;unix.mode=99; no date", FtpEntry("no date", F, None)),
        ("type=cdir; .", None),
        ("type=pdir; ..", None),
        ("type=OS.unix=slink:/x;size=3; link", FtpEntry("link", None, None)),
        ("size=3;type=file;  leading", FtpEntry(" leading", F, 3)),
    ],
)
def test_machine_lists_are_read(line: str, listed: FtpEntry | None) -> None:
    assert parse_mlsd(line) == listed


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ftp://h/a/b", ("h", 21, "anonymous", "anonymous@", "a/b")),
        ("ftp://me:p%40s%2Fs@h:2121/a%20b?c#d", ("h", 2121, "me", "p@s/s", "a b?c#d")),
        ("ftp://h/%2Fetc/x", ("h", 21, "anonymous", "anonymous@", "/etc/x")),
        ("ftp://h/dir/", ("h", 21, "anonymous", "anonymous@", "dir")),
        ("ftp://[::1]:21/a", ("::1", 21, "anonymous", "anonymous@", "a")),
        ("ftp://me@h/a", ("h", 21, "me", "", "a")),
        ("ftp://me@h/", ("h", 21, "me", "", "")),
        ("ftp://me@h/%2F", ("h", 21, "me", "", "/")),
    ],
)
def test_urls_are_read_as_curl_reads_them(url: str, parts: tuple[object, ...]) -> None:
    assert tuple(target_of(url))[:5] == parts


TREE: dict[str, bytes | None] = {"a b": b"1", "sub": None, "sub/c": b"22", "sub/empty": None}


@pytest.mark.parametrize("mlsd", [True, False])
def test_anonymous_both_ways_with_either_list(tmp_path: Path, mlsd: bool) -> None:
    write(tmp_path / "served/in", TREE)
    (tmp_path / "served/in/link").symlink_to("sub/c")
    (tmp_path / "root").mkdir()
    times = {"sub/c": 1_000_000_000, **({"sub": 1_100_000_000, ".": 1_200_000_000} if mlsd else {})}
    for path, when in times.items():
        os.utime(tmp_path / "served/in" / path, (when, when))
    with ftp_server(tmp_path / "served", mlsd=mlsd) as url:
        report = fetch(tmp_path / "root", Input("/in", url=f"{url}/in"))
        assert report.ok, report.failure
        assert tree(tmp_path / "root/in") == {**TREE, "link": b"22"}
        assert {path: (tmp_path / "root/in" / path).stat().st_mtime for path in times} == times
        report = push(tmp_path / "root", Output("/in", f"{url}/new/out"))
        assert report.ok, report.failure
    assert tree(tmp_path / "served/new/out") == {**TREE, "link": b"22"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{mode} 1 owner {size} Jul 10 10:18 {name}", ""),
        ("{name} holds {size}", "the server lists 'f holds 2', which tesk cannot read"),
    ],
)
def test_no_file_of_a_list_is_left_out(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path / "served/in", {"f": b"12"})
    with ftp_server(tmp_path / "served", mlsd=False, line=line) as url:
        report = fetch(tmp_path, Input("/in", url=f"{url}/in", type=DIRECTORY), retries=3)
        assert report.ok if not reason else f"{reason} after 1 try; name the files" in report.failure
    assert tree(tmp_path / "in") == ({} if reason else {"f": b"12"})


def test_a_url_without_a_path_is_the_login_directory(tmp_path: Path) -> None:
    write(tmp_path / "served", {"home/f": b"1", "other": b"2"})
    with ftp_server(tmp_path / "served", home="/home") as url:
        report = fetch(tmp_path, Input("/in", url=f"{url}/", type=DIRECTORY))
        assert report.ok, report.failure
        report = fetch(tmp_path, Input("/all", url=f"{url}/%2F", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "in") == {"f": b"1"}
    assert tree(tmp_path / "all") == {"home": None, "home/f": b"1", "other": b"2"}


def test_a_server_that_takes_no_more_is_told_in_its_words(tmp_path: Path) -> None:
    write(tmp_path, {"root/f": bytes(30_000_000), "root/g": b"g"})
    with ftp_server(tmp_path / "served", quota=1_000_000) as url:
        failure = push(tmp_path / "root", Output("/f", f"{url}/f"), Output("/g", f"{url}/g"), retries=3).failure
        assert f"refused (552 The quota is used up.) by {url} after 1 try" in failure
    assert tree(tmp_path / "served") == {"g": b"g"}


def test_a_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    with ftp_server(tmp_path / "served", user="me", password="the-right") as url:
        report = fetch(tmp_path, Input("/f", url=url.replace("right", "wrong-secret") + "/f"), retries=5)
    assert "access denied (530" in report.failure
    assert "after 1 try; check user and password" in report.failure
    assert "wrong-secret" not in repr(report.events)


def test_a_kept_connection_that_died_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps through one scheme object, with the server replaced in between."""
    import threading

    from tesk.filer.plan import FilerSettings
    from tesk.filer.scheme import Context
    from tesk.filer.schemes.ftp.scheme import open_scheme
    from tesk.filer.streams import Meter

    write(tmp_path, {"served/f": b"x"})
    context = Context(FilerSettings(), Meter(threading.Event()), print)
    scheme = open_scheme(context)
    with ftp_server(tmp_path / "served") as url:
        assert scheme.find(f"{url}/f", None)[:2] == (F, 1)
        monkeypatch.setattr("tesk.filer.schemes.ftp.wire.FRESH_S", 0)
        (ftp,) = scheme._sessions._all
        assert ftp.sock
        ftp.sock.shutdown(2)
        assert scheme.find(f"{url}/f", None)[:2] == (F, 1)
    scheme.close()


CONTENT = random.Random(6).randbytes(2_345_678)


def test_a_large_file_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.schemes.ftp.scheme.LEAST_PART", 200_000)
    monkeypatch.setattr("tesk.filer.download.LEAST_PART", 200_000)
    write(tmp_path / "served", {"f": CONTENT})
    with ftp_server(tmp_path / "served") as url:
        report = fetch(tmp_path, Input("/in/f", url=f"{url}/f"))
        assert report.ok, report.failure
    assert tree(tmp_path / "in") == {"f": CONTENT}


def test_a_cut_file_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transfer is cut after half a megabyte, more often than there are retries."""
    monkeypatch.setattr("tesk.filer.schemes.ftp.scheme.LEAST_PART", 1000)
    monkeypatch.setattr("tesk.filer.retry.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("tesk.filer.retry.WORTH_BYTES", 1000)
    write(tmp_path / "served", {"f": CONTENT})
    with ftp_server(tmp_path / "served", cut=500_000) as url:
        report = fetch(tmp_path, Input("/in/f", url=f"{url}/f"), retries=2)
        assert report.ok, report.failure
    assert tree(tmp_path / "in") == {"f": CONTENT}


def test_a_server_of_few_logins_is_asked_for_no_more(tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {f"f{n}": b"%d" % n for n in range(40)}
    write(tmp_path / "served/d", files)
    (tmp_path / "root").mkdir()
    with ftp_server(tmp_path / "served", logins=2) as url:
        report = fetch(tmp_path / "root", Input("/in", url=f"{url}/d"), retries=1)
        assert report.ok, report.failure
        report = push(tmp_path / "root", Output("/in", f"{url}/out"), retries=1)
        assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == tree(tmp_path / "served/out") == files


@pytest.mark.parametrize("implicit", [False, True], ids=["auth", "implicit"])
def test_tls_both_ways_with_another_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool) -> None:
    write(tmp_path / "served", {"in/f": CONTENT, "in/two words": b"2"})
    (tmp_path / "root").mkdir()
    pem = certificate(tmp_path)
    if not implicit:  # its greeting may be late
        monkeypatch.setattr("tesk.filer.schemes.ftp.wire.GREETING_S", 300)
    with ftps_server(tmp_path / "served", pem, implicit=implicit) as url:
        failure = fetch(tmp_path / "root", Input("/in", url=f"{url}/in"), retries=0).failure
        assert f"the certificate of {url} is not trusted" in failure
        monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(pem))
        report = fetch(tmp_path / "root", Input("/in", url=f"{url}/in"))
        assert report.ok, report.failure
        report = push(tmp_path / "root", Output("/in", f"{url}/out"))
        assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == tree(tmp_path / "served/out") == {"f": CONTENT, "two words": b"2"}
