"""Credentials by longest matching prefix, for every store that takes some; and that none of them is ever told."""

import json
import socket
from pathlib import Path

import pytest

from tesk.filer.credentials import Credentials
from tesk.filer.errors import TransferError
from tesk.filer.prefix import matches, plain
from tesk.tes import Input
from tests.filer.faulty import Script, answer, faulty
from tests.filer.stores import Places, fetch, tree, write
from tests.known_secrets import known
from tests.servers.ftp import ftp_server
from tests.servers.s3 import S3

SECRET = known("a key of a credentials file", "very-secret-väl/ue")


@pytest.mark.parametrize(
    ("prefix", "url", "does"),
    [
        ("s3://lab", "s3://lab", True),
        ("s3://lab", "s3://lab/a", True),
        ("s3://lab/", "s3://lab/a", True),
        ("s3://lab/a", "s3://lab/a/b", True),
        ("s3://lab/a", "s3://lab/ab", False),
        ("s3://lab", "s3://laboratory/a", False),
        ("https://data.org", "https://data.org?x=1", True),
        ("https://data.org", "https://data.org.evil.com/a", False),
        ("https://data.org", "https://data.org:8443/a", False),
        ("https://data.org", "https://data.org@evil.com/a", False),
        ("https://data.org", "https://me:pw@DATA.org/a", True),
        ("HTTPS://Data.Org/A", "https://data.org/A/b", True),
        ("https://data.org/A", "https://data.org/a", False),
        ("https://data.org", "http://data.org/a", False),
        ("https://data.org/", "https://data.org:443/a", True),
        ("https://data.org:443/", "https://data.org/a", True),
        ("https://data.org/", "https://data.org:4443/a", False),
        ("http://data.org/", "http://data.org:443/a", False),
        ("ftp://data.org/", "ftp://me@data.org:21/a", True),
    ],
)
def test_a_prefix_matches_whole_segments_of_the_same_host(prefix: str, url: str, does: bool) -> None:
    assert matches(plain(prefix), plain(url)) is does


@pytest.mark.parametrize(
    ("prefix", "url", "does"),
    [
        ("https://h/lab", "https://h/lab/../other", True),
        ("https://h/lab/", "https://h/lab/a/..", True),
        ("https://h/lab", "https://h/lab/%2e%2e/other", True),
        ("https://h/lab", "https://h/lab/.%2E/other", True),
        ("https://h/lab", "https://h/lab/%252e%252e/other", True),
        ("https://h/lab", "https://h/lab/%2e%2e%2fother", True),
        ("https://h/lab", "https://h/lab/x%2F..%2Fother", True),
        ("https://h/lab", "https://h/lab//../other", True),
        ("https://h/lab", "https://h/lab//..//other", True),
        ("https://h/lab", "https://h/lab\\..\\other", False),  # matches no whole segment of the prefix
        ("https://h/lab", "https://h/lab/..\\other", True),
        ("https://h/lab", "https://h/lab/x%5c..%5cother", True),
        ("https://h/lab", "https://h/lab/..;/other", True),
        ("https://h/lab", "https://h/lab/..;v=1/other", True),
        ("https://h/lab", "https://h/lab/..%3Bv/other", True),
        ("https://h/lab", "https://h/lab/%2e%2e%20/other", True),
        ("https://h/lab", "https://h/lab/..%3f/other", True),
        ("https://h/lab", "https://h/lab/a?b=../..", False),
        ("https://h/lab", "https://h/lab/a%2Fb//c;d/...x", False),
        ("https://h/lab", "https://h/lab/" + "%25" * 9 + "25" * 9 + "2e.", True),  # escaped too often to be looked at
        ("https://h/", "https://h/lab/../other", False),  # the whole host's
        ("https://h", "https://h/../other", False),
        ("sftp://h/lab", "sftp://h/lab/a?/../../other", True),  # a path of SFTP has no query
        ("ftp://h/%2Fsrv/lab", "ftp://h/%2Fsrv/lab/a", False),
        ("ftp://h/lab", "ftp://h/lab/%2e%2e/other", True),
        ("drs://h/lab", "drs://h/lab/..%2Fother", True),
    ],
)
def test_a_path_that_may_lead_out_of_a_prefix_is_none_of_its(prefix: str, url: str, does: bool, tmp_path: Path) -> None:
    told = Credentials(credentials(tmp_path, (prefix, {"user": "1"})))
    if does:
        with pytest.raises(TransferError, match="are not used for it"):
            told.of(url)
    else:
        assert told.of(url).read("user") == ("1" if matches(plain(prefix), plain(url)) else "")


def credentials(folder: Path, *tables: tuple[str, dict[str, str]], name: str = "stores.toml") -> tuple[str, ...]:
    folder.mkdir(exist_ok=True)
    text = "".join(
        f'["{prefix}"]\n' + "".join(f"{word} = {json.dumps(value)}\n" for word, value in words.items())
        for prefix, words in tables
    )
    (folder / name).write_text(text)
    return (str(folder),)


def test_the_longest_prefix_holds_over_all_files_of_a_folder(tmp_path: Path) -> None:
    credentials(tmp_path, ("s3://lab", {"region": "1"}), ("s3://lab/deep/er", {"region": "3"}), name="1.toml")
    told = Credentials(credentials(tmp_path, ("s3://lab/deep", {"region_file": "value"}), name="2.toml"))
    (tmp_path / "value").write_text("2")
    found = [told.of(f"s3://lab{path}").read("region") for path in ("/x", "/deep", "/deep/x", "/deep/er/x", "oratory")]
    assert found == ["1", "2", "2", "3", ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = [", "are not TOML"),
        ('["s3://lab"]\nusr = "very-secret"', "'usr' of \"s3://lab\" is no word of this kind of store"),
        ('[lab]\nuser = "very-secret"', '"lab" is no URL prefix'),
        ('["s3://lab"]\nuser = 1', '"s3://lab" is no table of texts'),
        ('["s3://me:very-secret@lab"]\nregion_file = "none"', 'region_file of "s3://lab" in'),
    ],
)
def test_files_that_cannot_be_used_are_named_without_what_they_hold(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "stores.toml").write_text(text)
    with pytest.raises(TransferError) as error:
        Credentials([str(tmp_path / "stores.toml")]).of("s3://lab/a").read("region")
    assert reason in error.value.answer
    assert "very-secret" not in error.value.answer + error.value.advice


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    failure = fetch(tmp_path, Input("/f", url="http://127.0.0.1:1/f"), credentials=("/none/x.toml",), retries=5).failure
    assert "the credentials /none/x.toml cannot be read (no such file or directory)" in failure


def test_s3_takes_the_key_of_the_prefix_and_not_the_environments(
    places: Places, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in s3.environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    write(places["s3"].folder, {"f": b"the bytes"})
    words = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "endpoint": s3.url}
    told = credentials(tmp_path / "told", (places["s3"].url(""), words))
    report = places.fetch(Input("/f", url=places["s3"].url("f")), credentials=told)
    assert report.ok, report.failure
    assert tree(places.root) == {"f": b"the bytes"}
    wrong = credentials(tmp_path / "told", (places["s3"].url(""), {**words, "secret_access_key": SECRET}))
    report = places.fetch(Input("/g", url=places["s3"].url("f")), credentials=wrong)
    assert "access denied (403" in report.failure
    assert SECRET not in repr(report.events)


def asks(seen: list[bytes]) -> Script:
    def script(connection: socket.socket, _: int, head: bytes) -> None:
        seen.extend(line for line in head.split(b"\r\n") if line.startswith(b"Authorization: "))
        connection.sendall(answer("200 OK", b"the bytes"))

    return script


@pytest.mark.parametrize(
    ("words", "header"),
    [
        ({"token": "abc.def"}, b"Authorization: Bearer abc.def"),
        ({"user": "me", "password": "pw"}, b"Authorization: Basic bWU6cHc="),
        ({}, b"Authorization: Basic bmV0OnJj"),
    ],
    ids=["token", "login", "netrc"],
)
def test_http_takes_a_token_or_a_login_or_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, str], header: bytes
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login net password rc\ndefault login any password one\n")
    seen: list[bytes] = []
    with faulty(asks(seen)) as server:
        told = credentials(tmp_path / "told", (f"{server.url}/", words))
        assert fetch(tmp_path, Input("/f", url=f"{server.url}/f"), credentials=told).ok
        assert seen == [header]
        assert fetch(tmp_path, Input("/f", url=server.url.replace("://", "://u:p@") + "/f"), credentials=told).ok
        assert seen[1:] == [b"Authorization: Basic dTpw"]


def test_a_redirect_takes_no_token_to_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    seen: list[bytes] = []
    with faulty(asks(seen)) as other:

        def away(connection: socket.socket, _n: int, _h: bytes) -> None:
            connection.sendall(answer("302 Found", b"", f"Location: {other.url}/f"))

        with faulty(away) as server:
            told = credentials(tmp_path / "told", (server.url, {"token": "abc"}))
            assert fetch(tmp_path, Input("/f", url=f"{server.url}/f"), credentials=told).ok
    assert seen == []


def test_a_redirect_takes_no_token_to_a_path_of_other_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))

    def away(connection: socket.socket, _n: int, head: bytes) -> None:
        where = {b"/lab/in": "/lab/f", b"/lab/out": "/other/f"}.get(head.split()[1])
        moved = answer("302 Found", b"", f"Location: {where}")
        connection.sendall(moved if where else answer("200 OK", b"the bytes"))

    with faulty(away) as server:
        told = credentials(tmp_path / "told", (f"{server.url}/lab", {"token": "abc"}))
        for name in ("in", "out"):
            assert fetch(tmp_path, Input(f"/{name}", url=f"{server.url}/lab/{name}"), credentials=told).ok
    had = {head.split()[1]: b"Authorization" in head for head in server.requests[2:]}
    assert b"Authorization" in server.requests[1]
    assert had == {b"/lab/out": True, b"/other/f": False}


@pytest.mark.parametrize("place", ["credentials", "netrc"])
def test_ftp_takes_a_login_or_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    write(tmp_path, {"served/f": b"the bytes", "root": None})
    with ftp_server(tmp_path / "served", user="mé", password=SECRET) as url:
        bare = "ftp://" + url.rpartition("@")[2]
        told: tuple[str, ...] = ()
        if place == "netrc":
            (tmp_path / "netrc").write_text(f'machine 127.0.0.1 login mé password "{SECRET}"\n')
        else:
            told = credentials(tmp_path / "told", (bare, {"user": "mé", "password": SECRET}))
        report = fetch(tmp_path / "root", Input("/f", url=f"{bare}/f"), credentials=told)
        assert report.ok, report.failure
    assert tree(tmp_path / "root") == {"f": b"the bytes"}
