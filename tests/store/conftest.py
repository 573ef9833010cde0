"""Each test of the store runs on both databases, each time on an empty one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tesk.store import open_store
from tesk.store.base import Store
from tests.servers.postgres import Postgres, postgres
from tests.store.patience import LIMITS, PATIENT_S

LOG_TAIL_BYTES = 64


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `be_patient`, for each test."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, PATIENT_S)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tasks.db'}"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = open_store(database_url, log_tail_bytes=LOG_TAIL_BYTES)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def durable_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database that syncs its disk, for all tests of a module."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('durable') / 'tasks.db'}"
        return
    with postgres(durable=True) as server:
        yield server.new_database()
