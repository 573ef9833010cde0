"""What a URL names as its bucket stays a bucket: it does not make another request of one that is signed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tesk.filer.errors import TransferError
from tesk.filer.schemes.az import scheme as az
from tesk.filer.schemes.gs import scheme as gs
from tesk.filer.schemes.s3 import scheme as s3
from tesk.tes import Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import push, write

SPLITS: list[Callable[[str], object]] = [s3.split, gs.split, az.split]


@pytest.mark.parametrize("split", SPLITS, ids=["s3", "gs", "az"])
@pytest.mark.parametrize("name", ["", "b?policy#", "b#", "b%3F", "me@b", "b b", "b\\", "..", ".", "é", "b\n", "a:b"])
def test_a_name_that_is_no_buckets_is_refused(split: Callable[[str], object], name: str) -> None:
    with pytest.raises(TransferError, match="bucket") as refused:
        split(f"az://{name}/k")
    assert not refused.value.passing


@pytest.mark.parametrize("split", SPLITS, ids=["s3", "gs", "az"])
@pytest.mark.parametrize("name", ["lab", "Lab_1.of-9", "9.example.org"])
def test_a_buckets_name_is_taken_as_it_is(split: Callable[[str], object], name: str) -> None:
    assert name in tuple(split(f"az://{name}/k?x#y"))  # type: ignore[arg-type]


def test_azures_own_containers_have_names_of_their_own() -> None:
    assert [az.split(f"az://{name}/k").container for name in ("$root", "$web", "$logs")] == ["$root", "$web", "$logs"]
    with pytest.raises(TransferError):
        az.split("az://$x/k")


BLOBS = "https://acct.blob.core.windows.net"


@pytest.mark.parametrize(
    "url", ["s3://b?policy#/k", "gs://b?acl#/k", "az://c?comp=acl#/k", f"{BLOBS}/c%3Frestype=container%26comp=acl%23/k"]
)
def test_no_request_goes_out_for_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path, {"f": b"<Policy/>"})
    with faulty(lambda connection, _n, _head: connection.sendall(answer("200 OK"))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acct")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        failure = push(tmp_path, Output("/f", url), retries=3).failure
        assert server.requests == []
    assert failure.startswith(f"output {url}: the bucket's name has other characters")


def test_the_query_of_a_blobs_url_chooses_a_version_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"f": b"x"})
    with faulty(lambda connection, _n, _head: connection.sendall(answer("201 Created"))) as server:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acct")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        report = push(tmp_path, Output("/f", f"{BLOBS}/c/f?comp=lease&snapshot=2&x-ms=1"))
        assert report.ok, report.failure
        line = server.requests[0].partition(b"\r\n")[0]
    assert b"comp=" not in line
    assert b"snapshot=2" in line
