"""Whose storage: what a task is given when it is made, and which rules no server starts with."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tesk import watched_file
from tesk.errors import NotAllowed, RulesError
from tesk.filer.plan import CredentialsFor, FilerSettings
from tesk.identity import EVERYBODY, Identity
from tesk.kubernetes.task_settings import Mount, TaskSettings
from tesk.places.kubernetes.task_settings import with_granted
from tesk.rules import NOTHING_GRANTED, Grants, Rules, StorageRule, VolumeRule, granted
from tesk.rules.check import check
from tesk.rules.file import RulesFile
from tesk.rules.granting import grants
from tesk.settings import Settings
from tesk.tes import Executor, FileType, Input, Output, Task

ANN = Identity(user="ann", groups=frozenset({"lab-a"}), is_admin=True)
BOB = Identity(user="bob", groups=frozenset({"lab-b"}))
RULES = Rules(
    storage={
        "s3://lab-a": StorageRule(groups=("lab-a",)),
        "s3://lab-b": StorageRule(groups=("lab-b",)),
        "s3://lab-b/for-ann": StorageRule(users=("ann",), groups=("lab-b",)),
        "s3://public": StorageRule(),
        "file:///data/ann": StorageRule(users=("ann",)),
    }
)


def task(*urls: str, output: str = "") -> Task:
    inputs = [Input(f"/in/{n}", url=url, type=FileType.FILE) for n, url in enumerate(urls)]
    outputs = [Output("/out", url=output)] if output else None
    return Task(executors=[Executor("alpine", ["true"])], inputs=inputs, outputs=outputs)


@pytest.mark.parametrize(
    ("identity", "made", "given"),
    [
        (ANN, task("s3://lab-a/x"), ["s3://lab-a"]),
        (ANN, task("s3://lab-a/x", "/data/ann/y", output="s3://public/z"), ["s3://lab-a", "s3://public", "file:///data/ann"]),
        (ANN, task("s3://lab-b/for-ann/x"), ["s3://lab-b/for-ann"]),
        (ANN, task("drs://h/1"), ["s3://lab-a", "s3://lab-b/for-ann", "s3://public", "file:///data/ann"]),
        (ANN, task("https://else/x"), []),
        (BOB, task("s3://lab-b"), ["s3://lab-b", "s3://lab-b/for-ann"]),
        (BOB, task("drs://h/1"), ["s3://lab-b", "s3://lab-b/for-ann", "s3://public"]),
        (EVERYBODY, task("s3://public/x"), ["s3://public"]),
    ],
)  # fmt: skip
def test_a_task_is_given_the_entries_that_its_urls_name(identity: Identity, made: Task, given: list[str]) -> None:
    assert [*grants(made, RULES, identity).storage] == given


@pytest.mark.parametrize(
    ("identity", "made", "field", "words"),
    [
        (BOB, task("s3://public/x", "s3://lab-a/x"), "inputs[1].url", 'lies in "s3://lab-a", which is not open to you'),
        (BOB, task(output="s3://lab-a"), "outputs[0].url", 'it lies in "s3://lab-a"'),
        (ANN, task("s3://lab-b/for-anna/x"), "inputs[0].url", 'it lies in "s3://lab-b"'),
        (BOB, task("/data/ann/x"), "inputs[0].url", 'it lies in "file:///data/ann"'),
        (BOB, task("/data"), "inputs[0].url", '"file:///data/ann" lies in it'),
        (BOB, task("file:///data/bob/../ann/x"), "inputs[0].url", 'its path holds ".."'),
        (EVERYBODY, task("s3://lab-a/x"), "inputs[0].url", 'it lies in "s3://lab-a"'),
    ],
)  # fmt: skip
def test_what_is_anothers_is_refused_with_the_prefix(identity: Identity, made: Task, field: str, words: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        grants(made, RULES, identity)
    assert refused.value.field == field
    assert words in str(refused.value)
    assert "lab-a" not in str(refused.value).replace("s3://lab-a", "")


def test_what_no_entry_covers_may_be_closed() -> None:
    closed = msgspec.structs.replace(RULES, unlisted_storage="closed")
    with pytest.raises(NotAllowed, match=r"https://else/x\?… may not be used: this server's rules have no storage"):
        grants(task("https://else/x?key=secret"), closed, ANN)
    with pytest.raises(NotAllowed):
        grants(task("https://else/x"), Rules(unlisted_storage="closed"), ANN)
    assert grants(task("s3://lab-a/x"), closed, ANN) == Grants(("s3://lab-a",))


def rule(**keys: Any) -> StorageRule:
    return StorageRule(**keys)


A: dict[str, Any] = {"groups": ("a",)}
B: dict[str, Any] = {"groups": ("b",)}
CLUSTER = {"engine": "kubernetes"}


@pytest.mark.parametrize(
    ("storage", "volumes", "settings", "words"),
    [
        ({"lab": rule()}, {}, {}, "no URL prefix; write scheme://host/path"),
        ({"/srv/a": rule()}, {}, {}, "no URL prefix"),
        ({"nfs://h/a": rule()}, {}, {}, "no URL prefix"),
        ({"file://host/a": rule()}, {}, {}, "no folder; write file:///absolute/path"),
        ({"file:///": rule()}, {}, {}, "no folder"),
        ({"s3:///a": rule()}, {}, {}, "no host or bucket"),
        ({"https://me:pw@h/a": rule()}, {}, {}, r'storage."https://h/a": a prefix has no user'),
        ({"https://h/a?b": rule()}, {}, {}, "a prefix has no user, no query"),
        ({"https://h/a/..": rule()}, {}, {}, "a prefix has no user, no query"),
        ({"s3://a": rule(secret="a")}, {}, {}, "secret is for a cluster"),
        ({"file:///srv/a": rule(claim="a")}, {}, {}, "claim is for a cluster"),
        ({"file:///srv/tesk": rule()}, {}, {"data": "/srv/tesk/data"}, "lie in one another"),
        ({"file:///srv/tesk/data/tasks": rule()}, {}, {"data": "/srv/tesk/data"}, "lie in one another"),
        ({"file:///srv/a": rule(credentials="/a.toml")}, {}, {}, "need no credentials"),
        ({"s3://a": rule(credentials="/none/a.toml")}, {}, {}, "the credentials /none/a.toml cannot be read"),
        ({"s3://a": rule(credentials="a.toml")}, {}, CLUSTER, "credentials is for the local engine"),
        ({"s3://a": rule(claim="a")}, {}, CLUSTER, "claim is for file:///path"),
        ({"file:///a": rule(secret="a")}, {}, CLUSTER, "a folder needs no secret"),
        ({"file:///a": rule()}, {}, CLUSTER, "filers have nothing at /a; name the claim"),
        ({"file:///tesk/a": rule(claim="a")}, {}, CLUSTER, "nothing can be mounted at /tesk/a"),
        ({"file:///a": rule(claim="a")}, {}, {**CLUSTER, "filer_mounts": ("/a=claim:b",)}, "something at /a already"),
        ({"s3://x": rule(**A), "s3://x/y": rule(**B)}, {}, {}, '"s3://x/y" lies in storage."s3://x", which is'),
        ({"s3://x/y": rule(**A), "s3://x": rule()}, {}, {}, "lies in"),
        ({"https://h/x": rule(**A), "https://H:443//x/%79": rule(**B)}, {}, {}, "lies in"),
        ({"s3://x": rule(**A), "s3://x/": rule(**A)}, {}, {}, "are the same place; make one entry of them"),
        ({"file:///srv/a": rule(**A)}, {}, {"file_roots": ("/srv",)}, "lies in file_roots /srv"),
        ({"file:///srv": rule(**A)}, {"v": VolumeRule(path="/v", folder="/srv/b", **B)}, {}, "volumes.v lies in"),
        ({"file:///srv/a": rule(**A)}, {"v": VolumeRule(path="/v", folder="/srv", **B)}, {}, "lies in volumes.v"),
        ({"file:///a": rule(claim="c", **A), "file:///b": rule(claim="c", **B)}, {}, CLUSTER, "have the same claim"),
        ({"file:///a": rule(claim="c", **A)}, {"v": VolumeRule(path="/v", claim="c")}, CLUSTER, "have the same claim"),
        ({"file:///a": rule(claim="c", **A)}, {}, {**CLUSTER, "filer_mounts": ("/m=claim:c",)}, "have the same claim"),
        ({"s3://a": rule(secret="s", **A)}, {}, {**CLUSTER, "filer_mounts": ("/m=secret:s",)}, "is everybody's by"),
        ({"s3://a": rule(secret="s", **A)}, {}, {**CLUSTER, "filer_environment_secret": "s"}, "is everybody's by"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_followed_or_give_away_more_than_they_say_are_refused(
    storage: Mapping[str, StorageRule], volumes: Mapping[str, VolumeRule], settings: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(RulesError) as refused:
        check(Rules(storage={**storage}, volumes={**volumes}), Settings(**settings))
    assert words in str(refused.value)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    ("storage", "settings"),
    [
        ({"s3://x": rule(**A), "s3://x/y": rule()}, {}),
        ({"s3://x": rule(**A), "s3://x/y": rule(groups=("a", "b"), users=("c",))}, {}),
        ({"s3://x": rule(**A), "s3://x-2": rule(**B), "gs://x": rule(**B)}, {}),
        ({"file:///srv": rule(**A)}, {"file_roots": ("/srv/open",)}),
        ({"file:///m/a": rule(**A)}, {**CLUSTER, "filer_mounts": ("/m=claim:c",)}),
        ({"s3://a": rule(secret="s", **A), "s3://b": rule(secret="s", **B)}, CLUSTER),
    ],
)
def test_an_entry_below_another_may_be_open_to_more(
    storage: Mapping[str, StorageRule], settings: Mapping[str, Any]
) -> None:
    check(Rules(storage={**storage}), Settings(**settings))


def test_links_between_folders_are_followed_on_the_local_engine(tmp_path: Path) -> None:
    (tmp_path / "srv" / "a").mkdir(parents=True)
    (tmp_path / "mine").symlink_to(tmp_path / "srv")
    rules = Rules(storage={f"file://{tmp_path}/srv/a": rule(**A), f"file://{tmp_path}/mine": rule(**B)})
    with pytest.raises(RulesError, match='/srv/a" lies in '):
        check(rules, Settings())


def test_credentials_of_an_entry_have_a_table_for_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('["s3://b"]\nregion = "x"\n')
    with pytest.raises(RulesError, match=r"a\.toml has no table for it"):
        check(Rules(storage={"s3://a": rule(credentials=str(tmp_path / "a.toml"))}), Settings())
    check(Rules(storage={"s3://b/c": rule(credentials=str(tmp_path / "a.toml"))}), Settings())


def test_on_a_cluster_a_filer_has_the_secrets_and_claims_of_its_task_alone() -> None:
    rules = Rules(
        storage={
            "s3://a": rule(secret="labs"), "s3://b": rule(secret="labs"), "s3://c": rule(secret="c"),
            "file:///data/d": rule(claim="d"), "s3://e": rule(),
        }
    )  # fmt: skip
    everybodys = TaskSettings("ns", "i", "image", filer_mounts=(Mount("/m", secret="m"),), filer=FilerSettings(("/r",)))
    found = with_granted(everybodys, granted(Grants(("s3://a", "s3://b", "file:///data/d", "s3://e")), rules))
    labs, d = Mount("/tesk/storage/labs", secret="labs"), Mount("/data/d", claim="d")
    assert found.filer_mounts == (Mount("/m", secret="m"), labs, d)
    assert found.filer.file_roots == ("/r", "/data/d")
    assert found.filer.credentials == tuple(CredentialsFor(each, "/tesk/storage/labs") for each in ("s3://a", "s3://b"))
    assert found.filer.access.closed == ("s3://c",)
    assert with_granted(everybodys, NOTHING_GRANTED) is everybodys


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 20 s")


async def test_changed_rules_hold_within_seconds_and_unusable_ones_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched_file, "LOOK_EVERY_S", 0.01)
    file = tmp_path / "rules.toml"
    file.write_text('[storage."s3://a"]\ncredentials = "a.toml"\n')
    held = RulesFile(str(file), lambda rules: check(rules, Settings(engine="local")))
    with pytest.raises(RulesError, match=r"rules\.toml: storage\.\"s3://a\": the credentials .*a\.toml cannot be read"):
        await held.open()
    (tmp_path / "a.toml").write_text('["s3://a"]\nregion = "x"\n')
    await held.open()
    assert held.rules.storage["s3://a"].credentials == str(tmp_path / "a.toml")

    async def changed(text: str) -> None:
        """As an editor, or a ConfigMap's mount, replaces it."""
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(file)

    with caplog.at_level(logging.INFO):
        await changed('unlisted_storage = "never"\n')
        await eventually(lambda: "the rules are those of before" in caplog.text)
        assert held.rules.storage.keys() == {"s3://a"}
        await changed('unlisted_storage = "closed"\n')
        await eventually(lambda: held.rules.unlisted_storage == "closed")
    assert caplog.text.count("rules.toml: ") == 1
    await held.close()
