"""What no server and no tree may make the filer read, hold or visit, and that each bound is told."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tesk.filer import bounds
from tesk.filer.bounds import Listings, size_of
from tesk.filer.errors import MAX_ANSWER, TransferError
from tesk.filer.scheme import Entry, Kind
from tesk.filer.schemes.ftp.listing import FtpEntry, parse_list
from tesk.filer.schemes.http.html import read
from tesk.filer.schemes.http.listing import from_dav, from_index
from tesk.filer.wire.xml import parsed
from tesk.tes import Input
from tests.filer.faulty import Script, answer, faulty
from tests.filer.stores import DIRECTORY, Places, fetch, write
from tests.servers.drs import drs_server

HERE = "http://h/d/"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.retry.FIRST_DELAY_S", 0.01)


# A listing, in every scheme.


@pytest.mark.parametrize("store", ["s3", "gs", "az", "ftp", "sftp", "file", "path"])
def test_a_listing_of_any_store_is_bounded(places: Places, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, bytes | None] = {f"d/{n}": b"x" for n in range(20)}
    write(places[store].folder, files)
    monkeypatch.setattr(bounds, "MAX_ENTRIES", 20)
    one = Input("/in", url=places[store].url("d/"), type=DIRECTORY)
    assert places.fetch(one).ok
    failure = places.fetch(one, Input("/in2", url=one.url, type=DIRECTORY), concurrency=1, retries=3).failure
    assert "lists so much that there are more than 20 entries in all" in failure
    assert "after 1 try" in failure
    monkeypatch.setattr(bounds, "MAX_ENTRIES", 1000)
    monkeypatch.setattr(bounds, "MAX_NAMES_BYTES", 19)
    assert "more than 19 bytes of names" in places.fetch(one).failure


@pytest.mark.parametrize("store", ["ftp", "sftp"])
def test_the_depth_of_a_tree_is_bounded(places: Places, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(places[store].folder, {"d/1/2/3": b"x"})
    one = Input("/in", url=places[store].url("d/"), type=DIRECTORY)
    monkeypatch.setattr(bounds, "MAX_DEPTH", 2)
    assert places.fetch(one).ok
    monkeypatch.setattr(bounds, "MAX_DEPTH", 1)
    assert "'1/2' is nested deeper than 1" in places.fetch(one).failure


def fail(step: Listings) -> None:
    with step.listing("h") as listing:
        for n in range(400_000):
            listing.add(str(n))
        raise RuntimeError


def test_a_listing_that_failed_counts_no_more() -> None:
    step = Listings()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            fail(step)
    with step.listing("h", most=2) as listing:
        listing.add("a")
        listing.add("b")
        with pytest.raises(TransferError, match=r"^h lists more than 2 entries$"):
            listing.add("c")


def test_a_webdav_tree_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each directory holds two more."""

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        here = head.split()[1].decode()
        found = "".join(
            f"<D:response><D:href>{path}</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>"
            "</D:prop></D:propstat></D:response>"
            for path in (here, f"{here}a/", f"{here}b/")
        )
        connection.sendall(answer("207 Multi", f'<D:multistatus xmlns:D="DAV:">{found}</D:multistatus>'.encode()))

    with faulty(script) as server:
        monkeypatch.setattr(bounds, "MAX_ENTRIES", 50)
        one = Input("/in", url=f"{server.url}/d/", type=DIRECTORY)
        assert "more than 50 entries" in fetch(tmp_path, one).failure
        assert len(server.requests) <= 28
        monkeypatch.setattr(bounds, "MAX_DEPTH", 5)
        assert "is nested deeper than 5" in fetch(tmp_path, one).failure


def test_a_bundle_that_doubles_at_each_level_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drs_server() as drs:
        (tmp_path / "stores.toml").write_text(f'["drs://lab"]\nendpoint = "{drs.url}"\n')
        for n in range(12):
            drs.documents[f"{n}"] = {"contents": [{"name": name, "id": f"{n + 1}"} for name in "ab"]}
        drs.documents["12"] = {"size": 1, "access_methods": []}
        one = Input("/in", url="drs://lab/0", type=DIRECTORY)
        monkeypatch.setattr(bounds, "MAX_BUNDLE_ENTRIES", 1000)
        failure = fetch(tmp_path, one, credentials=(str(tmp_path / "stores.toml"),)).failure
        assert "the bundle '0' lists more than 1,000 entries" in failure
        assert len(drs.asked) <= 13
        monkeypatch.setattr(bounds, "MAX_DEPTH", 11)
        monkeypatch.setattr(bounds, "MAX_BUNDLE_ENTRIES", 100_000)
        failure = fetch(tmp_path, one, credentials=(str(tmp_path / "stores.toml"),)).failure
        assert "is nested deeper than 11" not in failure
        monkeypatch.setattr(bounds, "MAX_DEPTH", 10)
        failure = fetch(tmp_path, one, credentials=(str(tmp_path / "stores.toml"),)).failure
        assert "is nested deeper than 10" in failure


def test_documents_are_kept_as_long_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_DOCUMENTS_BYTES", 1)
    with drs_server() as drs:
        (tmp_path / "stores.toml").write_text(f'["drs://lab"]\nendpoint = "{drs.url}"\n')
        drs.documents["b"] = {"contents": [{"name": "a", "id": "a"}, {"name": "b", "id": "a"}]}
        drs.documents["a"] = {"size": 1, "access_methods": []}
        one = Input("/in", url="drs://lab/b", type=DIRECTORY)
        assert "no access method" in fetch(tmp_path, one, credentials=(str(tmp_path / "stores.toml"),)).failure


def gs_pages(connection: socket.socket, number: int, _: bytes) -> None:
    connection.sendall(answer("200 OK", json.dumps({"items": [], "nextPageToken": f"{number}"}).encode()))


def az_pages(connection: socket.socket, number: int, _: bytes) -> None:
    body = f"<EnumerationResults><Blobs/><NextMarker>{number}</NextMarker></EnumerationResults>"
    connection.sendall(answer("200 OK", body.encode()))


@pytest.mark.parametrize(("url", "script"), [("gs://lab/d/", gs_pages), ("az://lab/d/", az_pages)])
def test_a_listing_of_empty_pages_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, script: Script
) -> None:
    monkeypatch.setattr(bounds, "MAX_PAGES", 5)
    with faulty(script) as server:
        words = f'endpoint = "{server.url}"\nanonymous = "true"\n'
        account = 'account = "acc"\n' if url.startswith("az") else ""
        (tmp_path / "stores.toml").write_text(f'["{url[:8]}"]\n{words}{account}')
        one = Input("/in", url=url, type=DIRECTORY)
        failure = fetch(tmp_path, one, credentials=(str(tmp_path / "stores.toml"),)).failure
        assert "lists on 5 pages and more" in failure
        assert len(server.requests) <= 10


# An answer over HTTP.


def repeated(head: bytes, piece: bytes) -> Script:
    def script(connection: socket.socket, _n: int, _h: bytes) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return script


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (repeated(b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 60_000 + b"\r\n"), "more than 262,144 bytes of headers"),
        (repeated(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "more than 262,144 bytes of headers"),
        (repeated(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"), "answers with more than 100,000 bytes in one page"),
        (repeated(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n"), "more than 100 lines behind the end of its answer"),
        (repeated(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", b"x" * 4096), "more than 100,000 bytes"),
    ],
    ids=["headers", "interim answers", "chunks", "trailers", "until the end"],
)
def test_an_answer_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script, reason: str
) -> None:
    monkeypatch.setattr(bounds, "MAX_PAGE_BYTES", 100_000)
    with faulty(script) as server:
        failure = fetch(tmp_path, Input("/in", url=f"{server.url}/d/", type=DIRECTORY), retries=3).failure
    assert reason in failure
    assert "after 1 try" in failure


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"size": ' + b"9" * 5000 + b"}", b'{"items": [{"size": "1"}]}']
)
def test_json_that_is_too_much_is_no_answer(tmp_path: Path, body: bytes) -> None:
    with faulty(lambda connection, _n, _h: connection.sendall(answer("200 OK", body))) as server:
        told = "".join(f'["{prefix}"]\nendpoint = "{server.url}"\n' for prefix in ("gs://lab", "drs://lab"))
        (tmp_path / "stores.toml").write_text(told)
        for url in ("gs://lab/d/", "drs://lab/d"):
            one = Input("/in", url=url, type=DIRECTORY)
            failure = fetch(tmp_path, one, credentials=(str(tmp_path / "stores.toml"),)).failure
            assert any(words in failure for words in ("not answer", "tells no name", "no access method")), failure


# XML and HTML.

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "iso-8859-1"])
def test_a_document_with_a_dtd_is_refused_in_any_encoding(encoding: str) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding}"?>' if encoding == "iso-8859-1" else ""
    for text in (BOMB, '<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "<!DOCTYPE\nx><x/>"):
        with pytest.raises(TransferError, match=r"^the answer has a DTD, which defines entities$"):
            parsed((declared + text).encode(encoding), "the answer", "")
    assert parsed((declared + "<x>é</x>").encode(encoding), "the answer", "").text == "é"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<a>" * 101 + "</a>" * 101, "is nested deeper than 100 elements"),
        ("<a>" * 1_000_000, "is nested deeper than 100 elements"),
        ("<a>" + "<b/>" * 10_000 + "</a>", "has more than 10,000 elements"),
        ("<a><e>" + "<b/>" * 10_000 + "</e></a>", "has more than 10,000 elements"),
        ('<?xml version="1.0" encoding="nothing"?><a/>', "is no XML"),
        ('<?xml version="1.0" encoding="idna"?><a/>', "is no XML"),
        ("<a>&b;</a>", "is no XML"),
        ("", "is no XML"),
    ],
)
def test_a_document_that_is_too_much_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TransferError, match=reason):
        parsed(text.encode(), "the answer", "", "e")


def test_a_document_may_have_any_number_of_entries() -> None:
    taken: list[str] = []
    text = "<n:a xmlns:n='x'><n:b>1</n:b>" + "".join(f"<n:e><n:k>{n}</n:k>\n</n:e>" for n in range(20_000)) + "</n:a>"
    root = parsed(text.encode(), "it", "", "e", lambda each: taken.append(each.findtext("{*}k") or ""))
    assert taken == [str(n) for n in range(20_000)]
    assert [child.tag for child in root] == ["{x}b"]


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "x", "²", ""])
def test_a_size_that_is_none_is_not_known(size: str) -> None:
    assert size_of(size) is None
    dav = (
        '<D:multistatus xmlns:D="DAV:"><D:response><D:href>/d/a</D:href><D:propstat><D:prop>'
        f"<D:getcontentlength>{size}</D:getcontentlength></D:prop></D:propstat></D:response></D:multistatus>"
    )
    assert from_dav(dav.encode(), HERE)[1] == [Entry("a", False, None)]


LONG = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
from tesk.filer.schemes.http.html import read
for piece in ("<a ", "<a href=", "<a href='", '<a href="', "<!--", "<!", "</a", "<script>", "<a/", "<a =", "<title>",
              "&#", "<a href=x ", "<h1 '", "< ", "<?", "</script", "<a\\t\\n ", "<a href=  "):
    for last in ("", ">", "x", "'", '"', "-->"):
        read(piece * 200_000 + last)
from tesk.filer.schemes.ftp.listing import parse_list, parse_mlsd
for piece in (" ", "1 ", "1  ", "a ", "1 a ", "1 Jan ", "1 Jan 1 ", "9", "d", "; ", "=", "2020-01-01 ", "x "):
    for begin in ("", "drwxrwxrwx ", "-rwxrwxrwx 1 a ", "01-01-20 10:00AM ", "total"):
        for parse in (parse_list, parse_mlsd):
            try:
                parse(begin + piece * (8192 // len(piece)))
            except Exception as error:
                assert type(error).__name__ == "TransferError", error
"""


def test_no_page_and_no_line_takes_the_square_of_its_length() -> None:
    """In a process of its own, which a page that does would keep busy for hours: so much of a processor it may have."""
    subprocess.run([sys.executable, "-c", LONG], check=True, timeout=800)


@pytest.mark.parametrize(
    ("page", "links"),
    [
        ('<a href="x">', ["x"]),
        ("<A HREF='x y'>", ["x y"]),
        ("<a href=x>", ["x"]),
        ("<a class=b href = x/ >", ["x/"]),
        ("<a\nhref\n=\n'x'\n>", ["x"]),
        ("<a/href=x/>", ["x/"]),
        ('<a title="<a href=no>" href="x">', ["x"]),
        ('<a href="a&amp;b&#33;">', ["a&b!"]),
        ("<a href=x href=y>", ["x"]),
        ("<a>", []),
        ("<abbr href=x>", []),
        ("<!-- <a href=x> --><a href=y>", ["y"]),
        ("<!-- <a href=x>", []),
        ("<!DOCTYPE html><a href=x>", ["x"]),
        ("<script>'<a href=x>'</script ><a href=y>", ["y"]),
        ("<style><a href=x></STYLE><a href=y>", ["y"]),
        ("<script><a href=x>", []),
        ("a < b <a href=x>", ["x"]),
        ("<a href=x", []),
        ("</a href=x>", []),
    ],
)
def test_links_are_read_as_browsers_do(page: str, links: list[str]) -> None:
    assert read(page).links == links


@pytest.mark.parametrize(
    ("page", "headings"),
    [
        ("<title>Index of /</title>x<h1>Index <b>of</b></h1>", ["Index of /", "Index "]),
        ("<title>Index &amp; of", []),
        ("<title>a < b</title>", ["a ", " b"]),
        ("<p>Index of</p>", []),
    ],
)
def test_headings_are_the_title_and_those_of_the_first_level(page: str, headings: list[str]) -> None:
    assert read(page).headings == headings


@pytest.mark.parametrize("link", ["http://[", "//[x/", "&#" + "9" * 5000 + ";"])
def test_a_link_that_is_no_url_is_refused(link: str) -> None:
    with pytest.raises(TransferError, match=r"which is no URL|is no HTML|which is not directly in it"):
        from_index(f'<title>Index of /d/</title><a href="{link}">', HERE)


def test_an_error_is_not_longer_than_anybody_reads() -> None:
    assert len(TransferError("x" * 1_000_000).answer) == MAX_ANSWER


# FTP.


@pytest.fixture
def ftp() -> Iterator[Callable[[dict[str, bytes], bytes], str]]:
    """A server that sends one piece for ever: in answer to a command, or as the data of a listing."""
    listener = socket.create_server(("127.0.0.1", 0))
    data = socket.create_server(("127.0.0.1", 0))
    script: dict[str, bytes] = {}
    endless = [b""]
    stream = socket.socket()

    def flood(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(endless[0])
        except OSError:
            connection.close()

    def serve() -> None:
        nonlocal stream
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                if "greeting" in script:
                    connection.sendall(script["greeting"])
                    flood(connection)
                    continue
                connection.sendall(b"220 hello\r\n")
                for line in connection.makefile("rb"):
                    word = line.split()[0].decode()
                    port = data.getsockname()[1]
                    passive = b"227 ok (127,0,0,1,%d,%d)\r\n" % divmod(port, 256)
                    usual = {"PASV": passive, "PWD": b'257 "/"\r\n', "USER": b"230 ok\r\n"}
                    connection.sendall(script.get(word) or usual.get(word, b"200 ok\r\n"))
                    if script.get(word, b"").startswith(b"200-"):
                        flood(connection)
                        break
                    if script.get(word, b"").startswith(b"150"):
                        flood(stream)
                        break
                    if word == "PASV":
                        stream = data.accept()[0]

    def start(answers: dict[str, bytes], piece: bytes) -> str:
        script.update(answers)
        endless[0] = piece
        threading.Thread(target=serve, daemon=True).start()
        return f"ftp://127.0.0.1:{listener.getsockname()[1]}/d"

    yield start
    for each in (listener, data):
        each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.mark.parametrize(
    ("answers", "piece", "reason"),
    [
        ({"greeting": b"220-hello\r\n"}, b"and welcome\r\n", "reply is longer than 262,144 bytes"),
        ({"CWD": b"200-yes\r\n"}, b"yes\r\n", "reply is longer than 262,144 bytes"),
        ({"MLSD": b"150 here\r\n"}, b"type=file; " + b"x" * 4000 + b"\r\n", "one directory in more than 1,000,000"),
        ({"MLSD": b"500 no\r\n", "LIST": b"150 here\r\n"}, b"total 5\r\n", "one directory in more than 1,000,000"),
        ({"MLSD": b"150 here\r\n"}, b"x" * 4000, "got more than 8192 bytes"),
    ],
    ids=["greeting", "reply", "MLSD", "LIST", "line"],
)
def test_an_ftp_server_without_end_is_given_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ftp: Callable[[dict[str, bytes], bytes], str],
    answers: dict[str, bytes],
    piece: bytes,
    reason: str,
) -> None:
    monkeypatch.setattr(bounds, "MAX_PAGE_BYTES", 1_000_000)
    url = ftp(answers, piece)
    failure = fetch(tmp_path, Input("/in", url=url, type=DIRECTORY), retries=0, timeout_s=300).failure
    assert reason in failure


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-rw-r--r-- 1 me  my group   12 Jan  1 10:00 a b", FtpEntry("a b", Kind.FILE, 12)),
        ("-rw-r--r--   12 Jan  1 10:00 a", FtpEntry("a", Kind.FILE, 12)),
        ("-rw-r--r-- 1 me 7 12 Jan  1 2020 a", FtpEntry("a", Kind.FILE, 12)),
    ],
)
def test_lines_are_read_whatever_stands_before_the_size(line: str, found: FtpEntry) -> None:
    assert parse_list(line) == found
