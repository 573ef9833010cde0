"""Reference data in executors, on every engine: whoever may use a volume reads it, and nobody writes to it."""

import contextlib
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tesk.identity import Identity
from tesk.settings import Settings
from tests.engines.alone import lines
from tests.engines.places import LOCAL, KubernetesPlace, Place
from tests.engines.running import Document, Tesk, content, sh, started
from tests.engines.test_kubernetes_pods import logs_of
from tests.servers import cluster as clusters

WRITES = (
    "touch /refs/genomes/new || echo no; (echo x >> /refs/genomes/hg38.fa) || echo no; rm /refs/genomes/* || echo no"
)
NAMES = {"genomes": "hg38.fa", "private": "cohort.vcf"}
ANN = Identity(user="ann", groups=frozenset({"lab-a"}))
BEN = Identity(user="ben", groups=frozenset({"lab-b"}))


async def run(tesk: Tesk, who: Identity, *scripts: str, **document: Any) -> Document:
    executors = [sh(f"exec 2>/dev/null; {script}") for script in scripts]
    return await tesk.ended(await tesk.create_as(who, executors=executors, **document))


@contextlib.asynccontextmanager
async def with_data(settings: Settings, place: Place, folder: Path) -> AsyncIterator[Tesk]:
    """A running tesk with `genomes`, which is everybody's, and `private`, which is lab-a's. The data lies in `folder`;
    what is missing there, on a cluster has no claim."""
    rules, claims = folder / "rules.toml", uuid.uuid4().hex[:8]
    text = ""
    for name in NAMES:
        source = f'folder = "{folder / name}"'
        if isinstance(place, KubernetesPlace):
            source = f'claim = "{name}-{claims}"'
            if (folder / name).is_dir():
                clusters.share(place.cluster, place.namespace, folder / name, f"{name}-{claims}")
        text += f'[volumes.{name}]\npath = "/refs/{name}"\n{source}\n'
    rules.write_text(f'{text}groups = ["lab-a"]\n')
    settings = msgspec.structs.replace(settings, rules=str(rules))
    async with started(settings) as tesk:
        yield tesk
        assert await place.leftovers(settings) == []


def write_data(folder: Path, *names: str) -> None:
    """Data that anybody could change, if it were not for the mount."""
    for name in names:
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
        (folder / name / NAMES[name]).write_text(f"{name}\n")
        (folder / name / NAMES[name]).chmod(0o666)


async def reads_and_does_not_write(settings: Settings, place: Place, folder: Path) -> None:
    """A task with files of its own, of one who may use both volumes and of one who may use one, on this place."""
    write_data(folder, "genomes", "private")
    shared = settings.file_roots[0]
    files = {"inputs": [content("/mnt/in/a", "a\n")], "outputs": [{"path": "/mnt/out/a", "url": f"{shared}/a"}]}
    async with with_data(settings, place, folder) as tesk:
        read = "cat /refs/genomes/hg38.fa /refs/private/cohort.vcf /mnt/in/a > /mnt/out/a; cat /mnt/out/a"
        task = await run(tesk, ANN, read, WRITES, **files)
        assert task["state"] == "COMPLETE", lines(task)
        assert ("runs as one pod" in str(await logs_of(tesk, task["id"]))) is (settings.mode == "pod")
        assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["genomes\nprivate\na\n", "no\nno\nno\n"]
        assert Path(f"{shared}/a").read_text() == "genomes\nprivate\na\n"
        task = await run(tesk, BEN, "cat /refs/genomes/*; ls /refs; cat /refs/private/* || echo no")
        assert task["logs"][0]["logs"][0]["stdout"] == "genomes\ngenomes\nno\n"
    assert {name: [each.name for each in (folder / name).iterdir()] for name in NAMES} == {
        name: [file] for name, file in NAMES.items()
    }
    assert (folder / "genomes/hg38.fa").read_text() == "genomes\n"


async def test_executors_read_what_their_caller_may_use_and_write_nothing(
    settings: Settings, place: Place, tmp_path: Path
) -> None:
    await reads_and_does_not_write(settings, place, tmp_path)


@pytest.mark.parametrize("settings", [{"start_timeout_s": 3.0}], indirect=True)
async def test_a_volume_that_is_not_there_is_named(settings: Settings, place: Place, tmp_path: Path) -> None:
    write_data(tmp_path, "genomes")
    async with with_data(settings, place, tmp_path) as tesk:
        task = await run(tesk, ANN, "echo never")
        assert task["state"] == "SYSTEM_ERROR"
        assert task["logs"][0]["logs"] == []
        if place.name in LOCAL:
            missing = f"executor 0: the volume 'private': {tmp_path}/private is not a folder of this machine"
        else:
            missing = "given up after 3 s, start_timeout_s"
            assert 'persistentvolumeclaim "private-' in lines(task)
        assert missing in lines(task)
        assert (await run(tesk, BEN, "cat /refs/genomes/*"))["state"] == "COMPLETE"


@pytest.mark.places(*LOCAL)
async def test_no_other_file_system_below_the_folder_can_be_written_to(
    settings: Settings, place: Place, tmp_path: Path
) -> None:
    write_data(tmp_path, "genomes", "private")
    (tmp_path / "genomes/mnt").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "private", tmp_path / "genomes/mnt"], check=True, timeout=60)
    try:
        async with with_data(settings, place, tmp_path) as tesk:
            task = await run(tesk, BEN, "touch /refs/genomes/mnt/new || echo no; ls /refs/genomes/mnt")
    finally:
        subprocess.run(["umount", tmp_path / "genomes/mnt"], check=True, timeout=60)
    assert task["logs"][0]["logs"][0]["stdout"] == "no\n"
    assert not (tmp_path / "private/new").exists()
