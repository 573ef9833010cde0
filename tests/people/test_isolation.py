"""Who may do what to whose task, over HTTP, on both databases: a table. Beside it: whose a new task is."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tesk.identity import SERVER, Identity, Owner
from tesk.store.base import NewTask
from tesk.tes import State, TaskLog
from tests.api.conftest import Running, postgres_server, running
from tests.people.cards import ByName

__all__ = ["postgres_server"]

ALL, SEES, NOTHING = "sees and may end", "sees", "nothing"
PEOPLE = {
    "user": Identity(user="user"),
    "stranger": Identity(user="stranger", groups=frozenset({"other", "user"})),
    "member": Identity(user="member", groups=frozenset({"lab"}), default_group="lab"),
    "manager": Identity(user="manager", groups=frozenset({"lab", "other"}), manages=frozenset({"lab"})),
    "colleague": Identity(user="colleague", sharers=frozenset({"user"})),
    "admin": Identity(user="admin", is_admin=True),
}
OWNERS = {
    "the user's own": Owner("user"),
    "the user's, for the group": Owner("user", "lab"),
    "a member's, for the group": Owner("member", "lab"),
    "a member's own": Owner("member"),
    "nobody's": Owner(),
}
RIGHTS = {
    "user": {"the user's own": ALL, "the user's, for the group": ALL},
    "stranger": {},
    "member": {"the user's, for the group": SEES, "a member's, for the group": ALL, "a member's own": ALL},
    "manager": {"the user's, for the group": ALL, "a member's, for the group": ALL},
    "colleague": {"the user's own": SEES, "the user's, for the group": SEES},
    "admin": dict.fromkeys(OWNERS, ALL),
}
TABLE = [(who, whose, RIGHTS[who].get(whose, NOTHING)) for who in PEOPLE for whose in OWNERS]
TAGS = {"run": "isolation"}
LISTS: dict[str, list[tuple[str, str]]] = {
    "all": [],
    "by tag": [("tag_key", "run"), ("tag_value", "isolation")],
    "by name": [("name_prefix", "isolated")],
    "by state": [("state", "QUEUED")],
    "by all": [("tag_key", "run"), ("name_prefix", "iso"), ("state", "QUEUED")],
    "in full": [("view", "FULL")],
    "one by one": [("page_size", "1")],
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    database = request.getfixturevalue("postgres_server").new_database() if request.param == "postgresql" else ""
    folder = tmp_path_factory.mktemp("isolation")
    with running(folder, database=database, trusted_addresses=["192.0.2.1"]) as started:
        assert started.app._edge is not None
        started.app._edge.ways.insert(0, ByName(PEOPLE))
        yield started


@pytest.fixture(scope="module")
def tasks(server: Running) -> dict[str, str]:
    """The id of a queued task by whose it is."""
    return {whose: create(server, owner) for whose, owner in OWNERS.items()}


def create(server: Running, owner: Owner) -> str:
    return server.do(
        server.store.create(NewTask(basic=b'{"name":"isolated"}', name="isolated-1", tags=TAGS, owner=owner))
    )


def ask(server: Running, who: str, method: str, path: str, **more: Any) -> httpx.Response:
    return server.client.request(method, f"/v1/tasks{path}", headers={"Authorization": f"Bearer {who}"}, **more)


@pytest.mark.parametrize(("who", "whose", "right"), TABLE)
def test_what_is_seen_and_what_may_be_ended(
    server: Running, tasks: dict[str, str], who: str, whose: str, right: str
) -> None:
    for view in ("MINIMAL", "BASIC", "FULL"):
        for method in ("GET", "HEAD"):
            answer = ask(server, who, method, f"/{tasks[whose]}", params={"view": view})
            assert answer.status_code == (404 if right == NOTHING else 200), (method, view)
    task_id = create(server, OWNERS[whose])
    answer = ask(server, who, "POST", f"/{task_id}:cancel")
    assert answer.status_code == {ALL: 200, SEES: 403, NOTHING: 404}[right]
    ended = server.do(server.store.get(task_id, "MINIMAL", SERVER))
    assert ended is not None
    assert ended.state is (State.CANCELED if right == ALL else State.QUEUED)
    server.do(server.dispatcher.cancel(task_id, SERVER))


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("asked", LISTS)
def test_lists_hold_what_is_seen_and_nothing_else(server: Running, tasks: dict[str, str], who: str, asked: str) -> None:
    found, token = list[str](), ""
    while True:
        query = [*LISTS[asked], *([("page_token", token)] if token else [])]
        page = ask(server, who, "GET", "", params=query).json()
        found += [task["id"] for task in page["tasks"]]
        token = page.get("next_page_token") or ""
        assert not token or len(page["tasks"]) == 1, "a page that another follows is full"
        if not token:
            break
    assert [each for each in found if each in tasks.values()] == [
        task_id for whose, task_id in reversed(tasks.items()) if RIGHTS[who].get(whose)
    ]


def test_a_task_that_is_not_seen_is_as_one_that_does_not_exist(server: Running, tasks: dict[str, str]) -> None:
    other, unknown = tasks["a member's own"], "0" * 13
    for method, suffix in (("GET", ""), ("GET", "?view=FULL"), ("POST", ":cancel")):
        answers = [ask(server, "user", method, f"/{each}{suffix}") for each in (other, unknown)]
        assert len({answer.text.replace(other, unknown) for answer in answers}) == 1
        assert {answer.status_code for answer in answers} == {404}


def test_who_sees_a_task_and_may_not_end_it_reads_who_may(server: Running, tasks: dict[str, str]) -> None:
    task_id = tasks["the user's, for the group"]
    answer = ask(server, "member", "POST", f"/{task_id}:cancel")
    assert answer.status_code == 403
    assert answer.json()["msg"].endswith("cancelled by that user, by a manager of its group and by an admin")


def test_live_logs_of_a_task_are_for_those_who_see_it(server: Running) -> None:
    task_id = create(server, Owner("member", "lab"))
    server.do(server.store.submitted(task_id))
    server.do(server.store.advance(task_id, State.RUNNING, TaskLog()))
    server.engine.live[task_id] = TaskLog(system_logs=["so far"])
    seen = {
        who: server.do(server.dispatcher.live_log(task_id, identity)) is not None for who, identity in PEOPLE.items()
    }
    assert [who for who, is_seen in seen.items() if is_seen] == ["member", "manager", "admin"]
    assert ask(server, "manager", "GET", f"/{task_id}?view=FULL").json()["logs"][0]["system_logs"] == ["so far"]
    server.do(server.store.advance(task_id, State.COMPLETE, TaskLog()))


@pytest.mark.parametrize(
    ("who", "group", "owner"),
    [
        ("member", None, Owner("member", "lab")),
        ("member", "lab", Owner("member", "lab")),
        ("member", "", Owner("member")),
        ("member", "other", None),
        ("manager", None, Owner("manager")),
        ("manager", "other", Owner("manager", "other")),
        ("user", None, Owner("user")),
        ("user", "lab", None),
        ("admin", "lab", Owner("admin", "lab")),
    ],
)
def test_a_new_task_is_its_makers_and_of_the_group_in_its_tag_or_the_default_one(
    server: Running, who: str, group: str | None, owner: Owner | None
) -> None:
    tags = {} if group is None else {"group": group}
    document = {"executors": [{"image": "alpine", "command": ["true"]}], "tags": tags}
    answer = ask(server, who, "POST", "", json=document)
    if owner is None:
        assert (answer.status_code, answer.json()["field"]) == (403, "tags.group")
        assert f"you are not in the group '{group}'; your groups: " in answer.json()["msg"]
        return
    task_id = answer.json()["id"]
    seen = [name for name in PEOPLE if ask(server, name, "GET", f"/{task_id}").status_code == 200]
    assert seen == [name for name, identity in PEOPLE.items() if identity.may_see(owner)]
    assert ask(server, who, "GET", f"/{task_id}?view=BASIC").json().get("tags", {}) == tags
    server.do(server.dispatcher.cancel(task_id, SERVER))


def test_where_nobody_signs_in_the_tag_group_is_a_tag_like_any_other(tmp_path_factory: pytest.TempPathFactory) -> None:
    document = {"executors": [{"image": "alpine", "command": ["true"]}], "tags": {"group": "lab"}}
    with running(tmp_path_factory.mktemp("open")) as server:
        task_id = server.client.post("/v1/tasks", json=document).json()["id"]
        assert server.client.get(f"/v1/tasks/{task_id}").status_code == 200
        assert server.do(server.store.get(task_id, "MINIMAL", PEOPLE["member"])) is None
