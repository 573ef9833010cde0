"""What the server says of a task that runs in one pod, by what it sees of that pod and has been told by its runner."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from tesk.kubernetes import names
from tesk.kubernetes.objects import Metadata, Pod
from tesk.kubernetes.pod_status import Trouble
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_pod import pack_earlier
from tesk.kubernetes.task_settings import TaskSettings
from tesk.places.base import Demand, Job
from tesk.places.kubernetes.assess import assess
from tesk.places.kubernetes.assess_task_pod import KILL_S, UNTOLD_S
from tesk.places.kubernetes.following import Following
from tesk.places.kubernetes.observed import Assessment, ObservedTask, attempt_log, cancelled, recall, shown
from tesk.tes import ExecutorLog, State, Task, TaskLog

CLUSTER = TaskSettings(namespace="n", instance="i", image="tesk:1", image_timeout_s=60, grace_s=5)
AT = "2026-01-01T00:00:00.000Z"
LINE = "runs as one pod"
RUNNING: dict[str, Any] = {"running": {"startedAt": AT}}
DONE: dict[str, Any] = {"terminated": {"exitCode": 0, "reason": "Completed"}}
NO_ROOM = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def pod(*states: dict[str, Any], attempt: int = 1, deleted: bool = False, **status: Any) -> Pod:
    """The pod whose runner is so, and whose executors are so."""
    name = names.task_pod("1", attempt)
    notes = {names.MODE_LINE: LINE}
    if attempt > 1:
        notes[names.EARLIER] = pack_earlier([TaskLog(system_logs=["lost"])])
    metadata: dict[str, Any] = {"name": name, "labels": names.labels("i", "1", names.TASK_POD), "annotations": notes}
    if deleted:
        metadata["deletionTimestamp"] = AT
    containers = [names.RUNNER_CONTAINER, *(names.executor_container(n) for n in range(max(0, len(states) - 1)))]
    statuses = [
        {"name": each, "image": "busybox", "state": state} for each, state in zip(containers, states, strict=False)
    ]
    spec = {
        "nodeName": "node" if states else "",
        "containers": [
            {"name": each, "image": "busybox", "resources": {"limits": {"memory": "64Mi"}}} for each in containers
        ],
    }
    return msgspec.convert(
        {"metadata": metadata, "spec": spec, "status": {"containerStatuses": statuses} | status}, Pod
    )


def record(state: State, *codes: int, lines: tuple[str, ...] = (), **changes: Any) -> Record:
    entries = [ExecutorLog(code, AT, AT, "out", "") for code in codes]
    log = TaskLog(logs=entries, start_time=AT, system_logs=[*lines] if lines else UNSET)
    return Record(state, [Attempt(log)], **changes)


def seen(
    *pods: Pod, gone: bool = False, final: bool = False, known: Record | None = None, **fields: Any
) -> ObservedTask:
    task = ObservedTask(mode="pod", mode_line=LINE)
    for each in pods:
        task.set_pod(each.metadata.name, each, 100.0)
        if gone:
            task.set_pod(each.metadata.name, None, 100.0)
    if known is not None:
        task.set_record(known)
    for name, value in ({"is_record_final": final} | fields).items():
        setattr(task, name, value)
    return task


def told(found: Assessment) -> tuple[State, list[str]] | None:
    if found.status is None:
        return None
    lines = found.status.log.system_logs
    assert lines is not UNSET
    assert lines[0] == LINE
    return found.status.state, lines[1:]


RUNS = pod(RUNNING, RUNNING)
IMAGE = "executor 0: image busybox cannot be pulled (ErrImagePull): no such image"
EVICTED: dict[str, Any] = {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}
OVER: dict[str, Any] = {"phase": "Failed"}
GONE = "pod tesk-1 is gone: somebody deleted it, or it was drained or lost with its node"
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
NODE_LOST = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "no node"}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (seen(), None),
        (seen(delay="exceeded quota"), (State.QUEUED, ["waiting: exceeded quota"])),
        (seen(refused="no such account"), (State.SYSTEM_ERROR, ["error: no such account"])),
        (seen(was_made=True, final=True), (State.SYSTEM_ERROR, ["error: its pod was deleted by somebody else"])),
        (seen(pod()), (State.QUEUED, [])),
        (seen(pod(conditions=[NO_ROOM])), (State.QUEUED, ["waiting: 0/1 nodes are available"])),
        (seen(pod(waiting("ContainerCreating"), waiting("ContainerCreating"))), (State.INITIALIZING, [])),
        (
            seen(pod(waiting("ContainerCreating")), event_trouble=Trouble("wait", 'Pulling image "busybox"')),
            (State.INITIALIZING, ['waiting: Pulling image "busybox"']),
        ),
        (
            seen(pod(RUNNING, waiting("ErrImagePull", "no such image"))),
            (State.INITIALIZING, [f"waiting: {IMAGE}"]),
        ),
        (
            seen(pod(RUNNING, waiting("ErrImagePull", "no such image")), known=record(State.RUNNING, 0)),
            (State.RUNNING, [f"waiting: {IMAGE}"]),
        ),
        (seen(RUNS), None),
        (seen(RUNS, known=record(State.RUNNING)), (State.RUNNING, [])),
        (seen(RUNS, known=record(State.RUNNING, waiting="outputs: s3")), (State.RUNNING, ["waiting: outputs: s3"])),
        (seen(RUNS, known=record(State.COMPLETE, 0)), (State.COMPLETE, [])),
        (seen(pod(DONE, DONE, phase="Succeeded"), known=record(State.COMPLETE, 0)), (State.COMPLETE, [])),
        (seen(RUNS, gone=True, known=record(State.COMPLETE, 0)), (State.COMPLETE, [])),
        (seen(pod(DONE, DONE)), None),
        (
            seen(pod(ended(1, message="no module"), RUNNING), final=True),
            (State.SYSTEM_ERROR, ["error: pod tesk-1: runner ended with code 1 (Error): no module"]),
        ),
        (
            seen(pod(ended(137, "OOMKilled"), RUNNING), known=record(State.RUNNING), final=True),
            (State.SYSTEM_ERROR, ["error: pod tesk-1: runner ran out of memory"]),
        ),
        (
            seen(pod(ended(137), ended(137), **EVICTED), known=record(State.RUNNING), final=True),
            (State.SYSTEM_ERROR, ["error: pod tesk-1: evicted: low on disk"]),
        ),
        (seen(pod(RUNNING, RUNNING, deleted=True), known=record(State.RUNNING)), (State.RUNNING, [])),
        (seen(RUNS, gone=True, known=record(State.RUNNING), final=True), (State.SYSTEM_ERROR, [f"error: {GONE}"])),
        (
            seen(pod(RUNNING, RUNNING, deleted=True, conditions=[DISRUPTED]), gone=True, final=True),
            (State.SYSTEM_ERROR, ["error: pod tesk-1: evicted, as when its node is drained: drained"]),
        ),
        (
            seen(pod(RUNNING, RUNNING, deleted=True, conditions=[NODE_LOST]), lost="its node was lost"),
            (State.SYSTEM_ERROR, ["error: its node was lost"]),
        ),
        (seen(pod(attempt=2)), (State.INITIALIZING, [])),
    ],
)  # fmt: skip
def test_the_state_of_a_task_follows_from_its_pod_and_its_record(
    task: ObservedTask, expected: tuple[State, list[str]] | None
) -> None:
    assert told(assess(task, CLUSTER)) == expected


@pytest.mark.parametrize(
    ("task", "reads", "is_silent"),
    [
        (seen(), False, False),
        (seen(pod(waiting("ContainerCreating"), waiting("ContainerCreating"))), False, False),
        (seen(pod(RUNNING, waiting("ContainerCreating"))), False, True),
        (seen(RUNS), False, True),
        (seen(RUNS, known=record(State.RUNNING)), False, True),
        (seen(RUNS, known=record(State.RUNNING), is_told=True), False, False),
        (seen(pod(DONE, DONE)), True, False),
        (seen(pod(ended(1), RUNNING), is_told=True, known=record(State.RUNNING)), True, False),
        (seen(pod(ended(1), RUNNING), final=True), False, False),
        (seen(pod(DONE, DONE), known=record(State.COMPLETE, 0)), False, False),
        (seen(pod(phase="Failed")), True, False),
        (seen(RUNS, gone=True), False, False),
        (seen(RUNS, gone=True, final=True), False, False),
        (seen(was_made=True), False, False),
    ],
)
def test_a_log_is_read_of_a_pod_that_tells_nothing_and_once_more_at_its_end(
    task: ObservedTask, reads: bool, is_silent: bool
) -> None:
    found = assess(task, CLUSTER)
    assert (found.needs_record_read, found.is_silent) == (reads, is_silent)


NO_SECRET = Trouble("start", "FailedMount: no Secret")
STARTLESS = ended(128, "StartError", "exec: no such file")
INTERRUPTED = ended(128, "StartError", "failed to create containerd task: context canceled")


@pytest.mark.parametrize(
    ("task", "at", "words", "is_loss"),
    [
        (seen(RUNS), None, "", False),
        (seen(pod(conditions=[NO_ROOM])), None, "", False),
        (seen(pod(RUNNING, waiting("ErrImagePull", "no such image"))), 160.0, f"{IMAGE} (given up after 60 s", False),
        (seen(pod(RUNNING, waiting("ErrImagePull")), known=record(State.COMPLETE, 0)), None, "", False),
        (seen(pod(RUNNING, waiting("InvalidImageName"))), 100.0, "executor 0: image busybox cannot be pulled", False),
        (
            seen(pod(RUNNING, RUNNING, deleted=True), known=record(State.RUNNING)),
            100.0 + 5 + KILL_S, "pod tesk-1 was deleted by somebody else", True,
        ),
        (seen(pod(ended(143), RUNNING, deleted=True)), None, "", False),
        (
            seen(pod(waiting("ContainerCreating")), event_trouble=NO_SECRET, event_trouble_since=50.0),
            650.0, "FailedMount: no Secret (given up after 600 s, start_timeout_s)", False,
        ),
        (seen(RUNS, event_trouble=NO_SECRET, event_trouble_since=50.0), None, "", False),
        (seen(pod(RUNNING, STARTLESS)), 0.0, "executor 0 (busybox): it cannot be started: exec: no such file", False),
        (seen(pod(RUNNING, INTERRUPTED)), 0.0, "executor 0 (busybox): it cannot be started: failed to create", True),
        (
            seen(pod(RUNNING, ended(3)), known=record(State.RUNNING)),
            100.0 + UNTOLD_S, "executor 0 (busybox): its container ended untold, with code 3", False,
        ),
        (seen(pod(RUNNING, ended(3)), known=record(State.RUNNING, 3)), None, "", False),
    ],
)  # fmt: skip
def test_a_pod_is_given_up_that_will_not_go_on(task: ObservedTask, at: float | None, words: str, is_loss: bool) -> None:
    limit = assess(task, CLUSTER).limit
    assert (limit.at if limit else None) == at
    assert limit is None or (words in limit.reason and limit.is_loss == is_loss)


@pytest.mark.parametrize(
    ("task", "retries", "reason"),
    [
        (seen(RUNS, gone=True, known=record(State.RUNNING), final=True), 0, ""),
        (seen(RUNS, gone=True, known=record(State.RUNNING), final=True), 1, GONE),
        (seen(pod(RUNNING, RUNNING, attempt=2), gone=True, final=True), 1, ""),
        (
            seen(pod(RUNNING, RUNNING, attempt=2), gone=True, final=True),
            2,
            GONE.replace("tesk-1", "tesk-1-2"),
        ),
        (seen(pod(ended(137), ended(137), **EVICTED), final=True), 1, "pod tesk-1: evicted: low on disk"),
        (seen(pod(ended(137), ended(137), **EVICTED)), 1, ""),
        (seen(RUNS, gone=True, known=record(State.COMPLETE, 0)), 1, ""),
        (seen(RUNS, gone=True, refused="its image is not to be had"), 1, ""),
        (seen(was_made=True, final=True), 1, ""),
        (seen(RUNS, lost="its node does not end it"), 1, "its node does not end it"),
    ],
)
def test_a_lost_attempt_is_followed_by_another_as_often_as_retries_says(
    task: ObservedTask, retries: int, reason: str
) -> None:
    found = assess(task, msgspec.structs.replace(CLUSTER, retries=retries))
    assert found.retry == reason
    assert not (reason and found.status)


def test_a_further_attempt_knows_those_before_it_and_nothing_of_their_ends() -> None:
    task = seen(RUNS, known=record(State.RUNNING, 0), is_told=True)
    lost = attempt_log(task, "pod tesk-1: evicted")
    assert lost.system_logs == [LINE, "error: pod tesk-1: evicted; trying again"]
    again = pod(RUNNING, RUNNING, attempt=2)
    task.set_pod(again.metadata.name, again, 200.0)
    assert (task.record, task.is_told, task.attempt) == (None, False, 2)
    task.set_pod("tesk-1", None, 201.0)
    task.set_record(record(State.COMPLETE, 0))
    status = assess(task, CLUSTER).status
    assert status is not None
    assert (status.state, [each.system_logs for each in status.earlier]) == (State.COMPLETE, [["lost"]])


@pytest.mark.parametrize(
    ("states", "codes", "expected"),
    [
        ((DONE, ended(137, "OOMKilled")), (137,), ["executor 0 (busybox): out of memory, limit 64 MiB"]),
        ((DONE, ended(137, "Error")), (137,), []),
        ((RUNNING, RUNNING), (137,), None),
        ((RUNNING, RUNNING, RUNNING), (137, 0), []),
        ((RUNNING, ended(137, "OOMKilled"), RUNNING), (137, 1), ["executor 0 (busybox): out of memory, limit 64 MiB"]),
        ((RUNNING, ended(137, "OOMKilled"), RUNNING), (0, 1), []),
    ],
)
def test_why_an_executor_was_killed_the_kubelet_says(
    states: tuple[dict[str, Any], ...], codes: tuple[int, ...], expected: list[str] | None
) -> None:
    found = told(assess(seen(pod(*states), known=record(State.EXECUTOR_ERROR, *codes)), CLUSTER))
    assert found == (None if expected is None else (State.EXECUTOR_ERROR, expected))
    before = record(State.EXECUTOR_ERROR, 137, lines=("executor 0 (busybox): out of memory",))
    assert told(assess(seen(pod(RUNNING, RUNNING), known=before), CLUSTER)) is not None


def test_of_a_task_whose_pod_is_gone_the_store_knows_what_it_was() -> None:
    first = TaskLog(system_logs=["warning: of the store", LINE, "error: lost; trying again"])
    second = TaskLog(logs=[ExecutorLog(0, AT, AT, "out", "")], system_logs=[LINE, "said"])
    task = ObservedTask(was_made=True, is_record_final=True)
    recall(task, msgspec.json.encode([first, second]))
    status = assess(task, CLUSTER).status
    assert status is not None
    assert [each.system_logs for each in status.earlier] == [[LINE, "error: lost; trying again"]]
    assert status.log.system_logs == [LINE, "said", "error: its pod was deleted by somebody else"]
    assert status.log.logs == second.logs
    assert assess(task, msgspec.structs.replace(CLUSTER, retries=2)).retry
    assert not assess(task, msgspec.structs.replace(CLUSTER, retries=1)).retry


@pytest.mark.parametrize("lines", [[], ["its inputs are fetched"], ["runs with a taskmaster: it has two GPUs"]])
def test_a_task_that_did_not_run_in_one_pod_is_not_recalled(lines: list[str]) -> None:
    task = ObservedTask()
    recall(task, msgspec.json.encode([TaskLog(system_logs=lines)]))
    assert task == ObservedTask()


def test_a_cancelled_task_says_how_it_was_run() -> None:
    task = seen(RUNS, known=record(State.RUNNING, 0))
    assert shown(task, cancelled(task.record)).log.system_logs == [LINE, "canceled by the user"]


def test_a_pod_of_an_earlier_attempt_counts_for_nothing() -> None:
    task = seen(pod(RUNNING, RUNNING, attempt=2), known=record(State.RUNNING))
    late = pod(ended(1), ended(1), phase="Failed")
    task.set_pod(late.metadata.name, late, 200.0)
    assert told(assess(task, CLUSTER)) == (State.RUNNING, [])


def test_an_annotation_that_cannot_be_read_is_a_word_and_no_crash() -> None:
    broken = pod(RUNNING, RUNNING, attempt=2)
    metadata = Metadata("tesk-1-2", labels=broken.metadata.labels, annotations={names.EARLIER: "x"})
    task = seen(msgspec.structs.replace(broken, metadata=metadata))
    assert "pod tesk-1-2" in task.unreadable


@pytest.mark.parametrize(
    ("recorded", "state"),
    [(State.QUEUED, State.INITIALIZING), (State.INITIALIZING, State.INITIALIZING), (State.RUNNING, State.RUNNING)],
)
def test_a_further_attempt_that_waits_says_so_in_the_state_on_record(recorded: State, state: State) -> None:
    """The store takes no state that goes back, and with it nothing of what the report says."""
    task = seen(pod(attempt=2, conditions=[NO_ROOM]))
    found = assess(task, CLUSTER)
    assert found.status is not None
    following = Following(Job("1", Demand(1, 1), Task(executors=[])), state=recorded)
    reported = following.forward(found.status)
    assert (reported.state, reported.log.system_logs) == (state, [LINE, "waiting: 0/1 nodes are available"])
