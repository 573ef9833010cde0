"""Real client libraries drive the running server: py-tes as engines pin it today (1.1.4) and for years (0.4.2).

py-tes builds its classes from keyword arguments, so that one key it does not know ends a client. The old one runs in
an environment of its own.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tes as py_tes  # type: ignore[import-untyped]

from tesk.tes import ExecutorLog, OutputFileLog, State, TaskLog
from tests.api.conftest import Running, running
from tests.servers.environments import environment

OLD_CLIENT = Path(__file__).with_name("py_tes_0_4_2.py")


def log_of_all_fields() -> TaskLog:
    return TaskLog(
        logs=[ExecutorLog(0, "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z", "out", "err")],
        outputs=[OutputFileLog("s3://bucket/out", "/out", "1024")],
        start_time="2026-01-01T00:00:00Z",
        end_time="2026-01-01T00:00:02Z",
        metadata={"host": "worker"},
        system_logs=["a line"],
    )


def the_task() -> Any:
    return py_tes.Task(
        name="py-tes",
        description="all that it can say",
        inputs=[
            py_tes.Input(path="/in/a", content="inline"),
            py_tes.Input(path="/in/b", url="s3://bucket/b", type="FILE", name="b", description="d"),
        ],
        outputs=[py_tes.Output(path="/out", url="s3://bucket/out", type="DIRECTORY", name="o")],
        resources=py_tes.Resources(cpu_cores=1, ram_gb=2, disk_gb=4, preemptible=False, zones=["a"]),
        executors=[
            py_tes.Executor(
                image="alpine",
                command=["sh", "-c", "true"],
                workdir="/w",
                stdin="/in/a",
                stdout="/out/o",
                stderr="/out/e",
                env={"A": "b"},
                ignore_error=True,
            )
        ],
        volumes=["/vol"],
        tags={"a": "b"},
    )


def at(server: Running, base: str) -> Any:
    return py_tes.HTTPClient(server.url + base, timeout=180)


@pytest.mark.parametrize("base", ["", "/", "/v1", "/ga4gh/tes/v1"])
def test_py_tes_finds_the_api_at_any_base(server: Running, base: str) -> None:
    client = at(server, base)
    identifier = client.create_task(py_tes.Task(executors=[py_tes.Executor(image="alpine", command=["true"])]))
    assert client.get_task(identifier, "MINIMAL").state == "QUEUED"
    assert identifier in [task.id for task in client.list_tasks().tasks]
    assert client.get_service_info().type["artifact"] == "tes"
    client.cancel_task(identifier)
    assert client.wait(identifier, timeout=180).state == "CANCELED"


@pytest.mark.parametrize("view", ["MINIMAL", "BASIC", "FULL"])
def test_py_tes_reads_every_view_of_every_state(server: Running, view: str) -> None:
    client = at(server, "")
    for state in (
        State.QUEUED,
        State.INITIALIZING,
        State.RUNNING,
        State.COMPLETE,
        State.EXECUTOR_ERROR,
        State.CANCELED,
    ):
        identifier = client.create_task(the_task())
        if state is not State.QUEUED:
            assert server.do(server.store.advance(identifier, state, log_of_all_fields()))
        task = client.get_task(identifier, view)
        assert task.state == state.name
        assert task.id == identifier
        assert client.list_tasks(view=view, page_size=1).tasks[0].id == identifier


def test_py_tes_reads_back_what_it_wrote(server: Running) -> None:
    client = at(server, "")
    sent = the_task()
    task = client.get_task(client.create_task(sent), "FULL")
    for field in ("name", "description", "inputs", "outputs", "executors", "volumes", "tags"):
        assert getattr(task, field) == getattr(sent, field)
    assert (task.resources.cpu_cores, task.resources.ram_gb, task.resources.zones) == (1, 2, ["a"])
    assert task.creation_time.tzinfo is not None


def test_py_tes_pages_through_a_list(server: Running) -> None:
    client = at(server, "")
    made = [client.create_task(the_task()) for _ in range(5)]
    got: list[str] = []
    token: str | None = None
    while len(got) < 5:
        page = client.list_tasks(page_size=2, page_token=token)
        got += [task.id for task in page.tasks]
        token = page.next_page_token
    assert got[:5] == made[::-1]


def test_py_tes_is_told_why_a_task_is_refused(server: Running) -> None:
    with pytest.raises(Exception, match="400 Client Error"):
        at(server, "").create_task(py_tes.Task(executors=[py_tes.Executor(image="alpine", command=["a"], workdir="w")]))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What py-tes 0.4.2 saw, in its own interpreter, of a task that it created and one that has ended.

    On a server of its own: it cannot read tasks that set what TES 1.0 did not know, such as `ignore_error`.
    """
    with running(tmp_path_factory.mktemp("old")) as server:
        return seen_by_old_client(server)


def seen_by_old_client(server: Running) -> dict[str, Any]:
    executor = {"image": "alpine", "command": ["true"]}
    document = {
        "name": "ended",
        "executors": [executor],
        "inputs": [{"path": "/in", "content": "x"}],
        "tags": {"a": "b"},
    }
    ended = server.client.post("/v1/tasks", json=document).json()["id"]
    assert server.do(server.store.advance(ended, State.COMPLETE, log_of_all_fields()))
    done = run_old_client(server.url, ended)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert isinstance(seen, dict)
    return seen


def run_old_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    python = environment("py-tes-0.4.2", "py-tes==0.4.2", "six") / "python"
    return subprocess.run([python, OLD_CLIENT, *arguments], capture_output=True, text=True, timeout=240, check=False)


def test_old_py_tes_is_the_old_one(old: dict[str, Any]) -> None:
    assert old["version"] == "0.4.2"


def test_old_py_tes_reads_the_old_service_info(old: dict[str, Any]) -> None:
    assert old["service_info"]["name"] == "tesk"


def test_old_py_tes_creates_reads_lists_and_cancels(old: dict[str, Any]) -> None:
    assert old["created"]["MINIMAL"] == {"id": old["id"], "state": "QUEUED"}
    assert old["created"]["BASIC"]["name"] == "old client"
    assert old["id"] in old["listed"]
    assert old["after_cancel"] == "CANCELED"


def test_old_py_tes_reads_the_logs_of_an_ended_task(old: dict[str, Any]) -> None:
    for view in ("BASIC", "FULL"):
        (log,) = old["ended"][view]["logs"]
        assert log["logs"][0]["exit_code"] == 0
        assert str(log["outputs"][0]["size_bytes"]) == "1024"
    assert old["ended"]["FULL"]["logs"][0]["logs"][0]["stdout"] == "out"
