"""Lists: order, pages, tokens, filters, views."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.server import tasks as handlers
from tesk.tes import ExecutorLog, State, TaskLog
from tests.api.conftest import LIMIT_S, Running, running

EXECUTORS = [{"image": "alpine", "command": ["true"]}]


@pytest.fixture(params=["sqlite", "postgresql"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A server with no tasks but the test's."""
    database = ""
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres_server").new_database()
    with running(tmp_path, database=database) as started:
        yield started


def create(client: httpx.Client, **fields: Any) -> str:
    answer = client.post("/v1/tasks", json={"executors": EXECUTORS, **fields})
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


def pages(client: httpx.Client, query: str) -> Iterator[list[str]]:
    """The ids of each page."""
    token = ""
    while True:
        answer = client.get(f"/v1/tasks?{query}&page_token={token}")
        assert answer.status_code == 200, answer.text
        yield [task["id"] for task in answer.json()["tasks"]]
        token = answer.json()["next_page_token"]
        if token == "":
            return


def found(client: httpx.Client, query: str) -> list[str]:
    return [identifier for page in pages(client, query) for identifier in page]


def test_an_empty_list_has_both_keys(own: Running) -> None:
    assert own.client.get("/v1/tasks").json() == {"tasks": [], "next_page_token": ""}


@pytest.mark.parametrize("view", ["MINIMAL", "BASIC", "FULL"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 11, 2047])
def test_pages_are_whole_and_newest_first(own: Running, view: str, size: int) -> None:
    made = [create(own.client) for _ in range(10)]
    got = list(pages(own.client, f"view={view}&page_size={size}"))
    assert [identifier for page in got for identifier in page] == made[::-1]
    assert all(len(page) == size for page in got[:-1])
    assert 0 < len(got[-1]) <= size, "no page is empty: the last one says that it is the last"


def test_a_page_has_256_tasks_unless_told_otherwise(own: Running) -> None:
    for _ in range(257):
        create(own.client)
    assert [len(page) for page in pages(own.client, "")] == [256, 1]


# 9: tokens stay valid while tasks are added
def test_paging_is_not_disturbed_by_new_tasks(own: Running) -> None:
    made = [create(own.client) for _ in range(50)]
    stop = threading.Event()

    def add() -> None:
        with httpx.Client(base_url=own.url, timeout=LIMIT_S) as client:
            while not stop.is_set():
                create(client)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        for size in (1, 7, 49):
            got = [identifier for identifier in found(own.client, f"page_size={size}") if identifier in set(made)]
            assert got == made[::-1]
    finally:
        stop.set()
        adding.join()


def test_a_token_works_in_a_url_as_it_is(own: Running) -> None:
    create(own.client)
    create(own.client)
    token = own.client.get("/v1/tasks?page_size=1").json()["next_page_token"]
    assert token.replace("-", "").replace("_", "").isalnum()


def test_filters_by_state(own: Running) -> None:
    queued, ended, cancelled = (create(own.client) for _ in range(3))
    own.do(own.store.advance(ended, State.COMPLETE, TaskLog(logs=[ExecutorLog(0)])))
    own.client.post(f"/v1/tasks/{cancelled}:cancel", json={})
    assert found(own.client, "state=QUEUED") == [queued]
    assert found(own.client, "state=COMPLETE") == [ended]
    assert found(own.client, "state=CANCELED") == [cancelled]
    for state in set(State) - {State.QUEUED, State.COMPLETE, State.CANCELED}:
        assert found(own.client, f"state={state.name}") == []


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("al", ["align-2", "align-1", "al"]),
        ("align-", ["align-2", "align-1"]),
        ("align-1", ["align-1"]),
        ("AL", ["ALIGN"]),
        ("%25", ["%x"]),
        ("_", ["_x"]),
        ("%C3%A4", ["ähnlich"]),
        ("%F0%9F%A7%AC", ["🧬"]),
        ("l", []),
        ("x" * 4096, []),
        ("", ["🧬", "ähnlich", "_x", "%x", "ALIGN", "align-2", "align-1", "al", None]),
    ],
)
def test_filters_by_literal_name_prefix(own: Running, prefix: str, names: list[str | None]) -> None:
    create(own.client)
    for name in ("al", "align-1", "align-2", "ALIGN", "%x", "_x", "ähnlich", "🧬"):
        create(own.client, name=name)
    answer = own.client.get(f"/v1/tasks?view=BASIC&name_prefix={prefix}")
    assert [task.get("name") for task in answer.json()["tasks"]] == names


TAGS: list[dict[str, str]] = [
    {"foo": "bar"},
    {"foo": "bat"},
    {"foo": ""},
    {"foo": "bar", "baz": "bat"},
    {},
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # the table of the specification, ListTasks
        ("tag_key=foo&tag_value=bar", [0, 3]),
        ("tag_key=foo&tag_value=", [0, 1, 2, 3]),
        ("tag_key=foo", [0, 1, 2, 3]),
        ("tag_key=foo&tag_value=bar&tag_key=baz&tag_value=bat", [3]),
        ("tag_key=foo&tag_key=baz&tag_value=bar&tag_value=bat", [3]),
        ("tag_key=foo&tag_key=baz&tag_value=bar", [3]),
        ("tag_key=baz", [3]),
        ("tag_key=foo&tag_value=ba", []),
        ("tag_key=FOO", []),
        ("tag_key=nothing", []),
        ("tag_key=foo&tag_value=bar&tag_key=foo&tag_value=bar", [0, 3]),
        ("tag_key=foo&tag_value=bar&tag_key=foo&tag_value=bat", []),
        ("tag_key=foo&tag_value=bar&state=QUEUED", [0, 3]),
        ("tag_key=foo&tag_value=bar&state=COMPLETE", []),
        ("tag_key=foo&name_prefix=t3", [3]),
        # what is empty is not given, as in forms
        ("tag_key=&tag_value=", [0, 1, 2, 3, 4]),
        ("tag_value=", [0, 1, 2, 3, 4]),
        ("tag_key=foo&tag_key=", [0, 1, 2, 3]),
        ("tag_key=&tag_value=&tag_key=foo&tag_value=bar", [0, 3]),
        ("tag_key=foo&tag_value=bar&tag_value=", [0, 3]),
    ],
)
def test_filters_by_tags_as_the_specification_tells(own: Running, query: str, expected: list[int]) -> None:
    made = [create(own.client, tags=tags, name=f"t{n}") for n, tags in enumerate(TAGS)]
    assert [made.index(identifier) for identifier in found(own.client, query + "&page_size=1")] == expected[::-1]


def test_views_of_a_list_are_the_views_of_its_tasks(own: Running) -> None:
    for n in range(3):
        content = [{"path": "/in", "content": "x"}]
        identifier = create(own.client, name=f"n{n}", inputs=content, resources={"cpu_cores": 0.5})
        own.do(own.store.advance(identifier, State.COMPLETE, TaskLog(logs=[ExecutorLog(0, stdout="out")])))
    for view in ("MINIMAL", "BASIC", "FULL"):
        listed = own.client.get(f"/v1/tasks?view={view}").json()["tasks"]
        assert listed == [own.client.get(f"/v1/tasks/{task['id']}?view={view}").json() for task in listed]


def test_a_page_of_huge_documents_ends_early_and_goes_on(own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "PAGE_BYTES", 300_000)
    made = [create(own.client, inputs=[{"path": "/in", "content": "x" * 100_000}]) for _ in range(40)]
    got = list(pages(own.client, "view=FULL&page_size=35"))
    assert [identifier for page in got for identifier in page] == made[::-1]
    assert {len(page) for page in got[:-1]} == {3}
    assert list(map(len, pages(own.client, "view=BASIC&page_size=35"))) == [35, 5]
