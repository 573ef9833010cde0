"""Directories over HTTP: by WebDAV and by index pages of real servers, and what no server may say."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tesk.filer.errors import TransferError
from tesk.filer.scheme import Entry
from tesk.filer.schemes.http.listing import from_dav, from_index
from tesk.tes import Input, Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import DIRECTORY, fetch, push, tree, write
from tests.servers.nginx import nginx

TREE: dict[str, bytes | None] = {
    "a": b"1",
    "two words": b"2",
    "100%": b"3",
    "%41": b"4",
    "é": b"5",
    "q'\"<&>": b"6",
    "line\nbreak": b"7",
    "#?;:@": b"8",
    "empty": None,
    "sub": None,
    "sub/deep er": None,
    "sub/deep er/日本": b"9",
    "sub/x..": b"10",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.retry.FIRST_DELAY_S", 0.01)


@pytest.fixture
def web(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    (tmp_path / "root").mkdir()
    return folder


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("listing", ["dav", "index"])
def test_a_directory_comes_in_whole(tmp_path: Path, web: Path, listing: str, slash: str) -> None:
    write(web / "d d", TREE)
    times = {"sub/deep er/日本": 1_000_000_000, "sub/deep er": 1_100_000_000, "sub": 1_200_000_000, ".": 1_300_000_000}
    for path, when in times.items():
        os.utime(web / "d d" / path, (when, when))
    with nginx(web, listing=listing) as url:
        report = fetch(tmp_path / "root", Input("/in", url=f"{url}/d%20d{slash}", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == TREE
    told = times if listing == "dav" else ["sub/deep er/日本"]
    assert {path: (tmp_path / "root/in" / path).stat().st_mtime for path in told} == {
        path: times[path] for path in told
    }


def test_thousands_of_entries_come_in(tmp_path: Path, web: Path) -> None:
    files: dict[str, bytes | None] = {f"{n:05}": b"%d" % n for n in range(3000)}
    write(web, files)
    with nginx(web, listing="dav") as url:
        report = fetch(tmp_path / "root", Input("/in", url=url, type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == files


def test_webdav_tells_a_file_from_a_directory(tmp_path: Path, web: Path) -> None:
    write(web, {"f": b"file"})
    with nginx(web, listing="dav") as url:
        report = fetch(tmp_path / "root", Input("/in/f", url=f"{url}/f", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == {"f": b"file"}


@pytest.fixture
def pages(web: Path) -> Iterator[str]:
    """Python's own server: index pages in another style, and neither ranges nor WebDAV."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_index_pages_of_another_server_are_read_alike(tmp_path: Path, web: Path, pages: str) -> None:
    write(web / "d", TREE)
    report = fetch(tmp_path / "root", Input("/in", url=f"{pages}/d", type=DIRECTORY))
    assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == TREE


def test_a_server_that_lists_nothing_is_a_clear_error(tmp_path: Path, web: Path) -> None:
    write(web, {"d/index.html": b"<h1>Welcome</h1><a href='f'>f</a>", "e/f": b""})
    with nginx(web) as url:
        root = tmp_path / "root"
        failure = fetch(root, Input("/in", url=f"{url}/d", type=DIRECTORY)).failure
        assert "a page that is no index of a directory" in failure
        assert "access denied (403)" in fetch(root, Input("/in", url=f"{url}/e", type=DIRECTORY)).failure
        assert "not found (404)" in fetch(root, Input("/in", url=f"{url}/none", type=DIRECTORY)).failure


def test_empty_directories_go_out_to_webdav(tmp_path: Path, web: Path) -> None:
    write(tmp_path / "root/d", {"empty": None, "full": None, "full/f": b""})
    with nginx(web) as url:
        report = push(tmp_path / "root", Output("/d", f"{url}/new/d", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(web / "new/d") == {"empty": None, "full": None, "full/f": b""}


def page(*links: str, title: str = "Index of /d") -> str:
    body = "".join(f'<a href="{link}">x</a>' for link in links)
    return f"<html><head><title>{title}</title></head><body>{body}</body></html>"


HERE = "http://h/up/d/"


@pytest.mark.parametrize(
    ("links", "entries"),
    [
        (["a", "b/"], [Entry("a", False), Entry("b", True)]),
        (["?C=N;O=D", "../", "/up/", "/", "", "#top"], []),  # what Apache and nginx have besides
        (["/up/d/a", "http://h/up/d/b", "./c:d"], [Entry("a", False), Entry("b", False), Entry("c:d", False)]),
        (["https://elsewhere/x", "mailto:me@h"], []),
        (["a&amp;b", "%26%2523", "a", "a"], [Entry("a&b", False), Entry("&%23", False), Entry("a", False)]),
    ],
)
def test_an_index_page_lists_its_links_to_one_name(links: list[str], entries: list[Entry]) -> None:
    assert from_index(page(*links), HERE) == entries


@pytest.mark.parametrize("link", ["../x", "/etc/passwd", "a/b", "..%2Fx", "%2e%2e%2fx", "a%2Fb", "a%00", "../../x/"])
def test_an_index_page_that_leads_elsewhere_is_refused(link: str) -> None:
    with pytest.raises(TransferError):
        from_index(page("a", link), HERE)


def dav(*hrefs: str) -> bytes:
    kind = "<D:propstat><D:prop><D:resourcetype>{}</D:resourcetype></D:prop></D:propstat>"
    one = "<D:response><D:href>{}</D:href>" + kind + "</D:response>"
    entries = "".join(one.format(href, "<D:collection/>" if href.endswith("/") else "") for href in hrefs)
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{entries}</D:multistatus>'.encode()


def test_a_webdav_answer_may_name_things_by_path_or_url() -> None:
    itself, found = from_dav(dav("/up/d/", "/up/d/a%20b", "http://h/up/d/c/"), HERE)
    assert (itself, found) == (Entry("", True), [Entry("a b", False), Entry("c", True)])


@pytest.mark.parametrize("href", ["/up/x", "/up/d/a/b", "/up/d/..%2Fx", "/up/d/../../x", "/up/d/a%2F..%2Fb"])
def test_a_webdav_answer_that_leads_elsewhere_is_refused(href: str) -> None:
    with pytest.raises(TransferError):
        from_dav(dav("/up/d/", href), HERE)


@pytest.mark.parametrize("body", [b"", b"<a>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_a_webdav_answer_that_is_no_plain_xml_is_refused(body: bytes) -> None:
    with pytest.raises(TransferError):
        from_dav(body, HERE)


@pytest.mark.parametrize(
    ("found", "kind", "body"),
    [
        ("405 Method Not Allowed", "text/html", page(*(f"f{n}" for n in range(10))).encode()),
        ("207 Multi-Status", "text/xml", dav("/d/", *(f"/d/f{n}" for n in range(10)))),
    ],
    ids=["index", "dav"],
)
def test_a_listing_that_was_cut_is_asked_for_again(tmp_path: Path, found: str, kind: str, body: bytes) -> None:
    cuts = 1

    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        nonlocal cuts
        method, path = head.split(b" ")[:2]
        if path != b"/d/":
            connection.sendall(answer("200 OK", path))
        elif method == b"PROPFIND" and (found.startswith("405") or b"Depth: 0" in head):
            connection.sendall(answer(found, dav("/d/")))
        else:
            sent = body[: len(body) // 2] if cuts else body
            cuts = 0
            status = found if method == b"PROPFIND" else "200 OK"
            connection.sendall(answer(status, sent, f"Content-Type: {kind}", length=len(body)))

    with faulty(script) as server:
        report = fetch(tmp_path, Input("/in", url=f"{server.url}/d/", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "in") == {f"f{n}": b"/d/f%d" % n for n in range(10)}
    assert not cuts


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_webdav_server_that_is_busy_is_asked_again(tmp_path: Path, status: str) -> None:
    """Its index page, which shows no hidden files, is not read in its place."""
    busy = 1

    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        nonlocal busy
        if not head.startswith(b"PROPFIND"):
            body = page("a").encode() if head.startswith(b"GET /d/ ") else b"x"
            connection.sendall(answer("200 OK", body, "Content-Type: text/html"))
        elif busy and b"Depth: 1" in head:
            busy = 0
            connection.sendall(answer(status))
        else:
            connection.sendall(answer("207 Multi-Status", dav("/d/", "/d/.hidden", "/d/a")))

    with faulty(script) as server:
        report = fetch(tmp_path, Input("/in", url=f"{server.url}/d/", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "in") == {".hidden": b"x", "a": b"x"}
    assert not busy


def test_a_busy_webdav_server_is_asked_again_what_a_file_is(tmp_path: Path) -> None:
    def script(connection: socket.socket, number: int, head: bytes) -> None:
        told = answer("207 Multi-Status", dav("/f")) if head.startswith(b"PROPFIND") else answer("200 OK", b"x")
        connection.sendall(told if number else answer("503 Service Unavailable"))

    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path) == {"f": b"x"}


@pytest.mark.parametrize(
    ("status", "tries", "reason"),
    [
        ("429 Too Many Requests", 2, "too many requests (429)"),
        ("503 Service Unavailable", 2, "service unavailable (503)"),
        ("507 Insufficient Storage", 2, "insufficient storage (507)"),
        ("401 Unauthorized", 1, "access denied (401)"),
        ("302 Found", 1, "found (302)"),
        ("405 Method Not Allowed", 1, ""),  # it is there, or the server has no directories
        ("403 Forbidden", 1, ""),
    ],
)
def test_a_directory_that_a_server_refuses_is_told(tmp_path: Path, status: str, tries: int, reason: str) -> None:
    write(tmp_path, {"d": None})
    with faulty(lambda c, _n, _h: c.sendall(answer(status))) as server:
        report = push(tmp_path, Output("/d", f"{server.url}/d", type=DIRECTORY), retries=1)
        assert report.ok if not reason else f"{reason} by {server.url} after" in report.failure
    assert [head.split(b" ")[0] for head in server.requests] == [b"MKCOL"] * tries


def test_directories_are_made_whatever_was_answered_for_others(tmp_path: Path) -> None:
    """A server may forbid one of them."""
    write(tmp_path / "root/d", {"a": None, "b": None, "c": None})
    asked = []

    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        asked.append(head.split(b" ")[1])
        connection.sendall(answer("403 Forbidden" if len(asked) == 1 else "201 Created"))

    with faulty(script) as server:
        report = push(tmp_path / "root", Output("/d", f"{server.url}/d", type=DIRECTORY), concurrency=1)
        assert report.ok, report.failure
    assert sorted(asked) == [b"/d/a/", b"/d/b/", b"/d/c/"]


@pytest.mark.parametrize("source", ["credentials", "netrc"])
def test_parents_are_made_with_the_login_of_the_file(
    tmp_path: Path, web: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "root", {"f": b"x", "empty": None})
    with nginx(web, user="me", password="pw-of-the-store", make_parents=False) as login_url:
        url = login_url.replace("me:pw-of-the-store@", "")
        if source == "credentials":
            (tmp_path / "stores.toml").write_text(f'["{url}"]\nuser = "me"\npassword = "pw-of-the-store"\n')
        else:
            (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pw-of-the-store\n")
            monkeypatch.setenv("HOME", str(tmp_path))
            (tmp_path / "stores.toml").write_text("")
        report = push(
            tmp_path / "root",
            Output("/f", f"{url}/new/er/f"),
            Output("/empty", f"{url}/other/d", type=DIRECTORY),
            credentials=(str(tmp_path / "stores.toml"),),
        )
        assert report.ok, report.failure
    assert tree(web) == {"new": None, "new/er": None, "new/er/f": b"x", "other": None, "other/d": None}


def test_a_parent_that_may_not_be_made_is_told(tmp_path: Path) -> None:
    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        denied = head.startswith(b"MKCOL /a/b/")
        connection.sendall(answer("403 Forbidden" if denied else "409 Conflict"))

    write(tmp_path, {"f": b""})
    with faulty(script) as server:
        failure = push(tmp_path, Output("/f", f"{server.url}/a/b/f"), retries=3).failure
    assert f"access denied (403) by {server.url} after 1 try" in failure


def test_an_upload_that_broke_for_a_moment_is_not_told_as_a_denied_directory(tmp_path: Path) -> None:
    """A store that knows no directories answered 500, as nginx does where a parent is missing."""
    puts = 0

    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        nonlocal puts
        puts += head.startswith(b"PUT")
        broken = "500 Internal Server Error" if puts < 3 else "201 Created"
        connection.sendall(answer("403 Forbidden" if head.startswith(b"MKCOL") else broken))

    write(tmp_path, {"f": b""})
    with faulty(script) as server:
        report = push(tmp_path, Output("/f", f"{server.url}/a/f"))
        assert report.ok, report.failure


def test_a_tree_that_never_ends_is_given_up(tmp_path: Path) -> None:
    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        path = head.split(b" ")[1].decode().rstrip("/")
        connection.sendall(answer("207 Multi-Status", dav(f"{path}/", f"{path}/a/")))

    with faulty(script) as server:
        failure = fetch(tmp_path, Input("/in", url=f"{server.url}/d", type=DIRECTORY)).failure
    assert "nested deeper than 200" in failure
