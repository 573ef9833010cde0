"""The runner of a task's pod with real shims beside it: what happens to the task, and what is told of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tesk.tes import State
from tests.pod.pods import NAME, WORD, Pod, Server

MakePod = Callable[..., Pod]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def pods(tmp_path: Path, server: Server) -> Iterator[MakePod]:
    """Makes pods of documents, whose executors are given by their scripts."""
    made: list[Pod] = []

    def make(*scripts: str | dict[str, Any], report: str = server.address, settings: Any = None, **more: Any) -> Pod:
        executors = [
            {"image": "busybox", **({"command": ["sh", "-c", each]} if isinstance(each, str) else each)}
            for each in scripts
        ]
        folder = tmp_path / str(len(made))
        folder.mkdir()
        tmp_path.chmod(0o755)
        made.append(Pod(folder, report, {"executors": executors, **more}, **(settings or {})))
        return made[-1]

    yield make
    for pod in made:
        pod.close()


def test_a_hello_runs_and_its_end_is_told(pods: MakePod, server: Server) -> None:
    pod = pods("echo hello; echo oops >&2")
    pod.start()
    outcome = pod.ended()
    assert (outcome.code, pod.end_of(0), outcome.stderr) == (0, 0, "")
    assert outcome.record is not None
    assert outcome.record == outcome.last_words == server.records[-1]
    assert outcome.record.state is State.COMPLETE
    (entry,) = outcome.record.now.log.logs
    assert (entry.exit_code, entry.stdout, entry.stderr) == (0, "hello\n", "oops\n")
    assert outcome.log == [{"executor": 0}, {"stdout": "hello\n"}, {"stderr": "oops\n"}]
    assert set(server.requests) == {(f"/{NAME}", f"Bearer {WORD}")}
