"""That a secret is found in the answers of a server and in a filer's report (tests/known_secrets.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tesk.tes import Input, Output
from tests import known_secrets
from tests.api.conftest import running
from tests.filer.stores import fetch, push
from tests.servers.process import refusing

SECRET = "planted-in-the-tests"


@pytest.fixture(autouse=True)
def secret() -> Iterator[None]:
    known_secrets.known("a planted secret", SECRET)
    yield
    known_secrets.forget(SECRET)


def test_in_an_answer_that_nobody_asked_for_with_it(tmp_path: Path) -> None:
    with running(tmp_path, service_name=SECRET) as server:
        server.client.get("/v1/service-info")
        assert known_secrets.take() == ["a planted secret is in the answer to GET /v1/service-info"]
        server.client.get("/v1/service-info", headers={"Authorization": f"Bearer {SECRET}"})
        assert known_secrets.take() == ["a planted secret is in the answer to GET /v1/service-info"]
        server.client.get("/v1/tasks", params={"name_prefix": SECRET}).raise_for_status()
    assert known_secrets.take() == []


def test_in_a_filers_report(tmp_path: Path) -> None:
    with refusing() as port:
        fetch(tmp_path, Input("/f", url=f"http://127.0.0.1:{port}/{SECRET}"), retries=1)
    assert known_secrets.take() == ["a planted secret is in a filer's report"]


def test_not_in_the_url_of_an_output_that_was_sent_with_it(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "f").write_text("x")
    report = push(tmp_path / "root", Output("/f", f"file://{tmp_path}/{SECRET}"), file_roots=(str(tmp_path),))
    assert report.ok
    assert SECRET in repr(report.pushed)
    assert known_secrets.take() == []
