"""The file of rules: what it may say, and to whom an entry is open."""

from pathlib import Path

import pytest

from tesk import rules
from tesk.errors import RulesError
from tesk.filer.access import StorageAccess
from tesk.identity import EVERYBODY, Identity
from tesk.rules.file import read_rules

ALICE = Identity(user="alice", groups=frozenset({"lab-a"}), is_admin=True)


@pytest.mark.parametrize(
    ("identity", "users", "groups", "is_open"),
    [
        (ALICE, [], [], True),
        (ALICE, ["alice"], [], True),
        (ALICE, [], ["lab-b", "lab-a"], True),
        (ALICE, ["bob"], ["lab-b"], False),
        (EVERYBODY, [], [], True),
        (EVERYBODY, [""], [""], False),
    ],
)
def test_an_entry_is_open_to_those_whom_it_names(
    identity: Identity, users: list[str], groups: list[str], is_open: bool
) -> None:
    assert rules.is_open_to(identity, users, groups) is is_open


def test_the_docstring_shows_a_file_that_can_be_read(tmp_path: Path) -> None:
    assert rules.__doc__
    example = "\n".join(line[4:] for line in rules.__doc__.splitlines() if line.startswith("    "))
    (tmp_path / "rules.toml").write_text(example)
    found = read_rules(tmp_path / "rules.toml")
    assert found.storage["s3://lab-a"].groups == ("lab-a",)
    assert found.quotas.groups["*"].running_tasks == 100


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[storage", "not TOML"),
        ('[storage."s3://a"]\nuser = ["alice"]', "unknown field `user`"),
        ("[quotas.users.alice]\nram_gb = -1", ">= 0"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(RulesError, match=why):
        read_rules(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"rules\.toml: cannot be read: No such file"):
        read_rules(tmp_path / "rules.toml")


def test_a_task_has_what_it_was_given_as_long_as_the_rules_have_it() -> None:
    mine, theirs = rules.StorageRule(groups=("lab-a",)), rules.StorageRule(groups=("lab-b",))
    genomes = rules.VolumeRule(path="/refs")
    now = rules.Rules(storage={"s3://lab-a": mine, "s3://lab-b": theirs}, volumes={"genomes": genomes})
    grants = rules.Grants(("s3://lab-a", "s3://gone"), ("genomes", "gone"))
    assert rules.granted(grants, now) == rules.Granted(
        {"s3://lab-a": mine}, {"genomes": genomes}, StorageAccess(open=("s3://lab-a",), closed=("s3://lab-b",))
    )
    assert rules.granted(rules.NO_GRANTS, rules.NO_RULES) == rules.NOTHING_GRANTED
