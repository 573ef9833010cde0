"""What any S3 store must do for us, asked by S3's own API alone: versitygw here.

TESK_TEST_S3=http://KEY:SECRET@HOST:PORT names another to run the same tests against, MinIO or Ceph say; its region is
us-east-1. They make a bucket and leave it empty.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tesk.filer.schemes.s3.odd import read_page
from tesk.tes import Input, Output
from tests.filer.stores import DIRECTORY, fetch, push, tree, write
from tests.servers.s3 import S3

MIB = 1024 * 1024
NAMES = ("a b", "é", "%41", "q?x#y", "+", "q'uo\"te", "a&b;c", "line\nbreak", "tab\t", "deep/er/than this")


@pytest.fixture
def store(request: pytest.FixtureRequest) -> S3:
    if url := os.environ.get("TESK_TEST_S3"):
        parts = urlsplit(url)
        return S3(
            f"{parts.scheme}://{parts.hostname}:{parts.port}", parts.username or "", unquote(parts.password or "")
        )
    here: S3 = request.getfixturevalue("s3")
    return here


@pytest.fixture
def bucket(store: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of the test's own, which the environment's key may use."""
    name = f"tesk-{uuid.uuid4().hex[:12]}"
    for variable, value in {**store.environment(), "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    status, _, text = store.ask("PUT", f"/{name}")
    assert status == 200, text
    (tmp_path / "root").mkdir()
    yield name
    for key in keys(store, name):
        store.ask("DELETE", f"/{name}/{key}")
    status, _, text = store.ask("DELETE", f"/{name}")
    assert status == 204, text


def keys(store: S3, bucket: str) -> list[str]:
    """All keys of a bucket, by the filer's own reading of its listing."""
    found: list[str] = []
    asked = {"list-type": "2", "encoding-type": "url"}
    while True:
        status, _, text = store.ask("GET", f"/{bucket}", parameters=asked)
        assert status == 200, text
        page, token = read_page(text)
        found += [each.key for each in page]
        if not token:
            return found
        asked["continuation-token"] = token


def test_a_directory_comes_back_as_it_was(store: S3, bucket: str, tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {name: name.encode() * 3 for name in NAMES}
    files |= {"empty": None, "nothing": b"", "deep/empty too": None}
    write(tmp_path / "root/out", files)
    report = push(tmp_path / "root", Output("/out", f"s3://{bucket}/d", type=DIRECTORY))
    assert report.ok, report.failure
    assert set(keys(store, bucket)) == {f"d/{name}" for name in (*NAMES, "empty/", "nothing", "deep/empty too/")}
    report = fetch(tmp_path / "root", Input("/in", url=f"s3://{bucket}/d", type=DIRECTORY))
    assert report.ok, report.failure
    assert tree(tmp_path / "root/in") == tree(tmp_path / "root/out")


def test_thousands_of_files_come_back(store: S3, bucket: str, tmp_path: Path) -> None:
    write(tmp_path / "root/out", {f"{n % 7}/{n:04}": str(n).encode() for n in range(2_300)})
    assert push(tmp_path / "root", Output("/out", f"s3://{bucket}/d", type=DIRECTORY)).ok
    assert len(keys(store, bucket)) == 2_300
    assert fetch(tmp_path / "root", Input("/in", url=f"s3://{bucket}/d", type=DIRECTORY)).ok
    assert tree(tmp_path / "root/in") == tree(tmp_path / "root/out")


@pytest.mark.parametrize(
    ("way", "size"), [("held", 0), ("held", 1), ("held", 4 * MIB), ("held", 40 * MIB + 7), ("straight", 40 * MIB + 7)]
)
def test_a_file_of_any_size_comes_back(
    store: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, size: int
) -> None:
    if way == "straight":
        monkeypatch.setattr("tesk.filer.schemes.s3.scheme.MOST_HELD", 0)
    data = os.urandom(size)
    write(tmp_path, {"root/out": data})
    report = push(tmp_path / "root", Output("/out", f"s3://{bucket}/f"))
    assert report.ok, report.failure
    report = fetch(tmp_path / "root", Input("/in", url=f"s3://{bucket}/f"))
    assert report.ok, report.failure
    assert (tmp_path / "root/in").read_bytes() == data
    assert b"<UploadId>" not in store.ask("GET", f"/{bucket}", parameters={"uploads": ""})[2]


def test_what_is_wrong_is_said(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    assert "not found (404) by http" in fetch(root, Input("/f", url=f"s3://{bucket}/none")).failure
    assert "the bucket is not there (404)" in fetch(root, Input("/f", url=f"s3://{bucket}-none/f")).failure
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "access denied (403" in fetch(root, Input("/f", url=f"s3://{bucket}/f")).failure
