"""Google Cloud Storage: who asks, what is compared, what is refused."""

import base64
import json
import os
import socket
import time
from itertools import starmap
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tesk.filer.bounds import Listing, Listings
from tesk.filer.checksums import HASHES
from tesk.filer.errors import TransferError
from tesk.filer.schemes.gs.google import GoogleAccess, GoogleIdentity
from tesk.filer.wire.objects import Object, entries_of
from tesk.tes import Input, Output
from tests.filer.faulty import Script, answer, faulty
from tests.filer.stores import fetch, push, tree, write

MD5 = "q0jocDd+XZ++EWY5SeIpsA=="
CRC32C = "5Cgc+Q=="
TOKEN = b'{"access_token": "tok-1", "expires_in": 3600, "token_type": "Bearer"}'


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The scratch of a machine that has no credentials anywhere."""
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "STORAGE_EMULATOR_HOST",
        "CLOUDSDK_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


Seen = list[tuple[str, str, str]]


def cloud(seen: Seen, checksum: str = f"crc32c={CRC32C},md5={MD5}") -> Script:
    """A store whose object has `the bytes`, with token endpoints; `seen` gets path, Authorization and body of each."""

    def script(connection: socket.socket, _: int, request: bytes) -> None:
        head, _blank, body = request.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        while len(body) < int(fields.get("content-length", 0)):
            body += connection.recv(65536)
        path = lines[0].split(" ")[1]
        seen.append((path, fields.get("authorization", ""), body.decode()))
        if path.startswith("/token") or path.endswith("default/token"):
            connection.sendall(answer("200 OK", TOKEN))
        elif path.startswith("/impersonate"):
            connection.sendall(answer("200 OK", b'{"accessToken": "tok-2", "expireTime": "2100-01-01T00:00:00Z"}'))
        elif path.startswith("/upload"):
            told = {"size": str(len(body)), "crc32c": checksum}
            connection.sendall(answer("200 OK", json.dumps(told).encode()))
        elif path.startswith("/download"):
            connection.sendall(answer("200 OK", b"the bytes", f"x-goog-hash: {checksum}"))
        else:
            connection.sendall(answer("200 OK", b'{"name": "f", "size": "9"}'))

    return script


def settle(root: Path, **words: str) -> tuple[str, ...]:
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in words.items())
    (root.parent / "stores.toml").write_text(f'["gs://lab"]\n{lines}')
    return (str(root.parent / "stores.toml"),)


def asked(seen: Seen) -> set[str]:
    """How the store was asked, token endpoints left out."""
    return {authorization for path, authorization, _ in seen if "/storage/v1" in path}


def test_a_service_account_signs_for_its_token(root: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    seen: Seen = []
    with faulty(cloud(seen)) as server:
        account = {"type": "service_account", "client_email": "me@lab", "private_key": pem, "private_key_id": "1"}
        (root.parent / "key.json").write_text(json.dumps({**account, "token_uri": f"{server.url}/token"}))
        told = settle(root, endpoint=server.url, service_account_key_file="key.json", project="billed")
        inputs = [Input(f"/{n}", url=f"gs://lab/{n}") for n in "abc"]
        report = fetch(root, *inputs, credentials=told)
        assert report.ok, report.failure
        assert b"x-goog-user-project: billed" in server.requests[-1]
    assert tree(root) == dict.fromkeys("abc", b"the bytes")
    tokens = [body for path, _, body in seen if path == "/token"]
    assert len(tokens) == 1
    head, claims, signature = parse_qs(tokens[0])["assertion"][0].split(".")
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert (decoded["iss"], decoded["aud"]) == ("me@lab", f"{server.url}/token")
    assert decoded["iat"] <= time.time() < decoded["exp"]
    key.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
    )
    assert asked(seen) == {"Bearer tok-1"}


USER = {"type": "authorized_user", "client_id": "id", "client_secret": "very-secret", "refresh_token": "again"}


@pytest.mark.parametrize(
    ("document", "sent", "bearer"),
    [
        (USER, "refresh_token=again", "Bearer tok-1"),
        (
            {
                "type": "external_account",
                "audience": "//iam/pool",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "credential_source": {"file": "SUBJECT"},
            },
            "subject_token=from-the-cluster",
            "Bearer tok-1",
        ),
        (
            {"type": "impersonated_service_account", "source_credentials": USER},
            '"lifetime": "3600s"',
            "Bearer tok-2",
        ),
    ],
    ids=["user", "workload-identity", "impersonation"],
)
def test_the_file_of_application_default_credentials(
    root: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, object], sent: str, bearer: str
) -> None:
    seen: Seen = []
    with faulty(cloud(seen)) as server:
        ways = {"token_url": f"{server.url}/token", "token_uri": f"{server.url}/token"}
        if "source_credentials" in document:
            document = {**document, "source_credentials": {**USER, **ways}}
            ways["service_account_impersonation_url"] = f"{server.url}/impersonate"
        (root.parent / "subject").write_text("from-the-cluster\n")
        text = json.dumps({**document, **ways}).replace("SUBJECT", str(root.parent / "subject"))
        (root.parent / "adc.json").write_text(text)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(root.parent / "adc.json"))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        report = fetch(root, Input("/f", url="gs://lab/f"))
        assert report.ok, report.failure
    assert any(sent in body for _, _, body in seen)
    assert asked(seen) == {bearer}


def test_the_metadata_service_of_the_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Seen = []
    with faulty(cloud(seen)) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.url.removeprefix("http://"))
        monkeypatch.setattr("tesk.filer.schemes.gs.google.PUBLIC", server.url)
        monkeypatch.setattr("tesk.filer.wire.objects.PROBE_TIMEOUT_S", 300)
        report = fetch(root, Input("/f", url="gs://lab/f"))
        assert report.ok, report.failure
    assert asked(seen) == {"Bearer tok-1"}


def test_nobody_asks_anonymously_and_is_told_what_is_missing(root: Path) -> None:
    def refuse(connection: socket.socket, _n: int, _h: bytes) -> None:
        connection.sendall(answer("401 Unauthorized"))

    with faulty(refuse) as server:
        report = fetch(root, Input("/f", url="gs://lab/f"), credentials=settle(root, endpoint=server.url), retries=5)
        assert report.failure == (
            f"input gs://lab/f: access denied (401) by {server.url} after 1 try; "
            'no credentials are configured for "gs://lab"; set GOOGLE_APPLICATION_CREDENTIALS'
        )
        assert b"Authorization" not in server.requests[0]


def test_a_refused_identity_is_told_without_its_secrets(root: Path) -> None:
    def refuse(connection: socket.socket, _n: int, _h: bytes) -> None:
        connection.sendall(answer("400 Bad Request", b'{"error": "invalid_grant", "hint": "again very-secret"}'))

    with faulty(refuse) as server:
        (root.parent / "user.json").write_text(json.dumps({**USER, "token_uri": f"{server.url}/token"}))
        told = settle(root, endpoint=server.url, service_account_key_file="user.json")
        report = fetch(root, Input("/f", url="gs://lab/f"), credentials=told, retries=5)
    assert "no token from http://127.0.0.1 (400 invalid_grant) after 1 try" in report.failure
    assert "very-secret" not in repr(report.events)
    assert "again" not in repr(report.events)


@pytest.mark.parametrize("checksum", ["crc32c=AAAAAA==", "md5=AAAAAAAAAAAAAAAAAAAAAA=="])
def test_bytes_that_are_not_what_the_store_says_are_no_input(root: Path, checksum: str) -> None:
    with faulty(cloud([], checksum)) as server:
        report = fetch(root, Input("/f", url="gs://lab/f"), credentials=settle(root, endpoint=server.url), retries=1)
    name = checksum.partition("=")[0]
    assert f"the bytes that arrived have the {name} " in report.failure
    assert tree(root) == {}


def test_an_upload_that_arrived_damaged_is_no_output(root: Path) -> None:
    write(root, {"f": b"the bytes"})
    with faulty(cloud([], "AAAAAA==")) as server:
        report = push(root, Output("/f", "gs://lab/f"), credentials=settle(root, endpoint=server.url), retries=1)
    assert "the bytes that went out have the crc32c e4281cf9, the store says 00000000 after 2 tries" in report.failure
    with faulty(cloud([], CRC32C)) as server:
        assert push(root, Output("/f", "gs://lab/f"), credentials=settle(root, endpoint=server.url)).ok


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"d/a": 1, "d/s/": 0, "d/s/b": 2, "d/e/": 0}, {"a": 1, "s": None, "s/b": 2, "e": None}),
        ({"d/": 0}, {}),
        ({"d/a": 1, "d/a/b": 1}, "'a' and 'a/b' collide"),
        ({"d/a": 1, "d/a/": 0}, "'a' and 'a/' collide"),
        ({"d/../../x": 1}, "which is no path"),
        ({"d//x": 1}, "which is no path"),
        ({"d/x//": 0}, "which is no path"),
        ({"d/a/b/c": 1, "d/a/b": 1}, "'a/b' and 'a/b/c' collide"),
        ({"d/a/../../x": 1}, "which is no path"),
        ({"d/a/./b": 1}, "which is no path"),
        ({"d//etc/passwd": 1}, "which is no path"),
    ],
)
def test_keys_are_a_tree_or_refused(keys: dict[str, int], found: dict[str, int | None] | str) -> None:
    listing = Listing(Listings(), "gs://lab", 10)
    if isinstance(found, str):
        with pytest.raises(TransferError, match=found):
            entries_of(starmap(Object, keys.items()), "d/", listing)
    else:
        assert {
            entry.relative: entry.size for entry in entries_of(starmap(Object, keys.items()), "d/", listing)
        } == found


def test_two_users_in_one_file_have_a_token_each() -> None:
    seen: Seen = []
    identity = GoogleIdentity()
    with faulty(cloud(seen)) as server:
        for user in ("one", "other", "one"):
            source = {**USER, "refresh_token": user, "file": "/stores.toml", "token_uri": f"{server.url}/token"}
            assert identity.headers(GoogleAccess("", source, ""))["Authorization"] == "Bearer tok-1"
    assert [parse_qs(body)["refresh_token"] for _, _, body in seen] == [["one"], ["other"]]


def test_a_directory_whose_first_page_is_empty_is_found(root: Path) -> None:
    def script(connection: socket.socket, _: int, head: bytes) -> None:
        path = head.split(b" ")[1]
        if b"prefix=" not in path:
            connection.sendall(answer("200 OK", b"x") if b"d%2Ff" in path else answer("404 Not Found"))
        elif b"pageToken=more" in path:
            connection.sendall(answer("200 OK", b'{"items": [{"name": "d/f", "size": "1"}]}'))
        else:
            connection.sendall(answer("200 OK", b'{"nextPageToken": "more"}'))

    with faulty(script) as server:
        report = fetch(root, Input("/in", url="gs://lab/d"), credentials=settle(root, endpoint=server.url))
    assert report.ok, report.failure
    assert tree(root) == {"in": None, "in/f": b"x"}


CUT = os.urandom(20_000_000)


class Cutting:
    """A store that cuts each connection of an upload after 6 MB, and keeps what came in whole 256 KiB.

    The session ends, as after a week, when it has been asked `ends_after` times where it stands.
    """

    def __init__(self, ends_after: int = 1000) -> None:
        self.kept = b""
        self.ranges: list[str] = []
        self._asked, self._ends_after = 0, ends_after

    def __call__(self, connection: socket.socket, n: int, head: bytes) -> None:
        line, _, rest = head.partition(b"\r\n\r\n")
        told = dict(each.split(": ", 1) for each in line.decode().split("\r\n")[1:])
        span, size = told.get("Content-Range", "whole"), int(told.get("Content-Length", "0"))
        if line.startswith(b"POST"):
            self.kept, self._asked = b"", 0
            connection.sendall(answer("200 OK", b"", f"Location: http://{told['Host']}/session"))
            return
        self.ranges.append(span)
        if span == f"bytes */{len(CUT)}":
            self._asked += 1
            if self._asked > self._ends_after:
                self._ends_after = 1000
                connection.sendall(answer("410 Gone"))
            else:
                last = f"Range: bytes=0-{len(self.kept) - 1}" if self.kept else "X: none"
                connection.sendall(answer("308 Resume Incomplete", b"", last))
            return
        body = rest
        while len(body) < min(size, 6_000_000) and (got := connection.recv(65536)):
            body += got
        if len(body) < size:
            self.kept += body[: len(body) // 262144 * 262144]
            return
        self.kept += body
        state = HASHES["crc32c"]()
        state.update(self.kept)
        checksum = base64.b64encode(state.digest()).decode()
        connection.sendall(answer("200 OK", json.dumps({"size": str(len(self.kept)), "crc32c": checksum}).encode()))


def test_an_upload_that_is_cut_goes_on_where_it_was(root: Path) -> None:
    write(root, {"f": CUT})
    store = Cutting()
    with faulty(store) as server:
        told = settle(root, endpoint=server.url, anonymous="true")
        report = push(root, Output("/f", "gs://lab/f"), credentials=told)
    assert report.ok, report.failure
    assert store.kept == CUT
    sent = [span for span in store.ranges if "*" not in span]
    assert sent[0] == "whole"
    begins = [int(span.removeprefix("bytes ").partition("-")[0]) for span in sent[1:]]
    assert begins == sorted(set(begins)), "it came closer each time"
    assert begins[-1] >= 14_000_000


def test_an_upload_whose_session_is_over_begins_anew(root: Path) -> None:
    write(root, {"f": CUT})
    store = Cutting(ends_after=1)
    with faulty(store) as server:
        told = settle(root, endpoint=server.url, anonymous="true")
        report = push(root, Output("/f", "gs://lab/f"), credentials=told)
    assert report.ok, report.failure
    assert store.kept == CUT
    assert store.ranges.count("whole") == 2
