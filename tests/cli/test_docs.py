"""The documentation against the code: states, commands, flags and links that it names are there."""

import re
from pathlib import Path

import click
import pytest

from tesk.cli.main import COMMANDS, command_line
from tesk.rules.check import check
from tesk.rules.file import read_rules
from tesk.settings import Settings
from tesk.settings.load import load
from tesk.tes import NEXT, State

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def flags(name: str) -> set[str]:
    command = command_line.get_command(click.Context(command_line), name)
    assert command is not None
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts) if flag[0] == "-"}


def test_the_state_diagram_is_the_state_machine() -> None:
    page = (ROOT / "docs" / "how-a-task-runs.md").read_text()
    edges = re.findall(r"^ +(\S+) --> (\w+|\[\*\])", page, re.MULTILINE)
    known = {(State[a], State[b]) for a, b in edges if "[*]" not in (a, b)}
    assert known
    assert not [(a, b) for a, b in known if b not in NEXT[a]]
    assert {State[a] for a, b in edges if b == "[*]"} == {b for _, b in known if b.is_terminal}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"`tesk {name}" in (ROOT / "docs" / "commands.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_in_an_example_exists(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    for command, rest in re.findall(r"\btesk (serve|run|create|get|list|logs|wait|cancel)\b([^\n`|)]*)", text):
        named = set(re.findall(r" (--?[a-z][a-z-]*)", rest.partition(" -- ")[0]))
        assert named <= flags(command), f"tesk {command}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_rules_in_an_example_can_be_followed(page: Path, tmp_path: Path) -> None:
    for where, example in re.findall(r"```toml rules(| cluster)\n(.*?)```", page.read_text(), re.DOTALL):
        (tmp_path / "rules.toml").write_text(example)
        (tmp_path / "lab-a.toml").write_text('["s3://lab-a"]\nregion = "x"\n')
        check(read_rules(tmp_path / "rules.toml"), Settings(engine="kubernetes" if where else "local"))


def test_every_flag_of_run_is_documented() -> None:
    documented = set(re.findall(r"--[a-z-]+", (ROOT / "docs" / "commands.md").read_text()))
    assert {flag for flag in flags("run") if flag.startswith("--")} <= documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_settings_file_in_an_example_loads(page: Path, tmp_path: Path) -> None:
    for example in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        (tmp_path / "tesk.toml").write_text(example)
        load({}, {}, tmp_path / "tesk.toml")
