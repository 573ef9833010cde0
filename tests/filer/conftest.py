"""One real server of each kind for the whole session; each test works in folders of its own below their roots."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.filer.stores import Place, Places
from tests.known_secrets import known
from tests.servers.azure import Azure, azure_server
from tests.servers.drs import drs_server
from tests.servers.ftp import ftp_server
from tests.servers.gcs import Gcs, gcs_server
from tests.servers.nginx import nginx
from tests.servers.s3 import S3, s3_server
from tests.servers.sshd import Sshd, sshd

numbers = itertools.count()
known("a key or token of the filer's tests", "very-secret")
known("a wrong password of the filer's tests", "wrong-secret")
known("a header of a DRS server", "other-secret")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for above in (folder, *folder.parents[:3]):
        above.chmod(0o755)
    for name in ("s3", "ftp", "web", "share", "sftp"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="session")
def s3(served: Path) -> Iterator[S3]:
    with s3_server(served / "s3") as server:
        yield server


@pytest.fixture(scope="session")
def ftp_url(served: Path) -> Iterator[str]:
    with ftp_server(served / "ftp", user="mé", password="p@ss/word") as url:
        yield url


@pytest.fixture(scope="session")
def web_url(served: Path) -> Iterator[str]:
    with nginx(served / "web") as url:
        yield url


@pytest.fixture(scope="session")
def drs_of_web(served: Path, web_url: str) -> Iterator[str]:
    with drs_server(served / "web", web_url) as server:
        yield server.url


@pytest.fixture(scope="session")
def ssh() -> Iterator[Sshd]:
    with sshd() as server:
        yield server


@pytest.fixture(scope="session")
def gcs() -> Iterator[Gcs]:
    with gcs_server() as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> Iterator[Azure]:
    with azure_server() as server:
        yield server


@pytest.fixture
def places(
    served: Path,
    s3: S3,
    gcs: Gcs,
    azure: Azure,
    ftp_url: str,
    web_url: str,
    drs_of_web: str,
    ssh: Sshd,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Places:
    """An empty folder in each store, by scheme: one for each that is declared (tesk/schemes.py)."""
    for name, value in {**s3.environment(), **gcs.environment(), **azure.environment()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh.settle(tmp_path)
    name = f"test-{next(numbers)}"
    folders = {kind: served / kind / name for kind in ("s3", "ftp", "web", "share", "sftp")}
    for folder in folders.values():
        folder.mkdir()
    (tmp_path / "root").mkdir()
    drs_url = drs_of_web.replace("http:", "drs:")
    (tmp_path / "drs.toml").write_text(f'["{drs_url}"]\nendpoint = "{drs_of_web}"\n')
    return Places(
        tmp_path / "root",
        {
            "s3": Place(folders["s3"], f"s3://{name}", quoted=False),
            "ftp": Place(folders["ftp"], f"{ftp_url}/{name}", quoted=True),
            "http": Place(folders["web"], f"{web_url}/{name}", quoted=True),
            "drs": Place(folders["web"], f"{drs_url}/{name}", quoted=True),
            "az": Place(azure.make(name), f"az://{name}", quoted=False),
            "gs": Place(gcs.make(name), f"gs://{name}", quoted=False),
            "sftp": Place(folders["sftp"], f"{ssh.url}{folders['sftp']}", quoted=True),
            "file": Place(folders["share"], f"file://{folders['share']}", quoted=True),
            "path": Place(folders["share"], str(folders["share"]), quoted=False),
        },
        (str(served / "share"),),
        (str(tmp_path / "drs.toml"),),
    )
