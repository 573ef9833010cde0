"""Directories over HTTP: by WebDAV and by index pages of real servers, and what no server may say."""

import http.server
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tesk.filer.errors import TransferError
from tesk.filer.schemes import Entry
from tesk.filer.schemes.http_listing import from_dav, from_index
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
    with nginx(web, listing=listing) as url:
        report = fetch(tmp_path / "root", Input("/in", url=f"{url}/d%20d{slash}", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == TREE


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


def test_a_tree_that_never_ends_is_given_up(tmp_path: Path) -> None:
    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        path = head.split(b" ")[1].decode().rstrip("/")
        connection.sendall(answer("207 Multi-Status", dav(f"{path}/", f"{path}/a/")))

    with faulty(script) as server:
        failure = fetch(tmp_path, Input("/in", url=f"{server.url}/d", type=DIRECTORY)).failure
    assert "nested deeper than 200" in failure
