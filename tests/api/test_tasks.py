"""Create, get and cancel, as clients do them; the numbers are those of the list of what breaks real clients."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.dispatch import admission
from tesk.tes import ExecutorLog, OutputFileLog, State, TaskLog
from tests.api.conftest import LIMIT_S, Running, running
from tests.servers.cluster import until

PREFIXES = ("/ga4gh/tes/v1", "/v1", "")
MINIMAL = {"executors": [{"image": "alpine", "command": ["true"]}]}
FULL_DOCUMENT: dict[str, Any] = {
    "name": "align",
    "description": "one step",
    "inputs": [
        {"path": "/in/script", "content": "echo secret-content"},
        {"path": "/in/reads", "url": "s3://bucket/reads", "type": "FILE"},
    ],
    "outputs": [{"path": "/out/*.bam", "path_prefix": "/out", "url": "s3://bucket/out/"}],
    "executors": [{"image": "alpine", "command": ["sh", "-c", "true", ""], "workdir": "/w", "env": {"A": "b"}}],
    "resources": {"cpu_cores": 0.5, "ram_gb": 2},
    "volumes": ["/vol"],
    "tags": {"run": "17"},
}


def create(client: httpx.Client, document: object = MINIMAL) -> str:
    answer = client.post("/v1/tasks", json=document)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"id"}
    identifier: str = answer.json()["id"]
    return identifier


def ran(server: Running, identifier: str, state: State, log: TaskLog) -> None:
    assert server.do(server.store.advance(identifier, state, log))


def a_log() -> TaskLog:
    return TaskLog(
        logs=[ExecutorLog(0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "the stdout", "the stderr")],
        outputs=[OutputFileLog("s3://bucket/out/a.bam", "/out/a.bam", "1024")],
        start_time="2026-01-01T00:00:00Z",
        end_time="2026-01-01T00:00:02Z",
        metadata={"host": "worker-1"},
        system_logs=["fetched 1 input"],
    )


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_base_path_serves_the_same_tasks(client: httpx.Client, prefix: str) -> None:
    identifier = client.post(prefix + "/tasks", json=MINIMAL).json()["id"]
    for other in PREFIXES:
        answer = client.get(f"{other}/tasks/{identifier}")
        assert answer.status_code == 200
        assert answer.json() == {"id": identifier, "state": "QUEUED"}
        assert identifier in {task["id"] for task in client.get(other + "/tasks").json()["tasks"]}
    assert client.post(f"{prefix}/tasks/{identifier}:cancel", json={}).json() == {}


# 1: unknown or null keys
def test_minimal_is_id_and_state_alone(client: httpx.Client) -> None:
    identifier = create(client, FULL_DOCUMENT)
    for query in ("", "?view=MINIMAL", "?view=", "?other=1"):
        answer = client.get(f"/v1/tasks/{identifier}{query}")
        assert answer.json() == {"id": identifier, "state": "QUEUED"}


def test_basic_is_the_document_without_content_and_logs_without_text(server: Running) -> None:
    identifier = create(server.client, FULL_DOCUMENT)
    ran(server, identifier, State.COMPLETE, a_log())
    task = server.client.get(f"/v1/tasks/{identifier}?view=BASIC").json()
    assert task.pop("id") == identifier
    assert task.pop("state") == "COMPLETE"
    assert task.pop("creation_time").endswith("Z")
    assert task.pop("logs") == [
        {
            "logs": [{"exit_code": 0, "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z"}],
            "outputs": [{"url": "s3://bucket/out/a.bam", "path": "/out/a.bam", "size_bytes": "1024"}],
            "start_time": "2026-01-01T00:00:00Z",
            "end_time": "2026-01-01T00:00:02Z",
            "metadata": {"host": "worker-1"},
        }
    ]
    expected = {**FULL_DOCUMENT, "inputs": [{"path": "/in/script"}, FULL_DOCUMENT["inputs"][1]]}
    assert task == expected


def test_full_has_content_streams_and_system_logs(server: Running) -> None:
    identifier = create(server.client, FULL_DOCUMENT)
    ran(server, identifier, State.COMPLETE, a_log())
    task = server.client.get(f"/v1/tasks/{identifier}?view=FULL").json()
    assert task["inputs"] == FULL_DOCUMENT["inputs"]
    (log,) = task["logs"]
    assert log["system_logs"] == ["fetched 1 input"]
    assert log["logs"][0]["stdout"] == "the stdout"
    assert log["logs"][0]["stderr"] == "the stderr"


# 3: nulls, forms
def test_a_request_full_of_nulls_comes_back_without_them(client: httpx.Client) -> None:
    nulls = dict.fromkeys(
        (
            "id",
            "state",
            "name",
            "description",
            "inputs",
            "outputs",
            "resources",
            "volumes",
            "tags",
            "logs",
            "creation_time",
        )
    )
    executor = {
        "image": "alpine",
        "command": ["true"],
        **dict.fromkeys(("workdir", "stdin", "stdout", "stderr", "env", "ignore_error")),
    }
    identifier = create(client, {**nulls, "executors": [executor]})
    task = client.get(f"/v1/tasks/{identifier}?view=FULL").json()
    logs = task.pop("logs", [])  # what it waits for, once the server has looked at it
    assert all(set(log) == {"logs", "outputs", "system_logs"} for log in logs)
    assert set(task) == {"id", "state", "creation_time", "executors"}
    assert task["executors"] == [{"image": "alpine", "command": ["true"]}]


# 4: readable at once
def test_a_task_is_readable_at_once(client: httpx.Client) -> None:
    for _ in range(20):
        assert client.get(f"/v1/tasks/{create(client)}").status_code == 200


def test_a_created_task_is_taken_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the dispatcher looks around by itself."""
    monkeypatch.setattr(admission, "RESCAN_S", 3600.0)
    monkeypatch.setattr(admission, "AGAIN_S", 3600.0)
    with running(tmp_path) as server:
        server.engine.room = 100
        for _ in range(3):
            identifier = create(server.client)
            assert server.engine.submitted.get(timeout=LIMIT_S) == identifier


# 6: cancel
@pytest.mark.parametrize("form", [":cancel", "%3Acancel", "%3acancel"])
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"id":"x"}'])
@pytest.mark.parametrize("media", ["application/json", "application/json; charset=utf-8"])
def test_cancel_takes_any_of_the_forms_clients_use(client: httpx.Client, form: str, body: bytes, media: str) -> None:
    identifier = create(client)
    answer = client.post(f"/v1/tasks/{identifier}{form}", content=body, headers={"Content-Type": media})
    assert (answer.status_code, answer.json()) == (200, {})
    assert client.get(f"/v1/tasks/{identifier}").json()["state"] == "CANCELED"


@pytest.mark.parametrize("state", [State.COMPLETE, State.EXECUTOR_ERROR, State.SYSTEM_ERROR])
def test_cancelling_a_finished_task_is_fine_and_changes_nothing(server: Running, state: State) -> None:
    identifier = create(server.client)
    ran(server, identifier, state, a_log())
    answer = server.client.post(f"/v1/tasks/{identifier}:cancel", json={})
    assert (answer.status_code, answer.json()) == (200, {})
    assert server.client.get(f"/v1/tasks/{identifier}").json()["state"] == state.name


def test_cancelling_twice_is_fine(client: httpx.Client) -> None:
    identifier = create(client)
    for _ in range(2):
        assert client.post(f"/v1/tasks/{identifier}:cancel", json={}).status_code == 200
    assert client.get(f"/v1/tasks/{identifier}").json()["state"] == "CANCELED"


def test_cancelling_an_unknown_task_is_404(client: httpx.Client) -> None:
    for identifier in ("0000000000000", "nope", "", "a" * 3000):
        assert client.post(f"/v1/tasks/{identifier}:cancel", json={}).status_code == 404


# 7: types in logs
def test_logs_of_a_task_that_never_ran_have_their_arrays(server: Running) -> None:
    identifier = create(server.client)
    ran(server, identifier, State.SYSTEM_ERROR, TaskLog(system_logs=["cannot fit"]))
    for view in ("BASIC", "FULL"):
        (log,) = server.client.get(f"/v1/tasks/{identifier}?view={view}").json()["logs"]
        assert log["logs"] == []
        assert log["outputs"] == []


# 8: media type with parameters
@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "application/json ; charset=us-ascii",
    ],
)
def test_json_is_json_with_any_parameters(client: httpx.Client, media: str) -> None:
    body = b'{"executors":[{"image":"alpine","command":["true"]}]}'
    assert client.post("/v1/tasks", content=body, headers={"Content-Type": media}).status_code == 200


def test_a_chunked_body_is_a_body(client: httpx.Client) -> None:
    chunks = iter([b'{"executors":[{"image"', b':"alpine","command":["true"]}]}'])
    assert client.post("/v1/tasks", content=chunks, headers={"Content-Type": "application/json"}).status_code == 200


def test_128_kib_of_content_come_back_whole(client: httpx.Client) -> None:
    content = "äß\n" * 26_215
    assert len(content.encode()) > 128 * 1024
    identifier = create(client, {**MINIMAL, "inputs": [{"path": "/in", "content": content}]})
    assert client.get(f"/v1/tasks/{identifier}?view=FULL").json()["inputs"][0]["content"] == content
    assert "content" not in client.get(f"/v1/tasks/{identifier}?view=BASIC").text


def test_long_arguments_are_kept(client: httpx.Client) -> None:
    command = ["python", "-c", "x" * 200_000]
    identifier = create(client, {"executors": [{"image": "alpine", "command": command}]})
    assert client.get(f"/v1/tasks/{identifier}?view=BASIC").json()["executors"][0]["command"] == command


def test_times_carry_a_zone(client: httpx.Client) -> None:
    task = client.get(f"/v1/tasks/{create(client)}?view=BASIC").json()
    date, _, clock = task["creation_time"].partition("T")
    assert len(date) == 10
    assert clock.endswith("Z")


def test_the_running_task_shows_what_it_has_written_so_far(server: Running) -> None:
    document = {**MINIMAL, "resources": {"backend_parameters": {"gpu": "1"}}}
    identifier = create(server.client, document)
    first = TaskLog(logs=[ExecutorLog(-1)], system_logs=["pulled"])
    ran(server, identifier, State.RUNNING, first)
    server.engine.live[identifier] = TaskLog(logs=[ExecutorLog(-1, stdout="so far")], system_logs=["pulled", "started"])
    (log,) = server.client.get(f"/v1/tasks/{identifier}?view=FULL").json()["logs"]
    assert log["logs"] == [{"exit_code": -1, "stdout": "so far"}]
    assert log["outputs"] == []
    assert log["system_logs"][1:] == ["pulled", "started"]
    assert "'gpu'" in log["system_logs"][0], "the warning of the request stays in front"
    ran(server, identifier, State.COMPLETE, TaskLog(logs=[ExecutorLog(0, stdout="all of it")]))
    (log,) = server.client.get(f"/v1/tasks/{identifier}?view=FULL").json()["logs"]
    assert log["logs"][0]["stdout"] == "all of it", "the end is read from the store, not from the engine"


def test_a_queued_task_says_what_it_waits_for(server: Running) -> None:
    document = {**MINIMAL, "resources": {"backend_parameters": {"gpu": "1"}}}
    identifiers = [create(server.client, MINIMAL), create(server.client, document)]

    def waiting() -> dict[str, Any] | None:
        (log,) = server.client.get(f"/v1/tasks/{identifiers[1]}?view=FULL").json().get("logs", [{"system_logs": []}])
        return log if len(log["system_logs"]) == 2 else None

    log = until(waiting, what="why it waits")
    assert "'gpu'" in log["system_logs"][0], "the warning of the request stays in front"
    assert log["system_logs"][1].endswith("waiting: as many tasks run as may at once (max_active_tasks)")
    assert (log["logs"], log["outputs"]) == ([], [])
    assert "logs" not in server.client.get(f"/v1/tasks/{identifiers[0]}?view=MINIMAL").json()


def test_head_answers_as_get_without_a_body(client: httpx.Client) -> None:
    identifier = create(client)
    for path in (f"/v1/tasks/{identifier}", "/v1/tasks", "/v1/service-info", "/healthz"):
        answer = client.head(path)
        assert answer.status_code == 200
        assert answer.content == b""
        assert int(answer.headers["content-length"]) > 0


def test_large_answers_are_compressed_for_who_accepts_it(client: httpx.Client) -> None:
    identifier = create(client, {**MINIMAL, "inputs": [{"path": "/in", "content": "x" * 100_000}]})
    path = f"/v1/tasks/{identifier}?view=FULL"
    packed = client.get(path, headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 10_000
    assert "accept-encoding" in packed.headers["vary"]
    plain = client.get(path, headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content
    small = client.get(f"/v1/tasks/{identifier}", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


def test_request_ids_are_taken_and_given(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "from-client.1"}).headers["x-request-id"] == "from-client.1"
    given = {client.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(given) == 5
    for insane in (b"a b", b"x" * 200, b'x"y', "ä".encode(), b""):
        answer = client.get("/healthz", headers={b"X-Request-ID": insane})
        assert answer.headers["x-request-id"].encode() != insane


def test_a_task_may_have_so_many_inputs_as_the_settings_say(client: httpx.Client) -> None:
    """20,000 of them with the paths and URLs of real ones; what differs from them in the end is the number alone."""
    name = "sample-{0:06}/reads/lane-1/sample-{0:06}_S1_L001_R1_001.fastq.gz"
    inputs = [
        {"path": f"/inputs/{name.format(n)}", "url": f"s3://a-bucket-of-a-laboratory/project/run-17/{name.format(n)}"}
        for n in range(20_001)
    ]
    identifier = create(client, MINIMAL | {"inputs": inputs[1:]})
    kept = client.get(f"/v1/tasks/{identifier}", params={"view": "FULL"}).json()["inputs"]
    assert (len(kept), kept[-1]) == (20_000, inputs[-1])
    refused = client.post("/v1/tasks", json=MINIMAL | {"inputs": inputs})
    assert refused.status_code == 400
    assert "inputs: 20001 is more than the 20000 that this server allows (setting max_files)" in refused.text
