"""Large files over HTTP in parts, cut ones that go on, and the checksums that servers tell."""

import base64
import hashlib
import random
import re
import socket
from email.message import Message
from pathlib import Path

import pytest

from tesk.filer.checksums import Checksum
from tesk.filer.download import LEAST_PART, MOST_PART, cut
from tesk.filer.plan import Progress
from tesk.filer.wire import http_headers
from tesk.tes import Input, Output
from tests.filer.faulty import Versioned, answer, faulty
from tests.filer.stores import fetch, push, tree, write
from tests.servers.nginx import nginx

PART = 100_000
CONTENT = random.Random(5).randbytes(1_234_567)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.download.LEAST_PART", PART)
    monkeypatch.setattr("tesk.filer.retry.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("tesk.filer.retry.WORTH_BYTES", 1000)


def test_a_large_file_comes_in_parts(tmp_path: Path) -> None:
    script = Versioned(CONTENT)
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"))
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT
    whole, *parts = sorted(script.spans)
    assert whole == (0, len(CONTENT))
    assert parts == cut(len(CONTENT), 8)[1:]
    assert all(b"If-Range: " in head for head in server.requests if b"Range: bytes" in head)


def test_parts_and_pieces_of_a_real_server_are_exact(tmp_path: Path) -> None:
    write(tmp_path / "web", {"f": CONTENT})
    with nginx(tmp_path / "web") as url:
        report = fetch(tmp_path, Input("/root/f", url=f"{url}/f"), Input("/root/g", url=f"{url}/f?other"))
        assert report.ok, report.failure
    assert tree(tmp_path / "root") == {"f": CONTENT, "g": CONTENT}


@pytest.mark.parametrize("concurrency", [1, 8], ids=["whole", "parts"])
def test_a_cut_file_goes_on_where_it_was(tmp_path: Path, concurrency: int) -> None:
    """Every answer is cut after 30 kB, many more times than there are retries."""
    script = Versioned(CONTENT, lambda _, whole: whole[:30_000])
    script.headers = ("Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT",)
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), concurrency=concurrency, retries=2)
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert (tmp_path / "f").stat().st_mtime == 1_000_000_000
    assert len(script.spans) > len(CONTENT) // 30_000
    assert len({begin for begin, _ in script.spans}) >= len(script.spans) - 1


def test_a_stalled_file_goes_on_where_it_was(tmp_path: Path) -> None:
    """Each answer to a request for the whole file stalls: the first byte of one may itself be late."""
    partly = Versioned(CONTENT, lambda _, whole: whole[:600_000])
    rest = Versioned(CONTENT)

    def script(connection: socket.socket, number: int, head: bytes) -> None:
        if b"\r\nRange: " in head:
            rest(connection, number, head)
        else:
            partly(connection, number, head)
            connection.recv(1)

    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), concurrency=1, timeout_s=1, retries=10)
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert {end for _, end in (*partly.spans, *rest.spans)} == {len(CONTENT)}
    assert 0 < rest.spans[0][0] < 600_000


def test_a_file_that_changes_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    newer = CONTENT[::-1]
    script = Versioned(CONTENT, newer=newer, changes_at=2)
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"))
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == newer


@pytest.mark.parametrize("concurrency", [1, 8], ids=["whole", "parts"])
def test_a_date_is_compared_where_a_server_does_not_heed_it(tmp_path: Path, concurrency: int) -> None:
    """No ETag, and If-Range is ignored: the file was replaced by one of the same size after the first answer."""
    older, newer = "Wed, 01 Jan 2020 00:00:00 GMT", "Thu, 02 Jan 2020 00:00:00 GMT"

    def script(connection: socket.socket, number: int, head: bytes) -> None:
        content, changed = (CONTENT[::-1], newer) if number else (CONTENT, older)
        more = [f"Last-Modified: {changed}", f"Date: {NOW}", "Accept-Ranges: bytes"]
        begin, end, status = 0, len(content), "200 OK"
        if asked := re.search(rb"Range: bytes=(\d+)-(\d+)", head):
            begin, end, status = int(asked[1]), int(asked[2]) + 1, "206 Partial Content"
            more.append(f"Content-Range: bytes {begin}-{end - 1}/{len(content)}")
        whole = answer(status, content[begin:end], *more)
        connection.sendall(whole if number else whole[: len(whole) // 2])

    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), concurrency=concurrency)
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]


def test_mirrors_that_number_versions_differently_do_no_harm(tmp_path: Path) -> None:
    def spoil(number: int, whole: bytes) -> bytes:
        script.etag = f'"{number}"'
        return whole

    script = Versioned(CONTENT, spoil)
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"))
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_server_that_gives_another_part_than_asked_for_is_read_whole(tmp_path: Path) -> None:
    script = Versioned(CONTENT, lambda _, whole: whole.replace(b"Content-Range: bytes ", b"Content-Range: bytes 1"))
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"))
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_progress_counts_each_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.step.PROGRESS_INTERVAL_S", 0)
    script = Versioned(CONTENT, lambda n, whole: whole if n % 2 else whole[:50_000])
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), Input("/g", url=f"{server.url}/f"))
        assert report.ok, report.failure
    told = [event for event in report.events if isinstance(event, Progress)]
    assert told[-1] == Progress(2 * len(CONTENT), 2, 2 * len(CONTENT), 2)
    assert max(event.bytes_done for event in told) == 2 * len(CONTENT)


MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
SHA256 = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
WRONG = base64.b64encode(bytes(16)).decode()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (f"Content-MD5: {MD5}", f"Content-MD5: {WRONG}"),
        (f"Digest: adler32=1, MD5={MD5}", f"Digest: md5={WRONG}"),
        (f"Repr-Digest: sha-256=:{SHA256}:", f"Repr-Digest: sha-256=:{WRONG}:"),
        (f"x-goog-hash: crc64=AAAAAA==,md5={MD5}", f"x-goog-hash: md5={WRONG}"),
        (f"x-amz-checksum-sha256: {SHA256}", "x-amz-checksum-crc32: AAAAAA=="),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 8], ids=["whole", "parts"])
def test_what_the_server_says_of_the_bytes_is_checked(tmp_path: Path, right: str, wrong: str, concurrency: int) -> None:
    script = Versioned(CONTENT)
    with faulty(script) as server:
        script.headers = (right,)
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), concurrency=concurrency)
        assert report.ok, report.failure
        script.headers = (wrong,)
        failure = fetch(tmp_path, Input("/g", url=f"{server.url}/f"), concurrency=concurrency).failure
        assert f"input {server.url}/f: the bytes that arrived have the " in failure
        assert "check the store: the file or its checksum is damaged" in failure
    assert tree(tmp_path) == {"f": CONTENT}


def test_bytes_that_were_damaged_on_their_way_are_fetched_again(tmp_path: Path) -> None:
    def spoil(number: int, whole: bytes) -> bytes:
        return whole if number else whole[:-1] + bytes([whole[-1] ^ 1])

    script = Versioned(CONTENT, spoil)
    script.headers = (f"Content-MD5: {MD5}",)
    with faulty(script) as server:
        report = fetch(tmp_path, Input("/f", url=f"{server.url}/f"), concurrency=1)
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_store_that_tells_another_checksum_of_what_it_got_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"f": b""})
    with faulty(lambda c, _n, _h: c.sendall(answer("200 OK", b"", f"x-goog-hash: md5={WRONG}"))) as server:
        failure = push(tmp_path, Output("/f", f"{server.url}/f"), retries=1).failure
    assert f"the bytes at {server.url} have the md5 d41d8cd98f00b204e9800998ecf8427e" in failure


@pytest.mark.parametrize(
    ("size", "workers", "bounds"),
    [
        (0, 8, [(0, 0)]),
        (2 * PART - 1, 8, [(0, 2 * PART - 1)]),
        (2 * PART + 1, 8, [(0, PART), (PART, 2 * PART), (2 * PART, 2 * PART + 1)]),
        (10 * PART, 1, [(0, 10 * PART)]),
    ],
)
def test_files_are_cut_into_parts_worth_a_request(size: int, workers: int, bounds: list[tuple[int, int]]) -> None:
    assert cut(size, workers) == bounds
    assert max(end - begin for begin, end in cut(10**13, 8)) == MOST_PART > LEAST_PART


def head(*lines: str) -> Message:
    message = Message()
    for line in lines:
        name, _, value = line.partition(": ")
        message[name] = value
    return message


OLD, NOW = "Wed, 01 Jan 2025 00:00:00 GMT", "Wed, 01 Jan 2025 00:00:30 GMT"


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        (['ETag: "a"'], '"a"'),
        (['ETag: W/"a"'], ""),
        ([f"Last-Modified: {OLD}", f"Date: {NOW}"], ""),  # it may have changed again within that second
        ([f"Last-Modified: {OLD}", "Date: Wed, 01 Jan 2025 00:01:00 GMT"], OLD),
        ([f"Last-Modified: {OLD}"], ""),
        (["Last-Modified: yesterday", f"Date: {NOW}"], ""),
        ([], ""),
    ],
)
def test_only_what_stands_for_the_very_bytes_is_a_version(lines: list[str], version: str) -> None:
    assert http_headers.version(head(*lines)) == version


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["Content-MD5: not base64!"], []),
        (["x-goog-hash: md5=AAAA", "x-goog-stored-content-encoding: gzip"], []),  # of the compressed bytes
        (["x-amz-checksum-crc32: AAAAAA==-3"], []),  # of the parts' checksums
        (["Digest: SHA=AAAA,unixsum=1"], [Checksum("sha1", b"\0\0\0")]),
    ],
)
def test_checksums_of_other_things_are_left_alone(lines: list[str], told: list[Checksum]) -> None:
    assert http_headers.checksums(head(*lines)) == told


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7), (NOW, 30), (OLD, 0), ("", 0), ("soon", 0), ("-1", 0), ("Wed, 01 Jan 1925 00:00:00 GMT", 0)],
)
def test_retry_after_is_a_number_or_a_date(asked: str, seconds: float) -> None:
    assert http_headers.wait_s(head(f"Retry-After: {asked}"), 1735689600) == seconds
