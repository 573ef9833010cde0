"""From the flags of `tesk run` to a TES document: a table, since it is one."""

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesk import tes
from tesk.cli.document import content_from, input_from, output_from, pairs_from, task_from
from tesk.cli.tasks import appended


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("https://h/a.txt=/in/a.txt", {"url": "https://h/a.txt", "path": "/in/a.txt"}),
        ("https://h/?q=/a&r=b=/in/a", {"url": "https://h/?q=/a&r=b", "path": "/in/a"}),
        ("s3://lab/k=v.txt=/in/k=v.txt", {"url": "s3://lab/k=v.txt", "path": "/in/k=v.txt"}),
        ("/srv/a=/in/a", {"url": "/srv/a", "path": "/in/a"}),
        ("s3://lab/ref/=/ref/", {"url": "s3://lab/ref/", "path": "/ref/", "type": "DIRECTORY"}),
    ],
)
def test_an_input_goes_from_its_url_to_its_path(text: str, document: dict[str, Any]) -> None:
    assert input_from(text) == document


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("/out/a=s3://lab/a", {"path": "/out/a", "url": "s3://lab/a"}),
        ("/out/a=b=s3://lab/c=d", {"path": "/out/a=b", "url": "s3://lab/c=d"}),
        ("/out/a=/srv/a", {"path": "/out/a", "url": "/srv/a"}),
        ("/out/=file:///srv/out", {"path": "/out/", "url": "file:///srv/out", "type": "DIRECTORY"}),
        ("/out/*.bam=s3://lab/", {"path": "/out/*.bam", "url": "s3://lab/", "path_prefix": "/out"}),
        ("/o/s[12]/x?=s3://lab/", {"path": "/o/s[12]/x?", "url": "s3://lab/", "path_prefix": "/o"}),
        ("/*.txt=s3://lab/", {"path": "/*.txt", "url": "s3://lab/", "path_prefix": "/"}),
    ],
)
def test_an_output_goes_from_its_path_to_its_url(text: str, document: dict[str, Any]) -> None:
    assert output_from(text) == document


def test_a_local_file_travels_in_the_task(tmp_path: Path) -> None:
    file = tmp_path / "script=1.sh"
    file.write_text("echo é\n")
    assert input_from(f"@{file}=/run/s.sh") == {"path": "/run/s.sh", "content": "echo é\n"}


def test_text_of_the_command_line_travels_in_the_task() -> None:
    assert content_from("a=b\n=/in/x") == {"path": "/in/x", "content": "a=b\n"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://h/a.txt", "is not URL=/path"),
        ("=/in/a", "is not URL=/path"),
        ("a.txt=/in/a", "write @a.txt=/in/a"),
        ("@/no/such/file=/in/a", "/no/such/file: cannot be read: No such file"),
    ],
)
def test_a_wrong_input_is_explained(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        input_from(text)
    assert said in refused.value.message


@pytest.mark.parametrize("text", ["/out/a", "out/a=s3://lab/a", "/out/a=", "/out/a=b", "s3://lab/a"])
def test_a_wrong_output_is_explained(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not /path/in/container=URL"):
        output_from(text)


def test_a_local_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.bam"
    file.write_bytes(b"\xff\x00")
    with pytest.raises(click.BadParameter, match="not UTF-8 text"):
        input_from(f"@{file}=/in/a")


def test_pairs_need_an_equals_sign_unless_a_bare_key_means_something() -> None:
    assert pairs_from(["a=b=c", "d="], what="--env", bare_ok=False) == {"a": "b=c", "d": ""}
    assert pairs_from(["a"], what="--tag", bare_ok=True) == {"a": ""}
    with pytest.raises(click.BadParameter, match="--env 'a' is not KEY=VALUE"):
        pairs_from(["a"], what="--env", bare_ok=False)


def test_the_document_is_one_that_the_server_takes() -> None:
    document = task_from(
        image="alpine",
        command=["sh", "-c", ""],
        inputs=[input_from("s3://lab/a=/in/a"), content_from("=/in/empty")],
        outputs=[output_from("/out/*=s3://lab/out/")],
        volumes=["/tmp/v"],
        executor={"env": {"A": "1"}, "workdir": None, "ignore_error": True},
        resources={"cpu_cores": 0.5, "ram_gb": None},
        tags={"batch": ""},
        name=None,
    )
    task, warnings = tes.parse(msgspec.json.encode(document))
    assert warnings == []
    assert task.executors[0].command == ["sh", "-c", ""]
    assert task.resources == tes.Resources(cpu_cores=0.5)
    assert "name" not in document


@given(before=st.text(max_size=40), new=st.text(max_size=40))
def test_following_a_stream_that_still_fits_shows_exactly_what_is_new(before: str, new: str) -> None:
    assert appended(before, before + new) == new


@given(length=st.integers(0, 60), seen=st.integers(0, 60), kept=st.integers(1, 30))
def test_following_a_tail_that_is_cut_repeats_nothing_and_shows_all_that_is_kept(
    length: int, seen: int, kept: int
) -> None:
    stream = "".join(chr(0x4E00 + n) for n in range(length))  # no character twice, so that an overlap is one
    assert appended(stream[:seen][-kept:], stream[-kept:]) == stream[seen:][-kept:]


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "abc", "abc"),
        ("abc", "abc", ""),
        ("abc", "abcde", "de"),
        ("abcd", "cdef", "ef"),
        ("abcd", "wxyz", "wxyz"),
        ("abcd", "", ""),
    ],
)
def test_what_a_tail_has_beyond_the_earlier_one(before: str, now: str, new: str) -> None:
    assert appended(before, now) == new
