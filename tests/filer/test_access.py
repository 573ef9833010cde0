"""What the rules do not open to a task, its filer does not open either, whoever names it."""

import json
import socket
from pathlib import Path

import pytest

from tesk.filer.access import StorageAccess
from tesk.filer.credentials import Credentials
from tesk.filer.errors import TransferError
from tesk.filer.plan import CredentialsFor
from tesk.tes import FileType, Input, Output
from tests.filer.faulty import answer, faulty
from tests.filer.stores import fetch, push, write

ADVICE = "which is not open to you: ask the operator for that"


def test_a_closed_url_is_neither_read_nor_written(tmp_path: Path) -> None:
    write(tmp_path, {"srv/b/f": b"theirs", "root/out": b"mine"})
    closed = f"file://{tmp_path}/srv/b"
    settings = {"file_roots": (str(tmp_path / "srv"),), "access": StorageAccess(closed=(closed,))}
    for report in (
        fetch(tmp_path / "root", Input("/f", url=f"{tmp_path}/srv/b/f"), **settings),
        push(tmp_path / "root", Output("/out", url=f"{closed}/f"), **settings),
    ):
        assert f'it lies in "{closed}", {ADVICE}' in report.failure
    assert (tmp_path / "srv/b/f").read_bytes() == b"theirs"


def test_what_a_drs_server_names_is_looked_at_too(tmp_path: Path) -> None:
    """The object's own URL is open; where it lies was known to nobody when the task was made."""
    seen: list[bytes] = []

    def script(connection: socket.socket, _: int, head: bytes) -> None:
        seen.append(head.split()[1])
        access = [{"type": "https", "access_url": {"url": f"{server.url}/lab-b/f"}}]
        connection.sendall(answer("200 OK", json.dumps({"size": 6, "access_methods": access}).encode()))

    with faulty(script) as server:
        told = tmp_path / "drs.toml"
        told.write_text(f'["drs://drs.test"]\nendpoint = "{server.url}"\n')
        report = fetch(
            tmp_path,
            Input("/f", url="drs://drs.test/1", type=FileType.FILE),
            credentials=(str(told),),
            access=StorageAccess(open=("drs://drs.test",), closed=(f"{server.url}/lab-b",)),
        )
    assert ADVICE in report.failure
    assert b"/lab-b/f" not in seen


def test_a_redirect_leads_into_nothing_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with credentials either that all filers have for the host."""
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))

    def away(connection: socket.socket, _n: int, head: bytes) -> None:
        where = {b"/lab-a/in": "/lab-a/f", b"/lab-a/out": "/x/%2e%2e/lab-b/f"}.get(head.split()[1])
        moved = answer("302 Found", b"", f"Location: {where}")
        connection.sendall(moved if where else answer("200 OK", b"the bytes"))

    with faulty(away) as server:
        told = tmp_path / "all.toml"
        told.write_text(f'["{server.url}"]\ntoken = "abc"\n')
        access = StorageAccess(open=(f"{server.url}/lab-a",), closed=(f"{server.url}/lab-b",), unlisted=False)
        for name, ok in (("in", True), ("out", False)):
            given = Input(f"/{name}", url=f"{server.url}/lab-a/{name}")
            report = fetch(tmp_path, given, credentials=(str(told),), access=access)
            assert report.ok is ok
    assert "redirects to a URL that may not be used: " in report.failure
    assert [head.split()[1] for head in server.requests] == [b"/lab-a/in", b"/lab-a/f", b"/lab-a/out"]


def test_credentials_of_an_entry_serve_its_urls_alone(tmp_path: Path) -> None:
    """One file may have the tables of several entries: a task has those of its own."""
    file = tmp_path / "labs.toml"
    file.write_text(
        "".join(f'["{prefix}"]\nregion = "{n}"\n' for n, prefix in enumerate(["s3://a", "s3://b", "s3://c/x"]))
    )
    of = Credentials([CredentialsFor("s3://a", str(file)), CredentialsFor("s3://c", str(file))]).of
    assert [of(url).read("region") for url in ("s3://a/f", "s3://b/f", "s3://c/f", "s3://c/x/f")] == ["0", "", "", "2"]


def test_an_entrys_credentials_go_before_those_of_everybody(tmp_path: Path) -> None:
    for name in ("all", "mine"):
        (tmp_path / f"{name}.toml").write_text(f'["https://h"]\nuser = "{name}"\n')
    of = Credentials([str(tmp_path / "all.toml"), CredentialsFor("https://h/a", str(tmp_path / "mine.toml"))]).of
    assert [of(url).read("user") for url in ("https://h/a/f", "https://h/b/f")] == ["mine", "all"]
    with pytest.raises(TransferError, match="are not used for it"):
        of("https://h/a/../b/f")
