"""Azure's blobs: https URLs, signatures in them, who asks, what is compared, what is refused."""

import base64
import json
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tesk.filer.credentials import NOTHING, Table
from tesk.filer.errors import TransferError
from tesk.filer.plan import FilerSettings
from tesk.filer.scheme import Context
from tesk.filer.schemes.az.azure import AzureAccess, AzureIdentity, access_of, sign
from tesk.filer.schemes.az.scheme import AzScheme, Blob, read_page, split
from tesk.filer.streams import Meter
from tesk.tes import Input, Output
from tests.filer.faulty import Script, answer, faulty
from tests.filer.stores import DIRECTORY, fetch, push, tree, write
from tests.servers.azure import ACCOUNT, KEY, Azure

MD5 = "q0jocDd+XZ++EWY5SeIpsA=="
BLOBS = f"https://{ACCOUNT}.blob.core.windows.net"


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The scratch of a machine that has no credentials anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def settle(root: Path, prefix: str, **words: str) -> tuple[str, ...]:
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in words.items())
    (root.parent / "stores.toml").write_text(f'["{prefix}"]\n{lines}')
    return (str(root.parent / "stores.toml"),)


@pytest.mark.parametrize(
    ("url", "blob"),
    [
        ("az://lab/a b/%41", Blob("", "", "lab", "a b/%41", "")),
        ("az://lab", Blob("", "", "lab", "", "")),
        (f"{BLOBS}/lab/a%20b/%2541/", Blob(ACCOUNT, f"{ACCOUNT}.blob.core.windows.net", "lab", "a b/%41", "")),
        (
            f"{BLOBS}/lab/f?sv=1&sig=x%3D",
            Blob(ACCOUNT, f"{ACCOUNT}.blob.core.windows.net", "lab", "f", "sv=1&sig=x%3D"),
        ),
    ],
)
def test_urls_name_account_container_and_key(url: str, blob: Blob) -> None:
    assert split(url) == blob


TREE: dict[str, bytes | None] = {"a b": b"1", "é": None, "é/%41": b"22", "empty": None}


def test_https_urls_of_blobs_both_ways_with_the_key_of_their_prefix(root: Path, azure: Azure) -> None:
    held = azure.make("https-urls")
    told = settle(root, f"{BLOBS}/https-urls/", endpoint=azure.endpoint, account_key=KEY)
    write(root / "out", TREE)
    report = push(root, Output("/out", f"{BLOBS}/https-urls/d", type=DIRECTORY), credentials=told)
    assert report.ok, report.failure
    assert tree(held / "d") == TREE
    assert report.pushed["/out/é/%41"].url == f"{BLOBS}/https-urls/d/%C3%A9/%2541"
    report = fetch(root, Input("/in", url=f"{BLOBS}/https-urls/d"), credentials=told)
    assert report.ok, report.failure
    assert tree(root / "in") == TREE


def test_a_signature_in_the_url_is_enough_and_never_shown(root: Path, azure: Azure) -> None:
    azure.make("signed")
    told = settle(root, BLOBS, endpoint=azure.endpoint)
    query = sign(ACCOUNT, base64.b64decode(KEY), "signed", time.time())
    write(root / "out", {"d/f": b"x", "big": b"y" * 20_000_000})
    report = push(root, Output("/out", f"{BLOBS}/signed?{query}"), credentials=told)
    assert report.ok, report.failure
    assert "sig=" not in repr(report.events)
    report = fetch(root, Input("/in", url=f"{BLOBS}/signed?{query}", type=DIRECTORY), credentials=told)
    assert report.ok, report.failure
    assert tree(root / "in") == tree(root / "out")
    wrong = query[:-8] + "AAAAA%3D"
    failure = fetch(root, Input("/f", url=f"{BLOBS}/signed/big?{wrong}"), credentials=told, retries=5).failure
    assert failure.startswith(f"input {BLOBS}/signed/big?…: access denied (403 AuthorizationFailure) by http://127.0")
    assert f'after 1 try; check the credentials configured for "{BLOBS}/signed"' in failure


def test_a_wrong_key_and_a_missing_container_are_told_at_once(root: Path, azure: Azure) -> None:
    told = settle(
        root, "az://lab", endpoint=azure.endpoint, account=ACCOUNT, account_key=base64.b64encode(b"x").decode()
    )
    failure = fetch(root, Input("/f", url="az://lab/f"), credentials=told, retries=5).failure
    assert "access denied (403 AuthorizationFailure)" in failure
    assert 'after 1 try; check the credentials configured for "az://lab"' in failure
    told = settle(root, "az://none", endpoint=azure.endpoint, account=ACCOUNT, account_key=KEY)
    failure = fetch(root, Input("/f", url="az://none/f"), credentials=told, retries=5).failure
    assert "not found (404 ContainerNotFound)" in failure
    assert "after 1 try; check account, container and key" in failure


def test_without_an_account_the_way_to_name_one_is_told(root: Path) -> None:
    failure = fetch(root, Input("/f", url="az://lab/f")).failure
    assert "no storage account is configured for it" in failure
    assert "set AZURE_STORAGE_ACCOUNT_NAME, or write its https URL" in failure


def test_the_environment_is_for_its_own_account_only() -> None:
    text = f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={KEY};EndpointSuffix=core.windows.net"
    env = {"AZURE_STORAGE_CONNECTION_STRING": text, "AZURE_STORAGE_ENDPOINT": "http://h"}
    own = access_of("", "", NOTHING, env)
    assert (own.account, own.endpoint, own.key) == (ACCOUNT, "http://h", base64.b64decode(KEY))
    other = access_of("other", "other.blob.example", NOTHING, env)
    assert (other.endpoint, other.key, other.sas) == ("https://other.blob.example", b"", "")


def test_the_connection_string_of_a_table_comes_before_the_environment(root: Path) -> None:
    text = f"AccountName=b;AccountKey={base64.b64encode(b'of b').decode()};BlobEndpoint=http://b"
    env = {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_ENDPOINT": "http://a"}
    entry = Table("az://lab", root, {"connection_string": text})
    for account, host in (("", ""), ("b", "b.blob.example")):
        access = access_of(account, host, entry, env)
        assert (access.account, access.endpoint, access.key) == ("b", "http://b", b"of b")


def test_the_usual_port_in_a_blobs_url_changes_nothing(root: Path, azure: Azure) -> None:
    held = azure.make("usual-port")
    write(held, {"f": b"x"})
    told = settle(root, f"{BLOBS}/usual-port/", endpoint=azure.endpoint, account_key=KEY)
    report = fetch(root, Input("/f", url=f"{BLOBS}:443/usual-port/f"), credentials=told)
    assert report.ok, report.failure


def test_a_directory_whose_first_page_is_empty_is_found(root: Path) -> None:
    first = b"<EnumerationResults><Blobs/><NextMarker>more</NextMarker></EnumerationResults>"
    then = first.replace(b"<Blobs/>", b"<Blobs><Blob><Name>d/f</Name></Blob></Blobs>").replace(b"more", b"")

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        if b"comp=list" in head:
            connection.sendall(answer("200 OK", then if b"marker=more" in head else first))
        else:
            connection.sendall(answer("200 OK" if b"/d/f" in head else "404 Not Found"))

    with faulty(script) as server:
        told = settle(root, BLOBS, endpoint=server.url, anonymous="true")
        report = fetch(root, Input("/in", url=f"{BLOBS}/lab/d"), credentials=told)
    assert report.ok, report.failure
    assert tree(root) == {"in": None, "in/f": b""}


Seen = list[tuple[bytes, bytes]]


def cloud(seen: Seen, md5: str = MD5) -> Script:
    """A store whose blob has `the bytes`, with a token endpoint; `seen` gets head and body of each request."""

    def script(connection: socket.socket, _: int, request: bytes) -> None:
        head, _blank, body = request.partition(b"\r\n\r\n")
        length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        while len(body) < sum(length):
            body += connection.recv(65536)
        seen.append((head, body))
        if b"oauth2" in head or b"/msi?" in head:
            connection.sendall(answer("200 OK", b'{"access_token": "tok-1", "expires_in": "3600"}'))
        elif head.startswith(b"PUT"):
            connection.sendall(answer("400 Bad Request", b"", "x-ms-error-code: Md5Mismatch"))
        elif head.startswith(b"HEAD"):
            connection.sendall(answer("200 OK", b"", length=9))
        else:
            connection.sendall(answer("200 OK", b"the bytes", f"Content-MD5: {md5}"))

    return script


WAYS: list[tuple[dict[str, str], bytes, bytes]] = [
    ({"AZURE_CLIENT_SECRET": "very-secret"}, b"POST /tenant/oauth2/v2.0/token", b"client_secret=very-secret"),
    ({"AZURE_FEDERATED_TOKEN_FILE": "TOKEN"}, b"POST /tenant/oauth2/v2.0/token", b"client_assertion=from-the-cluster"),
    ({"IDENTITY_ENDPOINT": "URL/msi", "IDENTITY_HEADER": "h"}, b"GET /msi?api-version=2019-08-01", b""),
]


@pytest.mark.parametrize(("env", "asked", "sent"), WAYS, ids=["secret", "workload-identity", "app-service"])
def test_identities_of_applications_get_a_token(
    root: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], asked: bytes, sent: bytes
) -> None:
    seen: Seen = []
    (root.parent / "token").write_text("from-the-cluster\n")
    with faulty(cloud(seen)) as server:
        base = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "me", "AZURE_AUTHORITY_HOST": server.url}
        for name, value in {**base, **env}.items():
            text = value.replace("TOKEN", str(root.parent / "token")).replace("URL", server.url)
            monkeypatch.setenv(name, text)
        report = fetch(root, Input("/f", url=f"{BLOBS}/lab/f"), credentials=settle(root, BLOBS, endpoint=server.url))
        assert report.ok, report.failure
    tokens = [(head, body) for head, body in seen if head.startswith(asked)]
    assert len(tokens) == 1
    assert sent in tokens[0][1]
    assert all(b"Authorization: Bearer tok-1" in head for head, _ in seen if b"/lab/f" in head)
    assert tree(root) == {"f": b"the bytes"}


def test_bytes_that_are_not_what_the_store_says_are_no_input(root: Path) -> None:
    with faulty(cloud([], "AAAAAAAAAAAAAAAAAAAAAA==")) as server:
        told = settle(root, BLOBS, endpoint=server.url, anonymous="true")
        report = fetch(root, Input("/f", url=f"{BLOBS}/lab/f"), credentials=told, retries=1)
    assert "the bytes that arrived have the md5 ab48e870377e5d9fbe11663949e229b0" in report.failure
    assert tree(root) == {}


def test_an_upload_that_arrived_damaged_is_no_output(root: Path) -> None:
    write(root, {"f": b"the bytes"})
    seen: Seen = []
    with faulty(cloud(seen)) as server:
        told = settle(root, BLOBS, endpoint=server.url, sas_token="?sig=very-secret")
        report = push(root, Output("/f", f"{BLOBS}/lab/f"), credentials=told, retries=1)
    assert "bad request (400 Md5Mismatch)" in report.failure
    assert f"Content-MD5: {MD5}".encode() in seen[0][0]
    assert "very-secret" not in repr(report.events)


def test_a_listing_tells_directories_and_names_that_xml_cannot_hold() -> None:
    page = b"""\xef\xbb\xbf<?xml version="1.0"?><EnumerationResults><Blobs>
    <Blob><Name>d/a b</Name><Properties><Content-Length>3</Content-Length></Properties><Metadata/></Blob>
    <Blob><Name>d/e</Name><Properties/><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>
    <Blob><Name>d/g</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>
    <Blob><Name Encoded="true">d/%EF%BF%BF</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>
    </Blobs><NextMarker>more</NextMarker></EnumerationResults>"""
    found, marker = read_page(page)
    assert [each[:2] for each in found] == [("d/a b", 3), ("d/e/", 0), ("d/g/", 0), ("d/\uffff", 1)]
    assert marker == "more"
    with pytest.raises(TransferError, match="entities"):
        read_page(b"<!DOCTYPE x [<!ENTITY a 'b'>]><x/>")


def test_what_is_cut_of_an_upload_is_sent_again_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tesk.filer.schemes.az.scheme.WHOLE", 1_000_000)
    data = os.urandom(2_500_000)
    write(root, {"f": data})
    sent: list[str] = []
    lists: list[bytes] = []
    got: dict[str, bytes] = {}

    def script(connection: socket.socket, n: int, head: bytes) -> None:
        line, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", line)
        while length and len(body) < int(length[1]) and (more := connection.recv(65536)):
            body += more
        if name := re.search(rb"blockid=([^& ]+)", line):
            sent.append(name[1].decode())
            got[sent[-1]] = body
        if b"comp=blocklist" in line:
            lists.append(body)
        if len(sent) != 2 and len(lists) != 1:
            connection.sendall(answer("201 Created"))

    with faulty(script) as server:
        told = settle(root, "az://lab", endpoint=server.url, account="acct", account_key=KEY)
        report = push(root, Output("/f", "az://lab/f"), credentials=told)
    assert report.ok, report.failure
    assert len(sent) == 4
    assert lists == [lists[0]] * 2, "the list of the blocks was cut as well"
    assert sent[1] == sent[2]
    assert b"".join(got[name] for name in dict.fromkeys(sent)) == data


def test_a_token_is_for_the_one_secret_that_it_was_given_for() -> None:
    token = answer("200 OK", json.dumps({"access_token": "abc", "expires_in": 3600}).encode())
    with faulty(lambda connection, _n, _h: connection.sendall(token)) as server:
        identity = AzureIdentity()
        for secret in ("one", "two", "one"):
            identity.headers(AzureAccess("acc", "https://h", way="app service", tenant=server.url, secret=secret))
    assert [head.lower().count(b"x-identity-header: one") for head in server.requests] == [1, 0]


def test_an_account_of_the_same_name_in_another_cloud_is_another(root: Path) -> None:
    context = Context(FilerSettings(), Meter(threading.Event()), lambda _: None)
    scheme = AzScheme(context)
    urls = [f"https://{ACCOUNT}.blob.{cloud}/lab/f" for cloud in ("core.windows.net", "core.chinacloudapi.cn")]
    found = [scheme._access(url, split(url)).endpoint for url in urls]
    assert found == [url.removesuffix("/lab/f") for url in urls]
