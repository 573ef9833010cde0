"""Servers that stall, cut, lie, refuse and send in circles: each transfer ends right, in bounded time."""

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tesk.filer.plan import FilerSettings, InputsPlan
from tesk.filer.streams import Source
from tesk.tes import Input, Output
from tests.filer.faulty import Script, Versioned, answer, faulty
from tests.filer.stores import DIRECTORY, Places, carry_out, fetch, push, tree, write

GOOD = answer("200 OK", b"the bytes")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.retry.FIRST_DELAY_S", 0.01)


def after(bad: int, first: bytes, then: bytes = GOOD) -> Script:
    """Answers `first` to that many requests, `then` to the others."""

    def script(connection: socket.socket, number: int, _: bytes) -> None:
        connection.sendall(first if number < bad else then)

    return script


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "bad"),
    [
        (answer("503 Service Unavailable", b"busy"), 3),
        (answer("500 Internal Server Error"), 2),
        (answer("408 Request Timeout"), 1),
        (answer("429 Too Many Requests", b"", "Retry-After: 0"), 2),
        (answer("200 OK", b"the by", length=9), 2),  # cut, against its Content-Length
        (answer("200 OK", b"", length=9), 1),
        (CHUNKED + b"9\r\nthe by", 1),
        (b"", 2),  # hangs up without a word
        (b"HTTP/1.1 200 OK\r\nContent-Le", 1),
        (b"SSH-2.0-OpenSSH_9\r\n", 1),
    ],
    ids=["503", "500", "408", "429", "cut", "empty", "chunk", "hangs-up", "half-head", "not-http"],
)
def test_what_may_pass_is_tried_again(tmp_path: Path, first: bytes, bad: int) -> None:
    with faulty(after(bad, first)) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), retries=3)
    assert report.ok, report.failure
    assert tree(tmp_path) == {"f": b"the bytes"}
    assert len(server.requests) == bad + 1


def test_tries_end_and_are_counted(tmp_path: Path) -> None:
    with faulty(after(99, answer("503 Service Unavailable"))) as server:
        failure = fetch(tmp_path, Input("/f", url=f"{server.url}/f?key=1"), retries=2).failure
        assert failure == (
            f"input {server.url}/f?…: service unavailable (503) by {server.url} after 3 tries; check the server"
        )
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("401 Unauthorized", "access denied (401)"),
        ("403 Forbidden", "access denied (403)"),
        ("404 Not Found", "not found (404)"),
        ("410 Gone", "not found (410)"),
        ("400 Bad Request", "bad request (400)"),
        ("204 No Content", "no content (204)"),
        ("206 Partial Content", "partial content (206)"),
        ("501 Not Implemented", "not implemented (501)"),
    ],
)
def test_what_will_not_pass_ends_at_once(tmp_path: Path, status: str, said: str) -> None:
    with faulty(after(99, answer(status))) as server:
        failure = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), retries=5).failure
        assert f"{said} by {server.url} after 1 try" in failure
        assert len(server.requests) == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthe "], ids=["silence", "middle"])
def test_a_stalled_connection_is_cut_and_tried_again(tmp_path: Path, sent: bytes) -> None:
    def script(connection: socket.socket, number: int, _: bytes) -> None:
        connection.sendall(sent if number < 1 else GOOD)
        if number < 1:
            connection.recv(1)

    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), timeout_s=2, retries=10)
        assert report.ok, report.failure
        assert tree(tmp_path) == {"f": b"the bytes"}


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    def script(connection: socket.socket, _n: int, _h: bytes) -> None:
        connection.recv(1)

    with faulty(script) as server:
        failure = fetch(tmp_path, Input("/g", url=f"{server.url}/g"), timeout_s=0.2, retries=1).failure
        assert f"{server.url} sent nothing for 0.2 s after 2 tries" in failure


def test_the_wait_that_a_server_asks_for_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def delay(tries: int, asked_s: float, chance: float) -> float:
        waits.append(asked_s)
        return 0.0

    monkeypatch.setattr("tesk.filer.retry.delay_s", delay)
    with faulty(after(2, answer("429 Too Many Requests", b"", "Retry-After: 7"))) as server:
        assert fetch(tmp_path, Input("/f", url=f"{server.url}/f")).ok
    assert waits == [7, 7]


def test_redirects_are_followed_and_bounded(tmp_path: Path) -> None:
    with faulty(after(3, answer("302 Found", b"elsewhere", "Location: /next"))) as server:
        assert fetch(tmp_path, Input("/f", url=f"{server.url}/f")).ok
        assert tree(tmp_path) == {"f": b"the bytes"}
    with faulty(after(99, answer("307 Temporary Redirect", b"", "Location: /again"))) as server:
        failure = fetch(tmp_path, Input("/f", url=f"{server.url}/f")).failure
        assert f"{server.url} redirects more than 10 times after 1 try" in failure
        assert len(server.requests) == 11


def test_a_redirect_to_another_kind_of_url_is_refused(tmp_path: Path) -> None:
    with faulty(after(99, answer("302 Found", b"", "Location: file:///etc/passwd"))) as server:
        failure = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), file_roots=("/etc",)).failure
    assert "not an http or https URL" in failure


def test_credentials_go_to_their_own_host_only(tmp_path: Path) -> None:
    with faulty(after(0, b"")) as other:

        def script(connection: socket.socket, number: int, _: bytes) -> None:
            where = "/here" if number == 0 else f"{other.url}/there"
            connection.sendall(answer("302 Found", b"", f"Location: {where}"))

        with faulty(script) as server:
            url = server.url.replace("://", "://m%C3%A9:p%40ss@")
            assert fetch(tmp_path, Input("/f", url=f"{url}/f")).ok
    basic = b"Authorization: Basic bcOpOnBAc3M="
    assert [basic in head for head in server.requests] == [True, True]
    assert b"Authorization" not in other.requests[0]


def test_bytes_are_taken_as_they_are_sent(tmp_path: Path) -> None:
    squeezed = b"\x1f\x8b\x08\x00squeezed"
    with faulty(after(0, b"", answer("200 OK", squeezed, "Content-Encoding: gzip"))) as server:
        assert fetch(tmp_path, Input("/f", url=f"{server.url}/a b%20c?q=ä b#frag")).ok
    assert tree(tmp_path) == {"f": squeezed}
    assert server.requests[0].startswith(b"GET /a%20b%20c?q=%C3%A4%20b HTTP/1.1\r\n")
    assert b"Accept-Encoding: identity\r\n" in server.requests[0]


def test_a_refused_upload_tells_the_answer_and_not_the_broken_pipe(tmp_path: Path) -> None:
    write(tmp_path, {"f": b"x" * 30_000_000})
    with faulty(after(99, answer("413 Content Too Large"))) as server:
        failure = push(tmp_path, Output("/f", f"{server.url}/f"), retries=0).failure
    assert "413" in failure or "broke" in failure


def receiving(reply: Callable[[int, bytes], bytes]) -> tuple[Script, list[bytes]]:
    bodies: list[bytes] = []

    def script(connection: socket.socket, number: int, head: bytes) -> None:
        start, _, body = head.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in start.split(b"\r\n") if line.startswith(b"Content-Length"))
        while len(body) < length:
            body += connection.recv(65536)
        bodies.append(body)
        connection.sendall(reply(number, start))

    return script, bodies


def test_an_upload_is_sent_whole_again_after_a_passing_error(tmp_path: Path) -> None:
    write(tmp_path, {"f": b"x" * 3_000_000})
    script, bodies = receiving(lambda n, _: answer("503 Service Unavailable" if n < 2 else "201 Created"))
    with faulty(script) as server:
        report = push(tmp_path, Output("/f", f"{server.url}/f"))
    assert report.ok, report.failure
    assert [len(body) for body in bodies] == [3_000_000] * 3
    assert report.pushed["/f"].size_bytes == 3_000_000


def test_an_upload_follows_only_redirects_that_keep_the_method(tmp_path: Path) -> None:
    write(tmp_path, {"f": b"x"})
    script, bodies = receiving(
        lambda n, _: answer("307 Temporary Redirect", b"", "Location: /b") if n < 1 else answer("201 Created")
    )
    with faulty(script) as server:
        assert push(tmp_path, Output("/f", f"{server.url}/f")).ok
        assert server.requests[1].startswith(b"PUT /b ")
    assert bodies == [b"x", b"x"]
    script, bodies = receiving(lambda _n, _h: answer("302 Found", b"", "Location: /b"))
    with faulty(script) as server:
        assert "found (302)" in push(tmp_path, Output("/f", f"{server.url}/f")).failure
    assert len(bodies) == 1


def test_stopping_cuts_a_stalled_transfer(tmp_path: Path) -> None:
    stop = threading.Event()

    def script(connection: socket.socket, _n: int, _h: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthe ")
        stop.set()
        connection.recv(1)

    with faulty(script) as server:
        plan = InputsPlan(str(tmp_path), [Input("/f", url=f"{server.url}/f")], settings=FilerSettings(timeout_s=3600))
        assert carry_out(plan, stop).failure == "the transfer was stopped"
    assert tree(tmp_path) == {}


LISTING = """<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>lab</Name><Prefix>d/</Prefix>
<KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{}</ListBucketResult>"""
LISTED = """<Contents><Key>{}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>
<ETag>x</ETag><Size>1</Size></Contents>"""


def s3_lists(*keys: str) -> Script:
    body = LISTING.format("".join(LISTED.format(key) for key in keys)).encode()

    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        listing = b"list-type=2" in head.partition(b"\r\n")[0]
        connection.sendall(answer("200 OK", body) if listing else answer("404 Not Found"))

    return script


@pytest.fixture
def s3_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    def point(url: str) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")

    return point


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (("d/a", "d/a/b"), "'a' and 'a/b' collide"),
        (("d/a", "d/../../x"), ".."),
        (("d/a", "d//x"), "empty path segment"),
    ],
)
def test_an_s3_listing_that_is_no_tree_is_refused(
    tmp_path: Path, s3_at: Callable[[str], None], keys: tuple[str, ...], reason: str
) -> None:
    with faulty(s3_lists(*keys)) as server:
        s3_at(server.url)
        report = fetch(tmp_path, Input("/in", url="s3://lab/d", type=DIRECTORY), retries=0)
    assert report.failure.startswith("input s3://lab/d: ")
    assert reason in report.failure
    assert tree(tmp_path) == {}


def test_s3_slow_down_is_tried_again_and_then_told(tmp_path: Path, s3_at: Callable[[str], None]) -> None:
    slow = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    with faulty(after(99, answer("503 Slow Down", slow))) as server:
        s3_at(server.url)
        failure = fetch(tmp_path, Input("/f", url="s3://lab/f"), retries=1).failure
        assert f"(503) by {server.url} after 2 tries" in failure
        assert len(server.requests) == 2
        assert "very-secret" not in failure


def test_s3_access_denied_names_the_key_to_check(tmp_path: Path, s3_at: Callable[[str], None]) -> None:
    with faulty(after(99, answer("403 Forbidden"))) as server:
        s3_at(server.url)
        assert fetch(tmp_path, Input("/f", url="s3://lab/reads.bam")).failure == (
            f"input s3://lab/reads.bam: access denied (403) by {server.url} after 1 try; "
            'check the key configured for "s3://lab"'
        )
        assert len(server.requests) == 1


def test_an_s3_body_that_stalls_is_cut(tmp_path: Path, s3_at: Callable[[str], None]) -> None:
    meta = ("ETag: x", "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT")

    def script(connection: socket.socket, _n: int, head: bytes) -> None:
        if head.startswith(b"HEAD"):
            connection.sendall(answer("200 OK", b"", *meta, length=9))
            return
        connection.sendall(answer("200 OK", b"the ", *meta, length=9))
        connection.recv(1)

    with faulty(script) as server:
        s3_at(server.url)
        failure = fetch(tmp_path, Input("/f", url="s3://lab/f"), retries=1, timeout_s=0.3).failure
    assert failure.startswith("input s3://lab/f: ")
    assert tree(tmp_path) == {}


def test_an_s3_upload_that_is_broken_off_leaves_nothing(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file becomes shorter while it is read, after some parts went out."""
    big = places.root / "big"
    big.touch()
    os.truncate(big, 40_000_000)
    read = Source.read

    def shrinking(self: Source, n_bytes: int = -1) -> bytes:
        if self.position > 20_000_000:
            os.truncate(big, 1_000)
        return read(self, n_bytes)

    monkeypatch.setattr(Source, "read", shrinking)
    failure = places.push(Output("/big", places["s3"].url("big"))).failure
    assert "the file became shorter while it was read" in failure
    assert tree(places["s3"].folder) == {}


CONTENT = bytes(range(256)) * 40_000
META = ("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",)


def test_an_s3_object_comes_in_parts_and_changes_meanwhile(
    tmp_path: Path, s3_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tesk.filer.download.LEAST_PART", 1_000_000)

    script = Versioned(CONTENT, newer=CONTENT[::-1], changes_at=3)
    script.headers = META
    with faulty(script) as server:
        s3_at(server.url)
        report = fetch(tmp_path, Input("/f", url="s3://lab/f"))
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]
    assert len(script.spans) > 3


@pytest.mark.parametrize(
    ("encryption", "etag", "ok"),
    [
        ("", hashlib.md5(CONTENT).hexdigest(), True),
        ("", "0" * 32, False),
        ("", f"{'0' * 32}-3", True),  # of parts
        ("x-amz-server-side-encryption: AES256", "0" * 32, False),
        ("x-amz-server-side-encryption: aws:kms", "0" * 32, True),
        ("x-amz-server-side-encryption-customer-algorithm: AES256", "0" * 32, True),
    ],
)
def test_an_s3_object_is_compared_with_its_etag_where_that_is_an_md5(
    tmp_path: Path, s3_at: Callable[[str], None], encryption: str, etag: str, ok: bool
) -> None:
    script = Versioned(CONTENT)
    script.etag, script.headers = f'"{etag}"', (*META, *filter(None, [encryption]))
    with faulty(script) as server:
        s3_at(server.url)
        report = fetch(tmp_path, Input("/f", url="s3://lab/f"))
        assert report.ok == ok, report.events
    if not ok:
        assert f"md5 {hashlib.md5(CONTENT).hexdigest()}, the store says {'0' * 32}" in report.failure
