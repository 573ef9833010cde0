"""A task's folder: facts that are whole or absent, ends of streams that hostile programs wrote, space given back."""

import os
from pathlib import Path

import pytest

from tesk.life.facts import Facts
from tesk.places.local.folder import Folder, recalled
from tesk.tails import TRIM_BYTES, open_below, tail
from tesk.tes import ExecutorLog, OutputFileLog, TaskLog


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "task")
    folder.make()
    return folder


def test_a_fact_is_whole_or_not_there(folder: Folder) -> None:
    assert folder.fact("began", str) is None
    folder.establish("began", "now")
    folder.establish("began", "then")
    assert folder.fact("began", str) == "then"
    assert os.listdir(folder.path / "facts") == ["began"]


@pytest.mark.parametrize("rest", [b"", b"\0" * 40, b'{"at": "20'])
def test_a_fact_that_a_power_cut_has_spoilt_is_absent_and_named(folder: Folder, rest: bytes) -> None:
    folder.establish("began", "now")
    folder.establish("started-0", {"at": "now"})
    (folder.path / "facts" / "started-0").write_bytes(rest)
    assert folder.fact("started-0") is None
    assert folder.has("started-0")
    assert folder.unreadable() == ["started-0"]


def test_a_durable_fact_is_on_disk_before_it_has_its_name_and_its_name_before_the_call_returns(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        calls.append(f"fsync {os.path.relpath(os.readlink(f'/proc/self/fd/{descriptor}'), folder.path)}")

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        calls.append(f"rename {os.path.relpath(target, folder.path)}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    folder.establish("began", "now", durable=True)
    folder.keep()
    folder.establish("ended", "now")
    assert calls == ["fsync facts/.began", "rename facts/began", "fsync facts", "fsync .", "fsync ..",
                     "rename facts/ended"]  # fmt: skip


def test_notes_are_lines_in_order(folder: Folder) -> None:
    assert folder.notes() == []
    folder.note("one")
    folder.note("two\nlines")
    assert folder.notes() == ["one", "two lines"]


def test_a_tail_is_the_end_of_the_file_and_never_half_a_character(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a" + "é" * 100)
    assert tail(tmp_path, "/out", 11) == "é" * 5
    assert tail(tmp_path, "/out", 1000) == "a" + "é" * 100
    (tmp_path / "out").write_bytes(b"\xff\xfeok")
    assert tail(tmp_path, "/out", 1000).endswith("ok")
    assert tail(tmp_path, "/absent/out", 10) == ""


def test_streams_of_a_folder_that_is_gone_are_empty(folder: Folder) -> None:
    """As when a task ends and is cleaned up while somebody reads its log."""
    folder.remove()
    folder.trim(0)
    assert tail(*folder.stream(0, None, "stdout"), 10) == ""
    assert tail(*folder.stream(0, "/out", "stdout"), 10) == ""


def test_nothing_is_read_through_links_pipes_or_folders(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "link").symlink_to(secret)
    (root / "up").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    for path in ("/link", "/up/secret", "/../secret", "/pipe", "/folder", "/folder/../../secret"):
        descriptor = open_below(root, path, os.O_RDONLY)
        assert descriptor is None or path.startswith(("/..", "/folder/..")), path
        if descriptor is not None:
            os.close(descriptor)
    assert tail(root, "/link", 100) == tail(root, "/up/secret", 100) == ""


def test_trimming_gives_space_back_and_keeps_the_end(folder: Folder) -> None:
    control = folder.control(0)
    with (control / "stdout").open("wb") as out:
        for _ in range(3):
            out.write(b"x" * TRIM_BYTES)
        out.write(b"the end")
    before = (control / "stdout").stat()
    folder.trim(0)
    after = (control / "stdout").stat()
    assert after.st_size == before.st_size
    assert after.st_blocks < before.st_blocks / 2
    assert tail(folder.path / "control" / "0", "/stdout", 7) == "the end"


def test_removing_takes_all_with_it_and_may_be_repeated(folder: Folder) -> None:
    (folder.scratch / "a/b").mkdir(parents=True)
    (folder.scratch / "a/b/f").write_text("x")
    (folder.scratch / "a").chmod(0)
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


NO_CODES = ("3", "256\n", "-1\n", "0\n0\n", "127 workdir\n", "0" * 100 + "\n")


@pytest.mark.parametrize(("said", "code"), [("0\n", 0), ("255\n", 255), *((said, None) for said in NO_CODES)])
def test_an_exit_code_is_one_only_in_the_form_in_which_the_shim_leaves_it(
    folder: Folder, said: str, code: int | None
) -> None:
    (folder.control(0) / "ended").write_text(said)
    assert folder.exit_code(0) == code
    assert folder.exit_code(1) is None


def test_the_facts_are_what_a_server_of_any_version_has_left(folder: Folder) -> None:
    facts = {
        "began": '"2026-01-01T00:00:00.000Z"', "executor-0": '{"exit_code":3,"stdout":"out","stderr":"err"}',
        "started-0": '{"at":"x","boot":"b"}', "started-1": '{"at":"x","boot":"b"}', "overdue-1": '{"at":"x"}',
        "outputs": '[{"url":"file:///o","path":"/o","size_bytes":"1"}]',
    }  # fmt: skip
    for name, text in facts.items():
        (folder.path / "facts" / name).write_text(text)
    (folder.path / "system.log").write_text("executor 0 (image): exit code 3, ignored\n")
    entry, outputs = ExecutorLog(3, stdout="out", stderr="err"), [OutputFileLog("file:///o", "/o", "1")]
    log = TaskLog(
        [entry], outputs, "2026-01-01T00:00:00.000Z", system_logs=["executor 0 (image): exit code 3, ignored"]
    )
    assert recalled(folder, 1000) == Facts(log, pushed=True, timed_out=[1])
