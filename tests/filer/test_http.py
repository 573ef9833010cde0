"""HTTP against a real server: credentials, WebDAV's parents, TLS."""

import ssl
from pathlib import Path

import pytest

from tesk.tes import Input, Output
from tests.filer.stores import DIRECTORY, fetch, push, tree, write
from tests.servers.certificates import certificate
from tests.servers.nginx import nginx


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("web", "root"):
        (tmp_path / name).mkdir()
    return tmp_path / "web", tmp_path / "root"


def test_credentials_in_the_url_are_used_and_never_told(folders: tuple[Path, Path]) -> None:
    web, root = folders
    write(web, {"f": b"private"})
    with nginx(web, user="me", password="p@ss:word") as url:
        known = url.replace("://", "://me:p%40ss%3Aword@")
        report = fetch(root, Input("/f", url=f"{known}/f"))
        assert report.ok, report.failure
        report = push(root, Output("/f", f"{known}/g"))
        assert report.ok, report.failure
        assert report.pushed["/f"].url == f"{url}/g"
        for bad in (url, url.replace("://", "://me:wrong-secret@")):
            report = fetch(root, Input("/h", url=f"{bad}/f"))
            assert f"access denied (401) by {url} after 1 try" in report.failure
            assert "wrong-secret" not in repr(report.events)
            refused = push(root, Output("/f", f"{bad}/h"))
            assert f"access denied (401) by {url} after 1 try" in refused.failure
    assert tree(web) == {"f": b"private", "g": b"private"}


def test_parents_are_made_where_the_server_wants_that(folders: tuple[Path, Path]) -> None:
    web, root = folders
    write(root, {"d/a": b"a", "d/deep/er/b": b"b"})
    with nginx(web, make_parents=False) as url:
        report = push(root, Output("/d", f"{url}/new/d", type=DIRECTORY))
        assert report.ok, report.failure
    assert {path: data for path, data in tree(web).items() if data is not None} == {
        "new/d/a": b"a",
        "new/d/deep/er/b": b"b",
    }


def test_a_query_stays_behind_the_name(folders: tuple[Path, Path]) -> None:
    web, root = folders
    write(root, {"d/a b": b"a"})
    with nginx(web) as url:
        report = push(root, Output("/d/*", f"{url}/up?token=secret", path_prefix="/d"))
        assert report.ok, report.failure
    assert tree(web) == {"up": None, "up/a b": b"a"}
    assert "secret" not in repr(report.events)


def test_tls_is_verified(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web, root = folders
    pem = certificate(tmp_path)
    content = bytes(range(256)) * 20_000
    write(root, {"f": content})
    with nginx(web, certificate=pem) as url:
        assert f"the certificate of {url} is not trusted" in push(root, Output("/f", f"{url}/f")).failure
        monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(pem))
        report = push(root, Output("/f", f"{url}/f"))
        assert report.ok, report.failure
        assert fetch(root, Input("/g", url=f"{url}/f")).ok
    assert (web / "f").read_bytes() == (root / "g").read_bytes() == content
