"""Whose storage, over HTTP: who may make a task with which URLs, and what those are told who may not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk import watched_file
from tesk.identity import SERVER, Identity
from tesk.rules import NO_GRANTS, Grants
from tesk.store.base import Row
from tests.api.conftest import Running, running
from tests.people.cards import ByName

PEOPLE = {
    "ann": Identity(user="ann", groups=frozenset({"lab-a", "both"})),
    "bob": Identity(user="bob", groups=frozenset({"lab-b", "both"})),
    "root": Identity(user="root", groups=frozenset({"lab-b"}), is_admin=True),
}
RULES = """
unlisted_storage = "closed"
[storage."s3://lab-a"]
groups = ["lab-a"]
[storage."s3://lab-b"]
groups = ["lab-b"]
[storage."s3://bobs"]
users = ["bob"]
[storage."https://public.test"]
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rules") / "rules.toml"
    file.write_text(RULES)
    return file


@pytest.fixture(scope="module")
def server(rules: Path) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watched_file, "LOOK_EVERY_S", 0.05)
        with running(rules.parent, ways=[ByName(PEOPLE)], trusted_addresses=["192.0.2.1"], rules=str(rules)) as started:
            yield started


def post(server: Running, who: str, *urls: str, output: str = "", **more: Any) -> httpx.Response:
    task: dict[str, Any] = {"executors": [{"image": "alpine", "command": ["true"]}], **more}
    task["inputs"] = [{"url": url, "path": f"/in/{n}"} for n, url in enumerate(urls)]
    task["outputs"] = [{"url": output, "path": "/out"}] if output else []
    return server.client.post("/v1/tasks", json=task, headers={"Authorization": f"Bearer {who}"})


def given(server: Running, answer: httpx.Response) -> Grants:
    assert answer.status_code == 200, answer.text
    row = server.do(server.store.get(answer.json()["id"], "FULL", SERVER))
    assert isinstance(row, Row)
    return row.grants


@pytest.mark.parametrize(
    ("who", "urls", "grants"),
    [
        ("ann", ["s3://lab-a/x", "https://public.test/y"], ("s3://lab-a", "https://public.test")),
        ("bob", ["s3://bobs"], ("s3://bobs",)),
        ("bob", ["drs://public.test/1"], None),
        ("root", ["s3://lab-b/x"], ("s3://lab-b",)),
        ("ann", [], ()),
    ],
)
def test_a_task_keeps_what_it_was_given(
    server: Running, who: str, urls: list[str], grants: tuple[str, ...] | None
) -> None:
    answer = post(server, who, *urls)
    if grants is None:
        assert answer.status_code == 403
    else:
        assert given(server, answer) == Grants(storage=grants)


@pytest.mark.parametrize(
    ("who", "urls", "output", "field", "words"),
    [
        (
            "ann",
            ["https://public.test/x", "s3://lab-b/x"],
            "",
            "inputs[1].url",
            'lies in "s3://lab-b", which is not open',
        ),
        ("bob", [], "s3://lab-a/out", "outputs[0].url", 'lies in "s3://lab-a", which is not open'),
        ("bob", ["s3://lab-b/../x"], "", "inputs[0].url", 'its path holds ".."'),
        ("root", ["s3://bobs/x"], "", "inputs[0].url", 'lies in "s3://bobs", which is not open to you'),
        ("ann", ["https://else.test/x?key=hidden"], "", "inputs[0].url", "https://else.test/x?… may not be used: this"),
    ],
)
def test_who_may_not_is_told_which_prefix_it_would_take(
    server: Running, who: str, urls: list[str], output: str, field: str, words: str
) -> None:
    """An admin, too: the role opens tasks, and nobody's storage."""
    answer = post(server, who, *urls, output=output)
    assert (answer.status_code, answer.json()["field"]) == (403, field)
    assert words in answer.json()["msg"]
    assert "hidden" not in answer.text
    assert not [name for name in ("lab-a", "lab-b", "bob") if name in answer.text.replace(f"s3://{name}", "")]


def test_changed_rules_hold_for_the_next_task(server: Running, rules: Path) -> None:
    assert post(server, "ann", "s3://new/x").status_code == 403
    rules.write_text(RULES + '[storage."s3://new"]\ngroups = ["both"]\n')
    for _ in range(2000):
        if (answer := post(server, "ann", "s3://new/x")).status_code == 200:
            break
    assert given(server, answer) == Grants(storage=("s3://new",))


def test_without_rules_a_task_is_given_nothing_and_may_use_all(tmp_path: Path) -> None:
    with running(tmp_path, ways=[ByName(PEOPLE)], trusted_addresses=["192.0.2.1"]) as server:
        assert given(server, post(server, "ann", "s3://lab-b/../x", "drs://h/1")) == NO_GRANTS
