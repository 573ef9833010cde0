"""A task's life on Kubernetes: what the user sees of it, what is made for it, and what takes that away."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tesk.dispatch import cleaning
from tesk.identity import SERVER
from tesk.kubernetes import names
from tesk.settings import Settings
from tests.engines.gates import Gates
from tests.engines.places import BOTH, KUBERNETES, KubernetesPlace
from tests.engines.running import Document, Tesk, cancelled, content, running, sh, started
from tests.servers.cluster import Object, leftovers
from tests.servers.containers import IMAGE

pytestmark = pytest.mark.places(*KUBERNETES)

BODY_BYTES = 4 * 1024 * 1024


def waits_for(task: Document, words: str) -> bool:
    return task["state"] == "QUEUED" and words in "\n".join(log_of(task).get("system_logs", []))


def log_of(task: Document) -> Document:
    return dict(task["logs"][0]) if task["logs"] else {}


async def made(place: KubernetesPlace, task_id: str) -> set[str]:
    """Kind and step of all pods and claims that there have been, by the cluster's own events."""
    events = await asyncio.to_thread(place.cluster.get, place.namespace, "events")
    about = [event["involvedObject"] for event in events]
    name = f"tesk-{task_id}"
    return {
        f"{of['kind']} {of['name'].removeprefix(name).lstrip('-')}".strip()
        for of in about
        if of["kind"] in ("Pod", "PersistentVolumeClaim") and of["name"].startswith(name)
    }


def taskmasters(made: set[str]) -> set[str]:
    """Those pods whose names end as a Job's do."""
    return {name for name in made if len(name.removeprefix("Pod ")) == 5}


class SlowServer:
    """Takes files by PUT, and answers when it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.came = asyncio.Event()
        self.go = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if b"expect: 100-continue" in head:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.readexactly(size)
            self.came.set()
            await self.go.wait()
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()


@pytest.fixture
async def slow_server(place: KubernetesPlace) -> AsyncIterator[SlowServer]:
    server = SlowServer()
    async with await asyncio.start_server(server.answer, "0.0.0.0", 0) as listener:
        server.url = f"http://{place.host}:{listener.sockets[0].getsockname()[1]}"
        yield server
        server.go.set()


@pytest.mark.oldest
async def test_a_task_without_room_is_queued_with_the_schedulers_words_and_can_be_cancelled(
    settings: Settings, place: KubernetesPlace
) -> None:
    async with started(settings) as tesk:
        large = {"resources": {"cpu_cores": 5000}}
        ids = [
            await tesk.create(executors=[sh("true")], **large),
            await tesk.create(executors=[sh("true")], inputs=[content("/in/a")], **large),
        ]
        for task_id in ids:
            await tesk.until(task_id, lambda task: waits_for(task, "Insufficient cpu"))
        for task in await asyncio.gather(*(cancelled(tesk, place, task_id) for task_id in ids)):
            assert log_of(task)["logs"] == []
            assert log_of(task)["system_logs"] == ["canceled by the user"]
        assert await place.leftovers(settings) == []
    async with started(msgspec.structs.replace(settings, node_selector=("no-such=node",))) as tesk:
        nowhere = await tesk.create(executors=[sh("true")])
        await tesk.until(nowhere, lambda task: waits_for(task, "the taskmaster: 0/1 nodes are available"))
        await cancelled(tesk, place, nowhere)
        assert await place.leftovers(settings) == []


@pytest.mark.oldest
async def test_states_are_what_the_user_takes_them_for(
    tesk: Tesk, slow_server: SlowServer, place: KubernetesPlace, doors: Gates, shared: Path
) -> None:
    """RUNNING from the first program's start, COMPLETE after the last upload; times are the containers' own.

    The last two states are held until they have been seen.
    """
    first_script = f"echo up; wget -q -O /dev/null {doors.url}/executor; /bin/busybox date +%s; exit 5"
    task_id = await tesk.create(
        executors=[sh(first_script, ignore_error=True), sh("echo x > /out/a; echo x > /out/b")],
        inputs=[{"path": "/in/a", "url": f"{doors.url}/inputs"}],
        outputs=[{"path": "/out/a", "url": f"{shared}/a"}, {"path": "/out/b", "url": f"{slow_server.url}/b"}],
    )
    seen: dict[str, float] = {}
    while "RUNNING" not in seen:
        task = await tesk.task(task_id)
        seen.setdefault(task["state"], time.time())
        assert log_of(task).get("logs", []) == []
        if task["state"] == "INITIALIZING":
            doors.open("inputs")
        await asyncio.sleep(0.01)
    assert [*seen][-2:] == ["INITIALIZING", "RUNNING"]
    assert [*seen][:-2] in ([], ["QUEUED"]), "what is not held may go by unseen"
    await tesk.has_written(task_id, "up\n")
    doors.open("executor")
    async with asyncio.timeout(600):
        await slow_server.came.wait()
    assert (await tesk.task(task_id))["state"] == "RUNNING"
    executor = next(pod for pod in await pods(place, task_id) if pod["metadata"]["name"].endswith("-executor-0"))
    slow_server.go.set()
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE"
    log = log_of(task)
    assert sorted(output["path"] for output in log["outputs"]) == ["/out/a", "/out/b"]
    first, second = log["logs"]
    assert (first["exit_code"], second["exit_code"]) == (5, 0)
    assert seconds(first["start_time"]) <= int(first["stdout"].split()[1]) <= seconds(first["end_time"])
    taken_up = seconds(executor["status"]["startTime"])
    assert taken_up <= seconds(first["start_time"])
    assert taken_up <= seen["RUNNING"]


def seconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp).timestamp())


async def pods(place: KubernetesPlace, task_id: str) -> list[Object]:
    return await asyncio.to_thread(place.cluster.get, place.namespace, "pods", f"tesk/task={task_id}")


@pytest.mark.places(*BOTH)
async def test_live_output_is_bounded_for_the_user_and_on_the_disk(tesk: Tesk, place: KubernetesPlace) -> None:
    blocks = "stat -c %b /.tesk/control/stdout >&2"
    script = f"yes 0123456789abcde | head -c 48000000; printf end; while :; do sleep 1; {blocks}; done"
    task_id = await tesk.create(executors=[sh(script)])
    async with asyncio.timeout(600):
        while True:
            log = await tesk.dispatcher.live_log(task_id, SERVER)
            entry = log.logs[-1] if log and log.logs else None
            is_whole = entry and str(entry.stdout).endswith("\nend")
            if entry and is_whole and entry.stderr and int(str(entry.stderr).split()[-1]) * 512 < 20_000_000:
                break
            await asyncio.sleep(0.2)
    assert len(str(entry.stdout)) <= tesk.settings.log_tail_bytes
    assert log is not None
    assert log.logs[-1].exit_code == -1
    task = await cancelled(tesk, place, task_id)
    assert log_of(task)["logs"][0]["stdout"].endswith("\nend")


@pytest.mark.oldest
async def test_what_a_task_does_not_need_is_not_made(tesk: Tesk, place: KubernetesPlace, shared: Path) -> None:
    outputs = [{"path": "/out/a", "url": f"{shared}/a"}]
    cases: list[tuple[set[str], dict[str, Any]]] = [
        ({"Pod executor-0"}, {"executors": [sh("true")]}),
        ({"Pod executor-0"}, {"executors": [sh("pwd; touch x", workdir="/work/there")]}),
        (
            {"PersistentVolumeClaim", "Pod inputs", "Pod executor-0"},
            {"executors": [sh("cat /in/a")], "inputs": [content("/in/a")]},
        ),
        (
            {"PersistentVolumeClaim", "Pod inputs", "Pod executor-0", "Pod executor-1"},
            {"executors": [sh("echo > /v/a"), sh("cat /v/a")], "volumes": ["/v"]},
        ),
        (
            {"PersistentVolumeClaim", "Pod inputs", "Pod executor-0", "Pod outputs"},
            {"executors": [sh("echo x > /out/a")], "outputs": outputs},
        ),
    ]

    async def run(wanted: set[str], document: dict[str, Any]) -> None:
        task = await tesk.run(**document)
        assert task["state"] == "COMPLETE", task["logs"]
        async with asyncio.timeout(600):
            while not wanted <= (found := await made(place, task["id"])) or not (master := taskmasters(found)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert found - master == wanted
        assert len(master) == 1

    await asyncio.gather(*(run(*case) for case in cases))
    assert (shared / "a").read_text() == "x\n"


@pytest.mark.places(*BOTH)
async def test_documents_near_the_body_limit_arrive_whole(tesk: Tesk, place: KubernetesPlace, doors: Gates) -> None:
    texts = [base64.b64encode(os.urandom(60_000)).decode() for _ in range(50)]
    document = {
        "executors": [sh(f"cat /in/* | md5sum; wget -q -O /dev/null {doors.url}/seen")],
        "inputs": [content(f"/in/{n:02}", text) for n, text in enumerate(texts)],
    }
    assert 0.9 * BODY_BYTES < len(json.dumps(document)) < BODY_BYTES
    task_id = await tesk.create(**document)
    await tesk.until(task_id, running)
    secrets = await asyncio.to_thread(place.cluster.get, place.namespace, "secrets", f"tesk/task={task_id}")
    assert len(secrets) > 3
    doors.open("seen")
    task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE", task["logs"]
    assert log_of(task)["logs"][0]["stdout"].split()[0] == hashlib.md5("".join(texts).encode()).hexdigest()


@pytest.fixture
def other(place: KubernetesPlace, tmp_path: Path) -> Settings:
    """Settings of another instance in the same namespace."""
    (tmp_path / "other").mkdir()
    return place.settings(tmp_path / "other")


def forgetful(settings: Settings, tmp_path: Path) -> Settings:
    """The same instance with an empty store."""
    (tmp_path / "empty").mkdir()
    return msgspec.structs.replace(settings, data=str(tmp_path / "empty"))


async def left(place: KubernetesPlace, settings: Settings) -> list[str]:
    """What there is of an instance's tasks now."""
    of = f"app.kubernetes.io/instance={settings.instance}"
    return await asyncio.to_thread(leftovers, place.cluster, place.namespace, 0, of)


LONG: dict[str, Any] = {"executors": [sh("sleep 3600")], "inputs": [content("/in/a", "x" * 10)]}


@pytest.mark.parametrize("cascade", ["", "orphan"])
async def test_what_the_store_does_not_know_is_swept_and_another_instances_is_not(
    settings: Settings, other: Settings, place: KubernetesPlace, tmp_path: Path, cascade: str
) -> None:
    """`cascade`: how the task's Job was deleted before, by hand, so that nothing owns the rest any more."""
    async with started(other) as neighbour:
        theirs = await neighbour.create(**LONG)
        async with started(settings) as tesk:
            ours = await tesk.create(**LONG)
            await tesk.until(ours, running)
        await neighbour.until(theirs, running)
        if cascade:
            job = ("delete", "job", f"tesk-{ours}", f"--cascade={cascade}")
            await asyncio.to_thread(place.cluster.kubectl, "-n", place.namespace, *job)
        assert len(await left(place, settings)) >= 5
        async with started(forgetful(settings, tmp_path)):
            assert await place.leftovers(settings) == []
        assert len(await left(place, other)) == 7
        await cancelled(neighbour, place, theirs)
        assert await place.leftovers(other) == []


async def test_what_appears_later_is_swept_too(
    settings: Settings, place: KubernetesPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "SWEEP_S", 0.5)
    async with started(settings) as tesk:
        known = await tesk.create(**LONG)
        await tesk.until(known, running)
        labels = names.labels(settings.instance, "0123456789abc", names.EXECUTOR_ROLE)
        metadata = {"name": "tesk-0123456789abc-executor-0", "namespace": place.namespace, "labels": labels}
        security = {"allowPrivilegeEscalation": False}
        program = {"name": "executor", "image": IMAGE, "command": ["sleep", "3600"], "securityContext": security}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [program]}}
        await asyncio.to_thread(place.cluster.apply, pod)
        of = f"tesk/task={labels[names.TASK]}"
        assert await asyncio.to_thread(leftovers, place.cluster, place.namespace, of=of) == []
        assert (await tesk.task(known))["state"] == "RUNNING"
        await cancelled(tesk, place, known)


@pytest.mark.oldest
async def test_the_cluster_itself_removes_everything_when_the_job_of_a_lost_server_is_deleted(
    settings: Settings, place: KubernetesPlace
) -> None:
    async with started(settings) as tesk:
        task_id = await tesk.create(**LONG)
        await tesk.until(task_id, running)
    found = await left(place, settings)
    assert sorted(name.split("/")[0] for name in found) == [
        "configmaps", "jobs", "persistentvolumeclaims", "pods", "pods", "pods", "secrets",
    ]  # fmt: skip
    await asyncio.to_thread(place.cluster.kubectl, "-n", place.namespace, "delete", "job", f"tesk-{task_id}")
    assert await place.leftovers(settings) == []
