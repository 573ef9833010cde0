"""What the local engine keeps of a filer's report, however long that is."""

from pathlib import Path

import msgspec
import pytest

from tesk.filer.plan import Done, Event, Failed, Progress, Pushed, Warned
from tesk.life.transfer import MOST_WARNINGS
from tesk.places.local.filers import OUTPUTS_BYTES, last_progress, read_report
from tesk.tes import OutputFileLog


def written(tmp_path: Path, *events: Event, rest: bytes = b"") -> Path:
    report = tmp_path / "outputs.jsonl"
    report.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events) + rest)
    return report


def test_a_short_report_is_kept_whole(tmp_path: Path) -> None:
    found = read_report(written(tmp_path, Warned("w"), Progress(1, 1), Pushed("file:///o", "/o", 7), Done()))
    assert (found.verdict, found.outputs) == ("", [OutputFileLog("file:///o", "/o", "7")])
    assert found.notes() == ["warning: w"]


def test_of_too_many_outputs_the_first_are_kept_and_the_number_told(tmp_path: Path) -> None:
    outputs = [Pushed(f"file:///shared/results/{n:06}.txt", f"/out/{n:06}.txt", n) for n in range(150_000)]
    found = read_report(written(tmp_path, *outputs, Done()))
    shown = len(found.outputs)
    assert 20_000 < shown < 100_000
    assert [each.path for each in found.outputs] == [each.path for each in outputs[:shown]]
    assert len(msgspec.json.encode(found.outputs)) < OUTPUTS_BYTES
    words = f"150000 outputs were pushed; the list of them is too long to be kept, {shown} are shown"
    assert (found.verdict, found.notes()) == ("", [f"warning: {words}"])


def test_of_too_many_warnings_the_first_are_kept_and_the_number_of_others_told(tmp_path: Path) -> None:
    found = read_report(written(tmp_path, *(Warned(f"w{n}") for n in range(MOST_WARNINGS + 5)), Done()))
    lines = found.notes()
    assert lines[MOST_WARNINGS - 1 :] == [f"warning: w{MOST_WARNINGS - 1}", "warning: 5 further warnings are left out"]


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        ((Failed("no"),), "no"),
        ((Done(),), ""),
        ((Pushed("file:///o", "/o", 7),), "the filer ended without a word; was it killed, or is memory short?"),
        ((), "the filer ended without a word; was it killed, or is memory short?"),
    ],
)
def test_a_step_ends_as_its_last_line_says(tmp_path: Path, events: tuple[Event, ...], verdict: str) -> None:
    assert read_report(written(tmp_path, *events, rest=b'{"event":"do')).verdict == verdict


def test_a_report_that_is_not_there_yet_says_nothing(tmp_path: Path) -> None:
    assert read_report(tmp_path / "outputs.jsonl").outputs == []
    assert last_progress(tmp_path / "outputs.jsonl") is None
