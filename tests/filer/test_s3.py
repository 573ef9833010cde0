"""What S3 tells of its objects beside their ETags, and what is signed by us and not by obstore."""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tesk.filer.checksums import HASHES
from tesk.filer.errors import TransferError
from tesk.filer.schemes.s3.odd import read_page
from tesk.tes import FileType, Input, Output
from tests.filer.faulty import Versioned, answer, faulty
from tests.filer.stores import DIRECTORY, FILE, Places, fetch, push, tree, write
from tests.servers.s3 import S3

PARTS = [b"a" * 5 * 1024 * 1024, b"b" * 1000]


def crc(algorithm: str, data: bytes) -> str:
    state = HASHES[algorithm.lower()]()
    state.update(data)
    return base64.b64encode(state.digest()).decode()


@pytest.mark.parametrize(
    ("algorithm", "check"), [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_checksums_are_those_of_the_catalogues(algorithm: str, check: str) -> None:
    for parts in ((b"123456789",), (b"1234", bytearray(b"56789")), (b"", memoryview(b"123456789"), b"")):
        state = HASHES[algorithm]()
        for part in parts:
            state.update(part)
        assert state.digest().hex() == check


def in_parts(s3: S3, path: str, kind: str, algorithm: str) -> None:
    """Makes an object of PARTS with a checksum, of the whole or of its parts."""
    field = f"x-amz-checksum-{algorithm.lower()}"
    whole = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    _, _, text = s3.ask("POST", path, parameters={"uploads": ""}, headers=whole)
    match = re.search(rb"<UploadId>(.+?)<", text)
    assert match, text
    upload, listed = {"uploadId": match[1].decode()}, ""
    for number, part in enumerate(PARTS, 1):
        told = {field: crc(algorithm, part)}
        _, head, text = s3.ask("PUT", path, part, parameters=upload | {"partNumber": str(number)}, headers=told)
        listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{head['ETag']}</ETag>"
        listed += f"<Checksum{algorithm}>{crc(algorithm, part)}</Checksum{algorithm}></Part>"
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    status, _, text = s3.ask("POST", path, body, parameters=upload, headers={"x-amz-checksum-type": kind})
    assert status == 200, text


@pytest.mark.parametrize(
    ("kind", "algorithm", "is_told"),
    [
        ("FULL_OBJECT", "CRC32", True),
        ("FULL_OBJECT", "CRC32C", True),
        ("FULL_OBJECT", "CRC64NVME", True),
        ("COMPOSITE", "CRC32", False),
    ],
)
def test_an_object_of_parts_is_compared_with_the_checksum_of_the_whole(
    places: Places, s3: S3, kind: str, algorithm: str, is_told: bool
) -> None:
    place = places["s3"]
    in_parts(s3, f"/{place.folder.name}/f", kind, algorithm)
    report = places.fetch(Input("/f", url=place.url("f")))
    assert report.ok, report.failure
    assert (places.root / "f").read_bytes() == b"".join(PARTS)
    with (place.folder / "f").open("r+b") as file:
        file.write(b"X")
    report = places.fetch(Input("/g", url=place.url("f")))
    assert report.ok is not is_told
    if is_told:
        assert f"the bytes that arrived have the {algorithm.lower()} " in report.failure


CONTENT = bytes(range(256)) * 8_000
CRC64 = "oR/sxy2F7xM="
SHA256 = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
NO_MD5 = "0" * 32
KMS = "x-amz-server-side-encryption: aws:kms"


@pytest.fixture
def anonymous(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def point(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")

    return point


@pytest.mark.parametrize(
    ("etag", "headers", "reason"),
    [
        (hashlib.md5(CONTENT).hexdigest(), [], ""),
        (NO_MD5, [], "md5"),
        (NO_MD5, [KMS], ""),
        (NO_MD5, [KMS, f"x-amz-checksum-sha256: {SHA256}"], ""),
        (NO_MD5, [KMS, "x-amz-checksum-crc32: AAAAAA=="], "crc32"),
        ("other", ["x-amz-checksum-crc32c: AAAAAA=="], "crc32c"),
        ("other", ["x-amz-checksum-crc32c: AAAAAA==", "x-amz-checksum-type: COMPOSITE"], ""),
        ("other-2", ["x-amz-checksum-crc64nvme: AAAAAAAAAAA="], "crc64nvme"),
        ("other-2", [f"x-amz-checksum-crc64nvme: {CRC64}"], ""),
        ("other-2", ["x-amz-checksum-other: AAAAAAAAAAA="], ""),
    ],
)
def test_an_anonymous_store_is_asked_too(
    tmp_path: Path, anonymous: Callable[[str], None], etag: str, headers: list[str], reason: str
) -> None:
    script = Versioned(CONTENT)
    script.etag, script.headers = f'"{etag}"', ("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", *headers)
    with faulty(script) as server:
        anonymous(server.url)
        report = fetch(tmp_path, Input("/f", url="s3://lab/f"))
    assert report.ok if not reason else f"the bytes that arrived have the {reason} " in report.failure
    assert not any("Authorization" in head.decode() for head in server.requests)


def test_small_objects_cost_one_request(tmp_path: Path, anonymous: Callable[[str], None]) -> None:
    """Beside the look at what is there."""
    script = Versioned(b"x")
    script.headers = ("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",)
    with faulty(script) as server:
        anonymous(server.url)
        assert fetch(tmp_path, Input("/f", url="s3://lab/f")).ok
    assert len(server.requests) == 2


def public(s3: S3, bucket: str) -> None:
    """Lets anybody read and write."""
    places = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": places}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]}).encode()
    status, _, text = s3.ask("PUT", f"/{bucket}", policy, parameters={"policy": ""})
    assert status in (200, 204), text


def test_what_goes_out_without_a_key_has_its_checksum(
    places: Places, s3: S3, anonymous: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places["s3"]
    public(s3, place.folder.name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    anonymous(s3.url)
    write(places.root, {"out/f": b"x"})
    report = places.push(Output("/out/f", place.url("f")))
    assert report.ok, report.failure
    assert (place.folder / "f").read_bytes() == b"x"
    told = s3.ask("HEAD", f"/{place.folder.name}/f", headers={"x-amz-checksum-mode": "ENABLED"})[1]
    assert told["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    assert places.fetch(Input("/in/f", url=place.url("f"))).ok


def test_an_empty_directory_is_an_object_as_consoles_make_it(places: Places, s3: S3) -> None:
    place = places["s3"]
    write(places.root, {"out/a b/é+~": None})
    report = places.push(Output("/out", place.url("d/")))
    assert report.ok, report.failure
    _, _, listing = s3.ask("GET", f"/{place.folder.name}", parameters={"list-type": "2"})
    assert re.findall("<Key>(.+?)</Key><Size>(.+?)</Size>", listing.decode()) == [("d/a b/é+~/", "0")]


@pytest.mark.parametrize("declared", [DIRECTORY, FILE, None])
def test_folders_that_a_console_made_are_directories(places: Places, s3: S3, declared: FileType | None) -> None:
    place = places["s3"]
    for key in ("d/", "d/empty/", "d/full/", "d/full/f", "e/"):
        assert s3.ask("PUT", f"/{place.folder.name}/{key}", b"x" if key[-1] == "f" else b"")[0] == 200
    for name in ("d", "e"):
        report = places.fetch(Input(f"/in/{name}", url=place.url(name), type=declared))
        assert report.ok, report.failure
    assert tree(places.root / "in") == {"d": None, "d/empty": None, "d/full": None, "d/full/f": b"x", "e": None}


def test_a_file_beside_a_directory_of_its_name_is_none_of_its_entries(
    tmp_path: Path, anonymous: Callable[[str], None]
) -> None:
    listed = "<Contents><Key>d/</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><Size>0</Size></Contents>"
    listing = f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode()
    file = Versioned(b"file")
    file.headers = ("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",)
    (tmp_path / "root").mkdir()

    def script(connection: socket.socket, number: int, head: bytes) -> None:
        if b"list-type=2" in head:
            connection.sendall(answer("200 OK", listing))
        else:
            file(connection, number, head)

    with faulty(script) as server:
        anonymous(server.url)
        report = fetch(tmp_path / "root", Input("/d", url="s3://lab/d", type=DIRECTORY))
        assert report.ok, report.failure
    assert tree(tmp_path / "root") == {"d": None}


DENIED = b"<Error><Code>AccessDenied</Code></Error>"


def test_an_empty_directory_that_is_refused_is_an_error(tmp_path: Path, anonymous: Callable[[str], None]) -> None:
    write(tmp_path, {"root/out/empty": None})
    answers = [answer("503 Slow Down"), answer("403 Forbidden", DENIED)]
    with faulty(lambda connection, number, _: connection.sendall(answers[number])) as server:
        anonymous(server.url)
        report = push(tmp_path / "root", Output("/out", "s3://lab/d"), retries=1)
    assert report.failure == (
        f"output s3://lab/d/empty: access denied (403 AccessDenied) by {server.url} after 2 tries; "
        'no key is configured for "s3://lab"; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY'
    )


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("HTTP_PROXY", "http://127.0.0.1:1")]
)
def test_an_empty_directory_is_left_out_where_only_obstore_can_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    write(tmp_path, {"root/out/empty": None})
    with faulty(lambda connection, *_: connection.sendall(answer("200 OK"))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(variable, value)
        assert push(tmp_path / "root", Output("/out", "s3://lab/d")).ok
    assert not server.requests


@pytest.mark.parametrize("size", [0, 300_000, 40 * 1024 * 1024])
def test_an_object_with_a_line_break_in_its_key_is_compared_as_others_are(places: Places, size: int) -> None:
    place = places["s3"]
    write(places.root, {"out/f": b"x" * size})
    report = places.push(Output("/out/f", place.url("a\nb")))
    assert report.ok, report.failure
    assert places.fetch(Input("/in/f", url=place.url("a\nb"))).ok
    assert (places.root / "in/f").read_bytes() == b"x" * size
    if size:
        with (place.folder / "a\nb").open("r+b") as file:
            file.write(b"X")
        assert "the bytes that arrived have the crc64nvme " in places.fetch(Input("/g", url=place.url("a\nb"))).failure


def test_what_is_wrong_with_such_an_object_is_told_as_of_others(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = places["s3"].url("a\nb")
    assert "not found (404) by http" in places.fetch(Input("/f", url=url)).failure
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        failure = places.fetch(Input("/f", url=url)).failure
        assert "access denied (403" in failure
        assert "check the key configured for " in failure
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert "the key holds a control character" in places.fetch(Input("/f", url=url)).failure


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "defines entities"),
        (b"<ListBucketResult>", "is no XML"),
        (b"<L><Contents><Key>a</Key><Size>-1</Size></Contents></L>", "a size of '-1'"),
    ],
)
def test_a_listing_that_is_none_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(TransferError, match=reason):
        read_page(text)


def test_a_store_that_lists_one_page_for_ever_is_left(tmp_path: Path, anonymous: Callable[[str], None]) -> None:
    page = (
        b"<L><Contents><Key>d%0A/a</Key><Size>1</Size></Contents><NextContinuationToken>t</NextContinuationToken></L>"
    )
    with faulty(lambda connection, _n, _head: connection.sendall(answer("200 OK", page))) as server:
        anonymous(server.url)
        report = fetch(tmp_path, Input("/d", url="s3://b/d\n", type=FileType.DIRECTORY), retries=0)
    assert "lists the same page again and again" in report.failure
