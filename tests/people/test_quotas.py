"""Quotas over HTTP, on both databases: what waits while others pass, and what is refused.

The engine only says what it has room for (tests/api/conftest.py); tests/engines/test_quotas.py has a real one.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.clock import at
from tesk.dispatch import admission
from tesk.identity import Owner
from tesk.life.status import TaskStatus
from tesk.rules import Quota, Quotas, Rules
from tesk.server import quotas
from tesk.store.base import NewTask
from tesk.tes import State, TaskLog
from tests.api.conftest import Running, postgres_server, running
from tests.api.test_queue import database, given
from tests.servers.cluster import until

__all__ = ["postgres_server"]

TRUSTED = ("127.0.0.1/32",)
NEVER = 3600.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database(request.param, tmp_path, request)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is not looked at again because time has passed."""
    for name in ("AGAIN_S", "RESCAN_S"):
        monkeypatch.setattr(admission, name, NEVER)


def serving(folder: Path, url: str, rules: str) -> Any:
    (folder / "rules.toml").write_text(rules)
    return running(
        folder, frozenset({"gpu"}), url, rules=str(folder / "rules.toml"), trusted_addresses=TRUSTED, admins=("root",)
    )


def ask(server: Running, user: str, group: str = "", **resources: Any) -> httpx.Response:
    document = {
        "executors": [{"image": "alpine", "command": ["true"]}],
        "resources": resources,
        "tags": {"group": group},
    }
    return server.client.post("/v1/tasks", json=document, headers=signed_in(user))


def post(server: Running, user: str, group: str = "", **resources: Any) -> str:
    answer = ask(server, user, group, **resources)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def signed_in(user: str) -> dict[str, str]:
    return {"X-Forwarded-User": user, "X-Forwarded-Groups": "lab,other"}


def says(server: Running, task_id: str, line: str) -> None:
    """Waits until the queued task says so."""

    def said() -> Any:
        return server.client.get(f"/v1/tasks/{task_id}?view=FULL", headers=signed_in("root")).json().get("logs", [])

    until(lambda: [log["system_logs"] for log in said()] == [[line]], 30, f"what {task_id} says: {said()}")


def end(server: Running, task_id: str, log: TaskLog = TaskLog()) -> None:  # noqa: B008 - it does not change
    async def report() -> None:
        assert server.engine.report is not None
        server.engine.report(task_id, TaskStatus(State.COMPLETE, log))

    server.do(report())


def test_what_is_beyond_a_quota_waits_and_says_so_and_others_pass(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, url, "[quotas.groups.lab]\nrunning_tasks = 2\n[quotas.users.ben]\ncpu_cores = 2") as server:
        server.engine.room = 99
        first, second = [post(server, "ann", "lab") for _ in range(2)]
        assert [given(server), given(server)] == [first, second]
        waits = post(server, "ann", "lab")
        says(server, waits, "waiting: the quota of group lab: 2 tasks at once")
        other, behind = post(server, "ben", "lab"), post(server, "ben", cpu_cores=2)
        assert given(server) == behind
        says(
            server,
            other,
            "waiting: the quota of user ben: 2 cores at once; it asks for 0.28, and tasks that run have 2",
        )
        end(server, behind)
        says(server, other, "waiting: the quota of group lab: 2 tasks at once")
        end(server, first)
        assert given(server) == other, "its owner has fewer that run"
        end(server, second)
        assert given(server) == waits


def test_what_ran_before_a_restart_counts_at_once(tmp_path: Path, url: str) -> None:
    rules = "[quotas.users.'*']\nrunning_tasks = 2"
    with serving(tmp_path, url, rules) as server:
        server.engine.room = 99
        ids = [post(server, "ann") for _ in range(2)]
        assert [given(server), given(server)] == ids
        waits = post(server, "ann")
    with serving(tmp_path, url, rules) as server:
        server.engine.room = 99
        other = post(server, "ben")
        assert {given(server) for _ in range(3)} == {*ids, other}
        says(server, waits, "waiting: the quota of user ann: 2 tasks at once")
        end(server, ids[1])
        assert given(server) == waits


def test_tasks_beyond_a_quota_that_fill_the_memory_hold_nobody_up(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AHEAD": 5, "PAGE": 3, "FEW": 2, "LOOK_BEHIND_S": NEVER}.items():
        monkeypatch.setattr(admission, name, value)

    async def create(user: str) -> str:
        document = b'{"executors":[{"image":"alpine","command":["true"]}]}'
        return str(await server.store.create(NewTask(basic=document, owner=Owner(user))))

    with serving(tmp_path, url, "[quotas.users.ann]\nrunning_tasks = 1") as server:
        server.engine.room = 99
        many = [server.do(create("ann")) for _ in range(30)]
        few = [server.do(create("ben")) for _ in range(9)]
        server.dispatcher.wake()
        assert [given(server) for _ in range(10)] == [many[0], *few]
        says(server, many[-1], "waiting: the quota of user ann: 1 task at once")
        end(server, many[0])
        assert given(server) == many[1]


def test_creates_while_all_in_memory_waits_are_one_reason_to_look_at_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "LOOK_BEHIND_S", NEVER)

    async def created() -> bool:
        return bool(server.dispatcher._admission.created())

    with serving(tmp_path, "", "[quotas.users.ann]\nrunning_tasks = 1") as server:
        server.engine.room = 99
        first = post(server, "ann")
        assert given(server) == first
        says(server, post(server, "ann"), "waiting: the quota of user ann: 1 task at once")
        assert [server.do(created()) for _ in range(3)] == [True, False, False]


def test_changed_rules_count_from_the_next_look_on(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, url, "[quotas.users.ann]\nrunning_tasks = 1") as server:
        server.engine.room = 99
        first, second, third = [post(server, "ann") for _ in range(3)]
        assert given(server) == first
        says(server, third, "waiting: the quota of user ann: 1 task at once")
        server.dispatcher._rules.rules = Rules(quotas=Quotas(users={"ann": Quota(running_tasks=2)}))
        server.dispatcher.work.wake.set()
        assert given(server) == second
        says(server, third, "waiting: the quota of user ann: 2 tasks at once")
        server.dispatcher._rules.rules = Rules(quotas=Quotas(users={"ann": Quota(running_tasks=2)}))
        server.do(server.dispatcher._admission._limits.learn([(7, 0)]))
        server.dispatcher.work.wake.set()
        says(server, third, "waiting: the quota of user ann: 2 tasks at once")
        server.dispatcher._rules.rules = Rules()
        server.dispatcher.work.wake.set()
        assert given(server) == third


@pytest.mark.parametrize(
    ("resources", "field", "words"),
    [
        (
            {"cpu_cores": 5},
            "resources.cpu_cores",
            "the quota of group lab: 4 cores at once; the task asks for 5, and so",
        ),
        ({"ram_gb": 3}, "resources.ram_gb", "the quota of user ann: 2.5 GiB of memory at once; the task asks for 3"),
        (
            {"backend_parameters": {"GPU": "2"}},
            "resources.backend_parameters.gpu",
            "the quota of group lab: 1 GPU at once; the task asks for 2, and so would wait for ever",
        ),
    ],
)
def test_a_task_that_alone_is_beyond_a_quota_is_refused(
    tmp_path: Path, resources: dict[str, Any], field: str, words: str
) -> None:
    rules = "[quotas.groups.lab]\ncpu_cores = 4\ngpus = 1\n[quotas.users.ann]\nram_gb = 2.5"
    with serving(tmp_path, "", rules) as server:
        answer = ask(server, "ann", "lab", **resources)
        assert (answer.status_code, answer.json()["field"]) == (403, field)
        assert words in answer.json()["msg"]
        post(server, "ann", "lab", cpu_cores=4, ram_gb=2.5)
        post(server, "ben", ram_gb=3)


def test_more_queued_tasks_than_the_quota_are_refused_until_some_have_started(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "RECOUNT_S", 0.0)
    monkeypatch.setattr(quotas, "COUNTING_SHARE", 1e9)
    with serving(
        tmp_path, url, "[quotas.users.ann]\nqueued_tasks = 3\n[quotas.groups.lab]\nqueued_tasks = 4"
    ) as server:
        ids = [post(server, "ann", "lab") for _ in range(3)]
        answer = ask(server, "ann")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
        assert answer.json() == {
            "status_code": 429,
            "msg": "the quota of user ann: 3 queued tasks; try again when some of them have started",
        }
        post(server, "ben", "lab")
        assert "the quota of group lab: 4 queued tasks" in ask(server, "ben", "lab").json()["msg"]
        post(server, "ben")
        for task_id in ids[:2]:
            end(server, task_id)
            until(lambda: not server.dispatcher.work.recording, 30, "its end to be on record")
        assert [ask(server, "ann", "lab").status_code for _ in range(3)] == [200, 200, 429]


def test_many_creates_at_once_do_not_pass_the_quota(tmp_path: Path, url: str) -> None:
    async def create_all() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=180) as client:
            body = {"executors": [{"image": "alpine", "command": ["true"]}]}
            users = [f"user-{n % 3}" for n in range(64)]
            sent = [
                client.post("/v1/tasks", json=body | {"tags": {"group": "lab"}}, headers=signed_in(u)) for u in users
            ]
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    with serving(tmp_path, url, "[quotas.groups.lab]\nqueued_tasks = 10") as server:
        found = asyncio.run(create_all())
        assert sorted(found) == [200] * 10 + [429] * 54
        assert ask(server, "user-0", "lab").status_code == 429
        post(server, "user-0")


def test_tasks_that_were_queued_before_the_server_began_count(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, url, "") as server:
        for _ in range(3):
            post(server, "ann")
    with serving(tmp_path, url, "[quotas.users.ann]\nqueued_tasks = 4") as server:
        assert [ask(server, "ann").status_code for _ in range(2)] == [200, 429]


def test_who_has_used_the_core_hours_of_the_month_is_refused_until_its_end(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "HOURS_S", 0.0)
    rules = "[quotas.users.'*']\ncore_hours_per_month = 100\n[quotas.groups.lab]\ncore_hours_per_month = 50"
    with serving(tmp_path, url, rules) as server:
        server.engine.room = 99
        task_id = post(server, "ann", "lab", cpu_cores=60 * 3600)
        assert given(server) == task_id
        now_ms = time.time_ns() // 1_000_000
        end(server, task_id, TaskLog(start_time=at(now_ms - 1000), end_time=at(now_ms)))
        until(lambda: not server.dispatcher.work.recording, 30, "what it used to be on record")
        assert ask(server, "ben", "lab").status_code == 429
        answer = ask(server, "ann", "lab")
        assert answer.json()["msg"] == ("the quota of group lab: 50 core hours a month; tasks have used 60.00")
        assert 0 < int(answer.headers["retry-after"]) <= 31 * 24 * 3600
        assert post(server, "ann") == given(server), "the user has some left"


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC), 0.5),
        (datetime(2028, 2, 1, tzinfo=UTC), 29 * 24 * 3600),
        (datetime(2026, 11, 30, 12, tzinfo=UTC), 12 * 3600),
    ],
)
def test_the_rest_of_a_month(now: datetime, seconds: float) -> None:
    assert quotas.rest_of_month_s(now.timestamp()) == seconds
