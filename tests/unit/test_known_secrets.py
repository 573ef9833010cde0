"""That a secret is found wherever tesk could leave it, in whichever way it is written."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import known_secrets

pytest_plugins = ["pytester"]

SECRET = 'öf+the/tests of "secrets"'


@pytest.fixture(autouse=True)
def secret() -> Iterator[None]:
    known_secrets.known("a planted secret", SECRET)
    yield
    known_secrets.forget(SECRET)


@pytest.mark.parametrize(
    "written",
    [
        f"before {SECRET} after",
        "\\u00f6f+the/tests of \\\"secrets\\\"",
        f"https://h/?sig={quote(SECRET)}&x",
        f"https://h/?sig={quote(SECRET, safe='').lower()}&x",
        *(base64.b64encode(f"{before}{SECRET}:after".encode()).decode() for before in ("", "u", "us", "user:")),
        *(base64.urlsafe_b64encode(f"{before}{SECRET}".encode()).decode() for before in ("", "u", "us")),
    ],
)  # fmt: skip
def test_a_secret_is_found_however_it_is_written(written: str) -> None:
    known_secrets.look("a text", written)
    known_secrets.look("a text without it", "öf+the/tests of secrets")
    assert known_secrets.take() == ["a planted secret is in a text"]


def test_a_log_is_looked_at_line_by_line_as_it_grows_and_at_its_end(tmp_path: Path) -> None:
    path, stream = tmp_path / "log", io.BytesIO()
    with known_secrets.log_file("a file", path), known_secrets.log_stream("a stream", stream):
        path.write_text(f"{SECRET[:5]}")
        stream.write(b"nothing\n")
        assert known_secrets.take() == []
        path.write_text(f"{SECRET}\n")
        stream.write(SECRET.encode() + b"\n")
        assert known_secrets.take() == [
            f"a planted secret is in a file ({path})",
            "a planted secret is in a stream",
        ]
        with path.open("a") as log:
            log.write(f"{SECRET} at the end")
        assert known_secrets.take() == []
    assert known_secrets.take() == [f"a planted secret is in a file ({path})"]


@pytest.mark.parametrize(
    ("logs", "sent", "where"),
    [
        ([{"system_logs": ["no", SECRET]}], "", ["the system logs", "the document"]),
        ([{"logs": [{"stdout": SECRET}]}], "", ["the document"]),
        ([{"outputs": [{"url": SECRET}]}], "", ["the document"]),
        ([{"outputs": [{"url": SECRET}]}], SECRET, []),
        ([{"system_logs": [SECRET]}], SECRET, ["the system logs"]),
    ],
)
def test_a_task_has_only_the_secrets_that_it_was_sent_with_and_none_in_sentences(
    logs: list[object], sent: str, where: list[str]
) -> None:
    document = {"inputs": [{"path": "/a", "url": sent}]}
    known_secrets.look_at_task({"id": "t", "logs": logs, **document}, document)
    assert known_secrets.take() == [f"a planted secret is in {each} of task t" for each in where]


def test_a_test_fails_that_leaves_a_secret(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.conftest import pytest_runtest_teardown\n")
    pytester.makepyfile(
        f"""
        from tests import known_secrets

        def test_it():
            known_secrets.look("a text", known_secrets.known("a planted secret", {SECRET!r}))

        def test_another():
            known_secrets.look("a text", "nothing")
        """
    )
    outcome = pytester.runpytest_inprocess("-p", "no:xdist")
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*a planted secret is in a text*"])
