"""Reference data in executors: what volumes may be, and which paths of a task are in their way."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tesk import tes
from tesk.errors import RulesError
from tesk.identity import EVERYBODY, Identity
from tesk.rules import ImageRules, Rules, VolumeRule
from tesk.rules.check import check
from tesk.rules.volumes import in_the_way, open_to, problems
from tesk.settings import Settings

VOLUMES = [VolumeRule(path="/refs/genomes", folder="/srv/genomes"), VolumeRule(path="/opt/vep", folder="/srv/vep")]
URL = "s3://bucket/x"


def task(**fields: Any) -> tes.Task:
    document = {"executors": [{"image": "alpine", "command": ["true"]}]} | fields
    return tes.parse(tes.encode(document))[0]


def executor(**fields: Any) -> dict[str, Any]:
    return {"executors": [{"image": "alpine", "command": ["true"]} | fields]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"inputs": [{"path": "/in/a", "url": URL}, {"path": "/refs/genomes", "url": URL}]}, "inputs[1].path"),
        ({"inputs": [{"path": "/refs/genomes/hg38/x.fa", "content": "x"}]}, "inputs[0].path"),
        ({"inputs": [{"path": "/opt/vep/x", "url": URL}]}, "inputs[0].path"),
        ({"inputs": [{"path": "/refs", "url": URL, "type": "DIRECTORY"}]}, "inputs[0].path"),
        ({"inputs": [{"path": "/refs//./genomes/x", "url": URL}]}, "inputs[0].path"),
        ({"inputs": [{"path": "/refs/a.txt", "url": URL}]}, "inputs[0].path"),
        ({"inputs": [{"path": f"/refs/{n}/a.txt", "url": URL} for n in range(101)]}, "inputs[0].path"),
        ({"outputs": [{"path": "/opt/vep/out", "url": URL}]}, "outputs[0].path"),
        ({"outputs": [{"path": "/refs/*.txt", "url": URL, "path_prefix": "/refs"}]}, "outputs[0].path"),
        ({"outputs": [{"path": "/opt/v*", "url": URL, "path_prefix": "/opt"}]}, "outputs[0].path"),
        ({"volumes": ["/refs/genomes"]}, "volumes[0]"),
        ({"volumes": ["/data", "/refs/"]}, "volumes[1]"),
        (executor(workdir="/refs/genomes/hg38"), "executors[0].workdir"),
        (executor(stdin="/refs/genomes/hg38.fa"), "executors[0].stdin"),
        (executor(stdout="/refs/genomes/log"), "executors[0].stdout"),
        (executor(stderr="/opt/vep/log"), "executors[0].stderr"),
    ],
)
def test_a_path_that_is_a_volumes_is_in_its_way(fields: dict[str, Any], field: str) -> None:
    found = in_the_way(task(**fields), VOLUMES)
    assert found is not None
    assert found[0] == field
    assert "where this server mounts reference data, read-only" in found[1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"inputs": [{"path": "/refs/genomes2/a", "url": URL}, {"path": "/opt/x.conf", "url": URL}]},
        {"inputs": [{"path": f"/refs/{n}/a.txt", "url": URL} for n in range(20)]},
        {"outputs": [{"path": "/out/*.txt", "url": URL, "path_prefix": "/out"}], "volumes": ["/scratch"]},
        executor(workdir="/", stdout="/dev/stdout", stdin="/in/x"),
        executor(workdir="/refs"),
    ],
)
def test_other_paths_are_not(fields: dict[str, Any]) -> None:
    assert in_the_way(task(**fields), VOLUMES) is None


def test_nothing_is_in_the_way_where_there_are_no_volumes() -> None:
    assert in_the_way(task(inputs=[{"path": "/refs/genomes", "url": URL}]), []) is None


def test_the_words_name_both_paths() -> None:
    found = in_the_way(task(inputs=[{"path": "/refs/genomes/x", "url": URL}]), VOLUMES)
    words = "where this server mounts reference data, read-only; choose another folder"
    assert found == ("inputs[0].path", f"'/refs/genomes/x' lies below '/refs/genomes', {words}")


@pytest.mark.parametrize(
    ("changes", "is_cluster", "why"),
    [
        ({}, False, None),
        ({"folder": "", "claim": "genomes"}, True, None),
        ({"path": "refs"}, False, "not an absolute path"),
        ({"path": "/"}, False, "not an absolute path"),
        ({"path": "/refs/"}, False, "not an absolute path"),
        ({"path": "/a/../refs"}, False, "not an absolute path"),
        ({"path": "/a//refs"}, False, "not an absolute path"),
        ({"path": "/proc/x"}, False, "nothing can be mounted at /proc/x"),
        ({"path": "/dev/shm"}, False, "nothing can be mounted"),
        ({"path": "/.tesk/x"}, False, "nothing can be mounted"),
        ({"path": "/refs,src=x"}, False, "',' cannot be part of its path or folder"),
        ({"path": "/refs:rw"}, False, "':' cannot be part"),
        ({"folder": '/srv/"refs'}, False, "cannot be part of its path or folder"),
        ({"folder": ""}, False, "on the local engine a volume has a folder"),
        ({"folder": "srv"}, False, "on the local engine a volume has a folder"),
        ({"claim": "genomes"}, False, "on the local engine a volume has a folder"),
        ({}, True, "on a cluster a volume has a claim"),
        ({"folder": "", "claim": "Genomes"}, True, "on a cluster a volume has a claim"),
    ],
)
def test_what_a_volume_may_be_depends_on_the_engine(changes: Any, why: str | None, *, is_cluster: bool) -> None:
    rule = VolumeRule(**{"path": "/refs", "folder": "/srv/refs"} | changes)
    found = [*problems({"genomes": rule}, is_cluster=is_cluster)]
    assert len(found) == (why is not None)
    assert all(words.startswith("volumes.genomes: ") and (why or "") in words for words in found)


@pytest.mark.parametrize(("path", "is_wrong"), [("/refs", True), ("/refs/b", True), ("/refs-b", False), ("/r", False)])
def test_no_volume_lies_in_another(path: str, *, is_wrong: bool) -> None:
    volumes = {"b": VolumeRule(path=path, folder="/b"), "a": VolumeRule(path="/refs", folder="/a")}
    assert bool([*problems(volumes, is_cluster=False)]) is is_wrong


def test_a_task_gets_the_volumes_that_its_caller_may_use() -> None:
    volumes = {
        "open": VolumeRule(path="/a"),
        "group's": VolumeRule(path="/b", groups=("lab-a",)),
        "user's": VolumeRule(path="/c", users=("bob",)),
    }
    ann = Identity(user="ann", groups=frozenset({"lab-a"}), is_admin=True)
    assert [*open_to(volumes, ann)] == ["open", "group's"]
    assert [*open_to(volumes, EVERYBODY)] == ["open"]


@pytest.mark.parametrize(
    ("folder", "is_refused"), [("data", True), ("", True), ("data/tasks", True), ("link", True), ("data-2", False)]
)
def test_no_volume_shows_what_is_the_servers_own(tmp_path: Path, folder: str, *, is_refused: bool) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    rules = Rules(volumes={"genomes": VolumeRule(path="/refs", folder=str(tmp_path / folder))})
    with pytest.raises(RulesError, match="lie in one another") if is_refused else contextlib.nullcontext():
        check(rules, Settings(data=str(tmp_path / "data")))


@pytest.mark.parametrize(
    ("rules", "engine", "why"),
    [
        (Rules(images=ImageRules(allow=("ubuntu",))), "local", "images.allow: 'ubuntu' names no registry"),
        (Rules(volumes={"a": VolumeRule(path="/refs", claim="a")}), "local", "volumes.a: on the local engine"),
        (Rules(volumes={"a": VolumeRule(path="/refs", folder="/a")}), "kubernetes", "volumes.a: on a cluster"),
    ],
)
def test_a_server_starts_with_no_rules_that_cannot_be_followed(
    tmp_path: Path, rules: Rules, engine: Any, why: str
) -> None:
    with pytest.raises(RulesError, match=why):
        check(rules, Settings(engine=engine, data=str(tmp_path)))
