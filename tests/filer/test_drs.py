"""DRS: objects and bundles from the stores that a server names, compared with what it says of them."""

import base64
import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from awscrt.checksums import crc32c  # type: ignore[import-untyped]

from tesk.filer.download import cut
from tesk.filer.errors import TransferError
from tesk.filer.schemes.drs.scheme import ASKED_AT_ONCE, split
from tesk.tes import Input, Output
from tests.filer.faulty import Versioned, faulty
from tests.filer.stores import DIRECTORY, Places, fetch, tree, write
from tests.servers.drs import Drs, drs_server

DATA = bytes(range(256)) * 100


@pytest.fixture
def drs() -> Iterator[Drs]:
    with drs_server() as server:
        yield server


@pytest.fixture
def told(drs: Drs, tmp_path: Path) -> tuple[str, ...]:
    """Credentials that say where `drs://lab` is, and a token for it."""
    (tmp_path / "stores.toml").write_text(f'["drs://lab"]\nendpoint = "{drs.url}"\ntoken = "very-secret"\n')
    return (str(tmp_path / "stores.toml"),)


def thing(data: bytes, *urls: str, **more: Any) -> dict[str, Any]:
    """The document of an object."""
    return {
        "size": len(data),
        "checksums": [{"type": "sha-256", "checksum": hashlib.sha256(data).hexdigest()}],
        "access_methods": [{"type": url.partition(":")[0], "access_url": {"url": url}} for url in urls],
        **more,
    }


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("drs://lab.org/a%2Fb", ("lab.org", "a/b")),
        ("drs://lab.org:8080/314159", ("lab.org:8080", "314159")),
        ("drs://dg.4503:dg.4503/x", None),
        ("drs://dg.4503:abc", None),
        ("drs://lab.org/", None),
    ],
)
def test_urls_name_a_server_and_an_object(url: str, parts: tuple[str, str] | None) -> None:
    if parts is None:
        with pytest.raises(TransferError, match=r"compact|not a DRS URL"):
            split(url)
    else:
        assert split(url) == parts


@pytest.mark.parametrize("store", ["http", "s3", "gs", "ftp", "sftp"])
def test_an_object_comes_from_the_store_that_holds_it(
    places: Places, drs: Drs, told: tuple[str, ...], store: str
) -> None:
    write(places[store].folder, {"f": DATA})
    drs.documents["a/b"] = thing(DATA, places[store].url("f"), updated_time="2001-09-09T01:46:40Z")
    report = places.fetch(Input("/in/f", url="drs://lab/a%2Fb"), credentials=told)
    assert report.ok, report.failure
    assert (places.root / "in/f").stat().st_mtime != 1_000_000_000, "the store knows better when the file was changed"
    assert tree(places.root) == {"in": None, "in/f": DATA}
    assert drs.asked == [("/ga4gh/drs/v1/objects/a%2Fb?expand=true", "Bearer very-secret")]


def test_a_large_object_comes_in_parts(places: Places, drs: Drs, told: tuple[str, ...]) -> None:
    data = DATA * 2000
    write(places["http"].folder, {"f": data})
    drs.documents["x"] = thing(data, places["http"].url("f"))
    report = places.fetch(Input("/f", url="drs://lab/x"), credentials=told)
    assert report.ok, report.failure
    assert (places.root / "f").read_bytes() == data


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.download.LEAST_PART", 1000)


def test_a_large_object_is_begun_once(drs: Drs, told: tuple[str, ...], tmp_path: Path, small_parts: None) -> None:
    """Its parts start while the first of them is under way."""
    begun = threading.Event()

    def script(connection: socket.socket, number: int, head: bytes) -> None:
        if number:
            begun.set()
            served(connection, number, head)
            return
        whole = io.BytesIO()
        served(SimpleNamespace(sendall=whole.write), 0, head)  # type: ignore[arg-type]
        connection.sendall(whole.getvalue()[:500])
        begun.wait(10)
        connection.sendall(whole.getvalue()[500:])

    served = Versioned(DATA)
    with faulty(script) as server:
        drs.documents["x"] = thing(DATA, f"{server.url}/f")
        report = fetch(tmp_path, Input("/f", url="drs://lab/x"), credentials=told)
        assert report.ok, report.failure
    assert (tmp_path / "f").read_bytes() == DATA
    assert sorted(served.spans) == [(0, len(DATA)), *cut(len(DATA), 8)[1:]]


WRONG = [{"type": "sha-256", "checksum": "00" * 32}]


@pytest.mark.parametrize(
    ("checksums", "content", "reason"),
    [
        (WRONG, DATA, "the bytes that arrived have the sha256 "),
        ([*WRONG, {"type": "trunc512", "checksum": "00" * 24}], DATA, "the bytes that arrived have the sha256 "),
        ([{"type": "trunc512", "checksum": "00" * 24}], DATA, ""),
        ([{"type": "trunc512", "checksum": "00" * 24}], DATA[::-1], "the bytes that arrived have the md5 "),
    ],
)
def test_a_checksum_is_not_doubted_for_another_s_sake(
    drs: Drs,
    told: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checksums: list[dict[str, str]],
    content: bytes,
    reason: str,
) -> None:
    """A bucket whose ETags may be no MD5s: that says nothing of what the DRS server tells."""
    served = Versioned(content)
    encryption = () if "trunc512" in str(checksums) else ("x-amz-server-side-encryption: aws:kms",)
    served.etag = f'"{hashlib.md5(DATA).hexdigest()}"'
    served.headers = ("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", *encryption)
    with faulty(served) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        drs.documents["x"] = thing(DATA, "s3://b/f", checksums=checksums)
        report = fetch(tmp_path, Input("/f", url="drs://lab/x"), credentials=told)
    assert report.ok if not reason else reason in report.failure


def test_the_next_access_method_is_used_where_one_fails(places: Places, drs: Drs, told: tuple[str, ...]) -> None:
    write(places["http"].folder, {"f": DATA})
    drs.documents["x"] = thing(DATA, "htsget://h/f", places["s3"].url("none"), places["http"].url("f"))
    report = places.fetch(Input("/f", url="drs://lab/x"), credentials=told)
    assert report.ok, report.failure
    assert tree(places.root) == {"f": DATA}


def test_an_access_id_is_asked_for_its_url_and_headers(places: Places, drs: Drs, told: tuple[str, ...]) -> None:
    write(places["http"].folder, {"f": DATA})
    drs.documents["x"] = thing(DATA, access_methods=[{"type": "https", "access_id": "a b"}])
    drs.accesses["x", "a b"] = {"url": places["http"].url("f"), "headers": ["Authorization: Bearer other-secret"]}
    drs.later = 1
    report = places.fetch(Input("/f", url="drs://lab/x"), credentials=told)
    assert report.ok, report.failure
    assert tree(places.root) == {"f": DATA}
    assert drs.asked[-1][0] == "/ga4gh/drs/v1/objects/x/access/a%20b"


@pytest.mark.parametrize(
    ("told_of_it", "reason"),
    [
        ({"checksums": [{"type": "md5", "checksum": "00" * 16}]}, "the bytes that arrived have the md5 "),
        ({"checksums": [{"type": "sha-256", "checksum": "00" * 32}]}, "the bytes that arrived have the sha256 "),
        ({"checksums": [{"type": "crc32c", "checksum": "AAAAAA=="}]}, "the bytes that arrived have the crc32c "),
        ({"size": 7}, "the store has 25600 bytes, the DRS server says 7"),
    ],
)
def test_what_the_server_says_of_an_object_is_checked(
    places: Places, drs: Drs, told: tuple[str, ...], told_of_it: dict[str, Any], reason: str
) -> None:
    write(places["http"].folder, {"f": DATA})
    drs.documents["x"] = thing(DATA, places["http"].url("f"), **told_of_it)
    report = places.fetch(Input("/f", url="drs://lab/x"), credentials=told, retries=1)
    assert reason in report.failure
    assert tree(places.root) == {}
    crc = crc32c(DATA).to_bytes(4, "big")
    for text in (crc.hex(), base64.b64encode(crc).decode()):
        drs.documents["x"] = thing(
            DATA, places["http"].url("f"), checksums=[{"type": "crc32c", "checksum": text}, {"type": "etag"}]
        )
        report = places.fetch(Input("/f", url="drs://lab/x"), credentials=told)
        assert report.ok, report.failure


@pytest.mark.parametrize("expands", [True, False])
def test_a_bundle_is_a_directory(places: Places, drs: Drs, told: tuple[str, ...], expands: bool) -> None:
    write(places["s3"].folder, {"1": b"one", "2": b"two"})
    drs.documents["1"] = thing(b"one", places["s3"].url("1"))
    drs.documents["2"] = thing(b"two", places["s3"].url("2"))
    inner = [{"name": "é 2", "drs_uri": ["drs://lab/2"]}]
    drs.documents["in"] = {"contents": inner}
    nested = {"name": "in", "id": "in", **({"contents": inner} if expands else {})}
    drs.documents["b"] = {"contents": [{"name": "one", "id": "1"}, nested, {"name": "two", "id": "2"}]}
    drs.documents["b"]["created_time"] = "2001-09-09T01:46:40Z"
    for declared in (DIRECTORY, None):
        report = places.fetch(Input("/in", url="drs://lab/b", type=declared), credentials=told)
        assert report.ok, report.failure
        assert tree(places.root / "in") == {"one": b"one", "in": None, "in/é 2": b"two", "two": b"two"}
        assert (places.root / "in").stat().st_mtime == 1_000_000_000


def test_nested_bundles_are_asked_for_over_few_connections(places: Places, drs: Drs, told: tuple[str, ...]) -> None:
    write(places["http"].folder, {"f": b"x"})
    for n in range(30):
        drs.documents[f"f{n}"] = thing(b"x", places["http"].url("f"))
    inner = [{"name": f"d{n}", "id": f"d{n}", "contents": [{"name": "f", "id": f"f{n}"}]} for n in range(30)]
    drs.documents["b"] = {"contents": inner}
    report = places.fetch(Input("/in", url="drs://lab/b"), credentials=told)
    assert report.ok, report.failure
    assert len(tree(places.root / "in")) == 60
    assert len(drs.callers) <= ASKED_AT_ONCE + 1


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_a_bundle_that_leads_outside_is_refused(places: Places, drs: Drs, told: tuple[str, ...], name: str) -> None:
    drs.documents["1"] = thing(b"one", places["s3"].url("1"))
    drs.documents["b"] = {"contents": [{"name": name, "id": "1"}]}
    assert "is no name of a file" in places.fetch(Input("/in", url="drs://lab/b"), credentials=told).failure


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (None, "not found (404) by http://127.0.0.1"),
        (thing(DATA, "htsget://h/f"), "the DRS server offers no access method that tesk has after 1 try; one of https"),
        (
            {"size": "1", "access_methods": ["x", {"access_url": "s3://b/k"}], "checksums": "y"},
            "offers no access method",
        ),
        (thing(DATA, "file:///etc/passwd"), "the DRS server offers no access method"),
        (thing(DATA, "s3://none/f"), "the bucket is not there"),
    ],
)
def test_what_cannot_be_had_is_told_at_once(
    places: Places, drs: Drs, told: tuple[str, ...], document: dict[str, Any] | None, reason: str
) -> None:
    if document:
        drs.documents["x"] = document
    report = places.fetch(Input("/f", url="drs://lab/x"), credentials=told, retries=5)
    assert report.failure.startswith("input drs://lab/x: ")
    assert reason in report.failure
    assert "after 1 try" in report.failure
    assert "very-secret" not in repr(report.events)


def test_drs_is_for_reading_only(places: Places) -> None:
    write(places.root, {"f": b"x"})
    assert "DRS is for reading only" in places.push(Output("/f", "drs://lab/x")).failure
