"""A reporter in a folder that a hostile program writes in: it tells the end, and nothing else keeps it busy."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tesk.kubernetes.messages import Ended, PodMessage, Started
from tesk.pod import messages, reporter
from tesk.pod.reporter import Reporter
from tesk.taskmaster.listener import MessageListener
from tesk.taskmaster.observations import Observations

TOKEN = "secret"
PATIENT_S = 300.0
Heard = Callable[[], list[PodMessage]]


@pytest.fixture(scope="module")
def taskmaster() -> Iterator[tuple[Observations, str]]:
    """What listens to reporters, and its address."""
    observations = Observations()
    listener = MessageListener(observations, 0, TOKEN)
    yield observations, f"127.0.0.1:{listener.port}"
    listener.close()


@pytest.fixture
def told(taskmaster: tuple[Observations, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Gives what this test's reporter has told."""
    observations, address = taskmaster
    pod = tmp_path.name
    observations.expect(pod)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setattr(reporter, "TOKEN", tmp_path / "token")
    monkeypatch.setattr(reporter, "LAST_WORDS", tmp_path / "last-words")
    monkeypatch.setattr(reporter, "PATIENCE_S", PATIENT_S)  # as busy as the machine may be, it is told once
    monkeypatch.setattr(messages, "post", partial(messages.post, timeout_s=PATIENT_S))
    monkeypatch.setenv("TESK_TASKMASTER", address)
    monkeypatch.setenv("TESK_POD", pod)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda: observations.snapshot(pod)[2]
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "control"
    folder.mkdir()
    return folder


def ended(events: list[PodMessage]) -> Ended:
    *before, last = events
    assert isinstance(last, Ended)
    assert all(isinstance(each, Started) for each in before)
    return last


def run(control: Path, then: Callable[[], object]) -> None:
    """Runs a reporter; `then` happens a moment after its start."""
    later = threading.Timer(0.1, then)
    later.start()
    Reporter({"stdout": (control, "/stdout"), "stderr": (control, "/stderr")}, 100, control).run()
    later.join()


def test_the_end_is_told_with_the_ends_of_both_streams(control: Path, told: Heard) -> None:
    (control / "stdout").write_text("x" * 200 + "\n")
    (control / "stderr").write_text("oops\n")
    (control / "started").touch()
    (control / "oom").touch()
    run(control, lambda: (control / "ended").write_text("137\n"))
    assert isinstance(told()[0], Started)
    last = ended(told())
    assert (last.exit_code, last.stdout, last.stderr) == (137, "x" * 99 + "\n", "oops\n")
    assert (last.out_of_memory, last.terminated, last.problem) == (True, False, "")


@pytest.mark.parametrize(
    "text", ["", "0", "no\n", "-1\n", "256\n", "99999999999999999999\n", "0 other\n", "\n", "0\n0\n"]
)
def test_what_is_no_exit_code_is_not_an_end(control: Path, told: Heard, text: str) -> None:
    (control / "ended").write_text(text)
    run(control, lambda: (control / "ended").write_text("7\n"))
    assert ended(told()).exit_code == 7


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/proc/self/environ"),
        lambda path: path.symlink_to(path.parents[1] / "elsewhere"),
        lambda path: path.symlink_to(path),
    ],
    ids=["fifo", "folder", "link", "link to an end", "loop"],
)
def test_links_pipes_and_folders_in_place_of_files_count_for_nothing(
    control: Path, told: Heard, make: Callable[[Path], None]
) -> None:
    (control.parent / "elsewhere").write_text("0\n")
    for name in ("started", "stdout", "stderr", "ended"):
        make(control / name)

    def mend() -> None:
        path = control / "ended"
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        path.write_text("3 workdir\n")

    run(control, mend)
    last = ended(told())
    assert (last.exit_code, last.stdout, last.stderr, last.problem) == (3, "", "", "workdir")
    assert (control.parent / "elsewhere").read_text() == "0\n"
