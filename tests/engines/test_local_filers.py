"""Filers as children of the server: their memory has a bound, and a step that meets it says which."""

import asyncio
import signal
from pathlib import Path

import pytest

from tesk.filer.plan import FilerSettings, InputsPlan
from tesk.life.transfer import Transfer
from tesk.places.local.filers import Filers, read_report, why_killed
from tesk.tes import FileType, Input

MIB = 1024 * 1024


async def fetched(folder: Path, memory_bytes: int, *inputs: Input) -> Transfer:
    """What a step has told that fetches the inputs with so much memory, besides stacks."""
    (folder / "root").mkdir()
    settings = FilerSettings(file_roots=(str(folder),), concurrency=2)
    filers = Filers(memory_bytes)
    try:
        await filers.run("k", InputsPlan(f"{folder}/root", list(inputs), settings=settings), folder, folder / "report")
    finally:
        await filers.close()
    return await asyncio.to_thread(read_report, folder / "report")


async def test_a_filer_that_uses_up_its_memory_ends_and_says_so(tmp_path: Path) -> None:
    """It is given hundreds of thousands of inputs and next to nothing to remember them in."""
    many = [Input("/in", content="x")] * 300_000
    found = await fetched(tmp_path, MIB, *many)
    assert found.verdict
    assert found.verdict.startswith("the filer used up its memory, ")
    assert "MiB with its threads' stacks (on one machine: filer_ram_gb)" in found.verdict


@pytest.mark.parametrize("memory_bytes", [0, 64 * MIB])
async def test_a_filer_with_enough_memory_goes_well(tmp_path: Path, memory_bytes: int) -> None:
    large = tmp_path / "in"
    large.mkdir()
    for n in range(50):
        (large / f"{n}").write_bytes(bytes(8 * MIB if n == 0 else 100))
    url = f"file://{large}"
    found = await fetched(tmp_path, memory_bytes, Input("/in", url=url, type=FileType.DIRECTORY))
    assert found.verdict == ""
    assert len(list((tmp_path / "root/in").iterdir())) == 50


@pytest.mark.parametrize(
    ("code", "memory_bytes", "words"),
    [
        (-signal.SIGABRT, 512 * MIB, "aborted again and again, as one that has used up its 0.5 GiB (filer_ram_gb)"),
        (-signal.SIGABRT, 0, "killed again and again"),
        (-signal.SIGKILL, 512 * MIB, "killed again and again"),
        (None, 512 * MIB, "killed again and again"),
    ],
)
def test_a_filer_that_is_killed_blames_its_bound_where_that_may_be(
    code: int | None, memory_bytes: int, words: str
) -> None:
    assert f"the filer was {words}" in why_killed(code, memory_bytes)
