"""Files whose parts are too large to be held: sent straight from the file, here with parts of a few megabytes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from tesk.filer.plan import FilerSettings, OutputsPlan
from tesk.filer.schemes.s3 import parts as s3_parts
from tesk.tes import Input, Output
from tests.filer.cutting import relay
from tests.filer.faulty import Script, answer, faulty
from tests.filer.stores import Places, push, write
from tests.servers.s3 import S3

MIB = 1024 * 1024
PART = 5 * MIB


@pytest.fixture(autouse=True)
def straight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file above 4 MiB is such a file."""
    monkeypatch.setattr("tesk.filer.schemes.s3.scheme.MOST_HELD", 0)
    monkeypatch.setattr("tesk.filer.schemes.s3.odd.ONE_PUT", 4 * MIB)
    monkeypatch.setattr("tesk.filer.schemes.s3.parts.PART", PART)


def uploads_of(s3: S3, bucket: str) -> bytes:
    """What the store tells of uploads that are not complete."""
    return s3.ask("GET", f"/{bucket}", parameters={"uploads": ""})[2]


@pytest.mark.parametrize("name", ["big", "a\nb"])
@pytest.mark.parametrize("size", [PART, 2 * PART, 4 * PART + 123])
def test_each_byte_comes_to_its_place(places: Places, s3: S3, name: str, size: int) -> None:
    place, data = places["s3"], os.urandom(size)
    write(places.root, {"out": data})
    report = places.push(Output("/out", place.url(name)))
    assert report.ok, report.failure
    assert place.folder.joinpath(name).read_bytes() == data
    assert places.fetch(Input("/in", url=place.url(name))).ok
    assert (places.root / "in").read_bytes() == data
    assert b"<UploadId>" not in uploads_of(s3, urlsplit(place.url("")).netloc)


def test_a_part_that_is_cut_is_sent_again_alone(places: Places, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(4 * PART)
    write(places.root, {"out": data})
    with relay(urlsplit(s3.url).port or 0, after_bytes=2 * MIB, times=3) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{way.port}")
        report = places.push(Output("/out", places["s3"].url("cut")))
    assert report.ok, report.failure
    assert way.cuts == 3
    assert places["s3"].folder.joinpath("cut").read_bytes() == data


def test_a_completion_whose_answer_is_lost_was_one(places: Places, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(2 * PART)
    write(places.root, {"out": data})
    with relay(urlsplit(s3.url).port or 0, unanswered=b"<CompleteMultipartUpload>") as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{way.port}")
        report = places.push(Output("/out", places["s3"].url("lost")))
    assert report.ok, report.failure
    assert way.cuts == 1
    assert places["s3"].folder.joinpath("lost").read_bytes() == data


@pytest.mark.parametrize(("whole", "failure"), [("own", ""), ("0" * 32 + "-1", "not found (404)")])
def test_an_upload_that_is_gone_is_an_error_unless_its_object_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str, failure: str
) -> None:
    """The store forgets the upload with its completion, whose answer is lost."""
    write(tmp_path, {"root/f": b"x" * PART})
    part = "ab" * 16
    told = s3_parts.etag_of([part]) if whole == "own" else whole
    completed: list[bytes] = []
    lost = answer("404 Not Found", b"<Error><Code>NoSuchUpload</Code></Error>")
    script = _store(completed, lambda: b"" if len(completed) == 1 else lost, part=part, whole=told or "")

    with faulty(script) as server:
        _settle(monkeypatch, tmp_path, server.url)
        report = push(tmp_path / "root", Output("/f", "s3://lab/f"))
    assert len(completed) == 2
    assert report.ok if not failure else failure in report.failure


@pytest.mark.parametrize(
    ("etags", "whole"),
    [
        (['"d41d8cd98f00b204e9800998ecf8427e"'], "59adb24ef3cdbe0297f05b395827453f-1"),
        (["d41d8cd98f00b204e9800998ecf8427e", "x"], None),
    ],
)
def test_the_etag_of_an_object_in_parts(etags: list[str], whole: str | None) -> None:
    assert s3_parts.etag_of(etags) == whole


def test_a_refusal_ends_it_and_nothing_is_left_at_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second part is refused for good."""
    write(tmp_path, {"root/f": b"x" * 3 * PART})

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        line = head.partition(b"\r\n")[0]
        _body(connection, head)
        if line.startswith(b"POST"):
            connection.sendall(answer("200 OK", b"<R><UploadId>u1</UploadId></R>"))
        elif b"partNumber=2&" in line:
            connection.sendall(answer("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"))
        else:
            connection.sendall(answer("200 OK", b"", "ETag: x"))

    with faulty(script) as server:
        _settle(monkeypatch, tmp_path, server.url)
        failure = push(tmp_path / "root", Output("/f", "s3://lab/f")).failure
        lines = [head.partition(b"\r\n")[0] for head in server.requests]
    assert "access denied (403 AccessDenied) by http" in failure
    assert sum(line.startswith(b"DELETE /lab/f?uploadId=u1 ") for line in lines) == 1
    assert sum(line.startswith(b"POST") for line in lines) == 1, "it was begun once and never completed"


def test_an_error_that_comes_as_a_success_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 200 before it knows how the completion ends."""
    write(tmp_path, {"root/f": b"x" * PART})
    completed: list[bytes] = []

    def complete() -> bytes:
        return answer("200 OK", b"<Error><Code>InternalError</Code></Error>" if len(completed) == 1 else b"<R/>")

    script = _store(completed, complete, part="a&b")
    with faulty(script) as server:
        _settle(monkeypatch, tmp_path, server.url)
        report = push(tmp_path / "root", Output("/f", "s3://lab/f"))
    assert report.ok, report.failure
    assert completed == [completed[0]] * 2
    assert b'<PartNumber>1</PartNumber><ETag>"a&amp;b"</ETag>' in completed[0]


def _store(completed: list[bytes], complete: Callable[[], bytes], *, part: str, whole: str = "") -> Script:
    """Takes parts, and answers completions as told. `part`, `whole`: the ETags of each part and of the object."""

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        body = _body(connection, head)
        if b"?uploads" in head.partition(b"\r\n")[0]:
            connection.sendall(answer("200 OK", b"<R><UploadId>u1</UploadId></R>"))
        elif head.startswith(b"POST"):
            completed.append(body)
            connection.sendall(complete())
        else:
            connection.sendall(answer("200 OK", b"", f'ETag: "{whole if head[:4] == b"HEAD" else part}"'))

    return script


def _body(connection: socket.socket, head: bytes) -> bytes:
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    body = head.partition(b"\r\n\r\n")[2]
    while len(body) < length and (got := connection.recv(65536)):
        body += got
    return body


def _settle(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "HOME": str(home),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


MEASURED = """
import re, sys, msgspec, threading
from tesk.filer.main import run
from tesk.filer.plan import Plan
from tesk.filer.schemes.s3 import parts as s3_parts
from tesk.filer.schemes.s3 import scheme as s3
s3.MOST_HELD, s3_parts.PART = 0, 128 * 1024 * 1024
plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
ok = run(plan, lambda event: None, threading.Event())
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
sys.exit(not ok)
"""


def test_large_parts_take_no_memory(places: Places) -> None:
    with (places.root / "out").open("wb") as file:
        file.truncate(400 * MIB)
    plan = OutputsPlan(str(places.root), [Output("/out", places["s3"].url("big"))], FilerSettings())
    done = subprocess.run([sys.executable, "-c", MEASURED], input=msgspec.json.encode(plan), capture_output=True)
    assert done.returncode == 0, done
    assert places["s3"].folder.joinpath("big").stat().st_size == 400 * MIB
    places["s3"].folder.joinpath("big").unlink()
    assert int(done.stdout) < 64
