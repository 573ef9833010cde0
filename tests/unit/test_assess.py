"""What the server says of a task by all that it sees of it, where the taskmaster's record cannot say it."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from tesk.kubernetes import names
from tesk.kubernetes import record as records
from tesk.kubernetes.objects import ConfigMap, Event, Job, Metadata, Pod, PodSpec
from tesk.kubernetes.record import Attempt, Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.life.status import TaskStatus
from tesk.places.kubernetes import debug
from tesk.places.kubernetes.assess import assess
from tesk.places.kubernetes.observed import Assessment, Limit, ObservedTask, cancelled, running
from tesk.places.kubernetes.waiting_tasks import newest
from tesk.tes import ExecutorLog, State, TaskLog

CLUSTER = TaskSettings(namespace="n", instance="i", image="tesk:1", image_timeout_s=60)
AT = "2026-01-01T00:00:00.000Z"


def job(*conditions: dict[str, str]) -> Job:
    return msgspec.convert({"metadata": {"name": "tesk-1"}, "status": {"conditions": list(conditions)}}, Job)


def taskmaster(**status: Any) -> Pod:
    labels = names.labels("i", "1", names.TASKMASTER)
    return msgspec.convert({"metadata": {"name": "tesk-1-abcde", "labels": labels}, "status": status}, Pod)


def waits(reason: str, message: str = "", **more: Any) -> Pod:
    state = {"waiting": {"reason": reason, "message": message}}
    return taskmaster(containerStatuses=[{"name": "taskmaster", "image": "tesk:1", "state": state, **more}])


def record(state: State, **changes: Any) -> Record:
    attempt = Attempt(TaskLog(logs=[ExecutorLog(0, AT, AT, "first", "")], start_time=AT), started=AT)
    return Record(state, [attempt], **changes)


def seen(*pods: Pod, moment: float = 0.0, **fields: Any) -> ObservedTask:
    task = ObservedTask(**fields)
    for pod in pods:
        task.set_pod(pod.metadata.name, pod, moment)
    return task


def assessed(task: ObservedTask) -> Assessment:
    return assess(task, CLUSTER)


def told(status: TaskStatus | None) -> tuple[State, list[str]]:
    assert status is not None
    return status.state, [] if status.log.system_logs is UNSET else status.log.system_logs


FAILED: dict[str, str] = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too many"}
COMPLETE: dict[str, str] = {"type": "Complete", "status": "True"}
HAS_ENDED = "its taskmaster has ended"
CHANGED = "somebody else changed or deleted it"
CRASHED: dict[str, Any] = {
    "restartCount": 3,
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no module"}},
}
NO_ROOM = taskmaster(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}])


@pytest.mark.parametrize(
    ("task", "state", "lines"),
    [
        (seen(job=job()), State.QUEUED, []),
        (seen(delay="exceeded quota"), State.QUEUED, ["waiting: exceeded quota"]),
        (seen(NO_ROOM, job=job()), State.QUEUED, ["waiting: the taskmaster: 0/1 nodes are available"]),
        (seen(waits("ContainerCreating"), job=job()), State.QUEUED, []),
        (
            seen(waits("ImagePullBackOff", "back-off"), job=job()),
            State.QUEUED,
            ["waiting: the taskmaster: image tesk:1 cannot be pulled (ImagePullBackOff): back-off"],
        ),
        (
            seen(waits("CrashLoopBackOff", **CRASHED), job=job()),
            State.QUEUED,
            ["waiting: the taskmaster is started again (it ended with code 1, Error: no module)"],
        ),
        (
            seen(waits("CrashLoopBackOff", **CRASHED), job=job(FAILED), is_record_final=True),
            State.SYSTEM_ERROR,
            ["error: its taskmaster failed: too many (it ended with code 1, Error: no module)"],
        ),
        (seen(job=job(), refused="no"), State.SYSTEM_ERROR, ["error: no"]),
        (seen(was_made=True), State.SYSTEM_ERROR, ["error: its Job was deleted by somebody else"]),
        (seen(job=job(), record=record(State.RUNNING)), State.RUNNING, []),
        (seen(NO_ROOM, job=job(), record=record(State.RUNNING)), State.RUNNING,
         ["waiting: the taskmaster: 0/1 nodes are available"]),
        (seen(was_made=True, record=record(State.RUNNING)), State.SYSTEM_ERROR,
         ["error: its Job was deleted by somebody else"]),
        (seen(was_made=True, record=record(State.COMPLETE)), State.COMPLETE, []),
        (seen(job=job(FAILED), record=record(State.EXECUTOR_ERROR)), State.EXECUTOR_ERROR, []),
        (seen(job=job(COMPLETE), record=record(State.RUNNING), has_configmap=True), State.RUNNING, []),
        (seen(job=job(COMPLETE), record=record(State.RUNNING), has_configmap=True, is_record_final=True),
         State.SYSTEM_ERROR, [f"error: {HAS_ENDED}, and the ConfigMap with its record says RUNNING: {CHANGED}"]),
        (seen(job=job(COMPLETE), record=record(State.RUNNING), is_record_final=True), State.SYSTEM_ERROR,
         [f"error: {HAS_ENDED}, and the ConfigMap with its record is gone: {CHANGED}"]),
        (seen(job=job(COMPLETE), is_record_final=True), State.SYSTEM_ERROR,
         [f"error: {HAS_ENDED}, and the ConfigMap with its record is gone: {CHANGED}"]),
        (seen(job=job(COMPLETE), has_configmap=True, unreadable="too large", is_record_final=True), State.SYSTEM_ERROR,
         [f"error: {HAS_ENDED}, and its record cannot be read: too large"]),
        (seen(job=job(COMPLETE), record=record(State.COMPLETE), is_record_final=True), State.COMPLETE, []),
    ],
)  # fmt: skip
def test_where_a_task_stands(task: ObservedTask, state: State, lines: list[str]) -> None:
    assert told(assessed(task).status) == (state, lines)


@pytest.mark.parametrize(
    "task",
    [
        seen(),
        seen(NO_ROOM, job=job(), record=record(State.RUNNING)),
        seen(waits("ErrImagePull", "not found"), job=job()),
        seen(job=job(COMPLETE), record=record(State.COMPLETE), has_configmap=True),
    ],
)
def test_a_dumped_task_is_assessed_again_as_it_was(task: ObservedTask) -> None:
    dumped = json.loads(json.dumps(debug.dump(task, CLUSTER)))
    assert debug.replay(dumped) == assessed(task)
    assert msgspec.convert(dumped["assessment"], Assessment) == assessed(task)


def configmap(found: Record) -> ConfigMap:
    return ConfigMap(Metadata("tesk-1"), {names.RECORD_KEY: records.pack(found)})


def test_what_a_record_has_said_stays_known() -> None:
    task = seen()
    task.set_configmap(configmap(record(State.RUNNING)))
    task.set_configmap(None)
    assert (task.record, task.has_configmap) == (record(State.RUNNING), False)


def test_an_end_stays_the_end_whatever_an_older_record_says() -> None:
    task = seen()
    task.set_configmap(configmap(record(State.COMPLETE)))
    task.set_configmap(configmap(record(State.RUNNING)))
    assert task.record == record(State.COMPLETE)


def test_a_record_that_cannot_be_read_changes_nothing_but_says_so() -> None:
    task = seen(record=record(State.RUNNING))
    task.set_configmap(ConfigMap(Metadata("tesk-1"), {names.RECORD_KEY: b"nonsense"}))
    assert task.unreadable.startswith("ConfigMap tesk-1: ")
    task.set_configmap(configmap(record(State.INITIALIZING)))
    assert (task.unreadable, task.record) == ("", record(State.INITIALIZING))


def test_nothing_is_said_while_nothing_is_known() -> None:
    assert assessed(ObservedTask()).status is None


def test_an_error_of_the_cluster_keeps_what_had_run() -> None:
    status = assessed(seen(was_made=True, record=record(State.RUNNING))).status
    assert status is not None
    assert [entry.stdout for entry in status.log.logs] == ["first"]
    assert status.log.end_time is not UNSET


PULL_FAILS = (
    "the taskmaster: image tesk:1 cannot be pulled (ErrImagePull): rpc error: not found "
    "(given up after 60 s, image_timeout_s)"
)


def test_a_pull_that_fails_is_given_up_in_time_and_says_why() -> None:
    task = seen(waits("ErrImagePull", "rpc error: not found"), job=job(), moment=100)
    assert assessed(task).limit == Limit(160, PULL_FAILS)
    task.set_pod("tesk-1-abcde", waits("ImagePullBackOff", "back-off"), 130)
    assert assessed(task).limit == Limit(160, PULL_FAILS)
    task.set_pod("tesk-1-abcde", taskmaster(phase="Running"), 161)
    assert assessed(task).limit is None


@pytest.mark.parametrize(
    ("task", "at"),
    [
        (seen(waits("InvalidImageName"), job=job(), moment=7), 7),
        (seen(waits("InvalidImageName"), job=job(), moment=7, refused="no"), None),
        (seen(waits("InvalidImageName"), job=job(), moment=7, record=record(State.COMPLETE)), None),
        (seen(waits("InvalidImageName"), moment=7), None),
        (seen(NO_ROOM, job=job()), None),
    ],
)
def test_a_hopeless_start_is_given_up_at_once_and_no_room_by_default_never(
    task: ObservedTask, at: float | None
) -> None:
    limit = assessed(task).limit
    assert (None if limit is None else limit.at) == at


def test_the_newest_warning_counts() -> None:
    events = [
        msgspec.convert({"metadata": {}, "message": "old", "lastTimestamp": "2026-01-01T00:00:00Z"}, Event),
        msgspec.convert({"metadata": {}, "message": "new", "eventTime": "2026-01-01T00:00:09.5Z"}, Event),
    ]
    found = newest(events)
    assert found is not None
    assert found.message == "new"
    assert newest([]) is None


def executor(node: str = "") -> Pod:
    labels = names.labels("i", "1", names.EXECUTOR_ROLE)
    return msgspec.convert(
        {"metadata": {"name": "tesk-1-executor-0", "labels": labels}, "spec": {"nodeName": node}}, Pod
    )


QUOTA = 'pods "tesk-1-executor-1" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2'
PULL = "busybox: ErrImagePull"
PLACED = msgspec.structs.replace(taskmaster(), spec=PodSpec("node-1"))


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (seen(), False),
        (seen(PLACED), False),
        (seen(taskmaster(), executor("node-1")), False),
        (seen(PLACED, executor()), False),
        (seen(PLACED, executor("node-1")), True),
        (seen(PLACED, executor("node-1"), record=record(State.RUNNING, waiting=QUOTA)), False),
        (seen(PLACED, executor("node-1"), record=record(State.RUNNING, waiting=PULL)), True),
    ],
)
def test_a_task_has_room_once_all_its_pods_have_nodes_and_one_of_them_works(task: ObservedTask, answer: bool) -> None:
    assert assessed(task).has_room is answer


@pytest.mark.parametrize(
    ("pods", "recorded", "state"),
    [
        ((PLACED, executor()), State.QUEUED, State.QUEUED),
        ((PLACED,), State.QUEUED, State.QUEUED),
        ((PLACED, executor("node-1")), State.QUEUED, State.INITIALIZING),
        ((PLACED, executor("node-1")), State.RUNNING, State.RUNNING),
        ((PLACED, executor("node-1")), State.COMPLETE, State.COMPLETE),
    ],
)
def test_a_task_whose_pod_has_a_node_is_being_initialised(pods: tuple[Pod, ...], recorded: State, state: State) -> None:
    assert told(assessed(seen(*pods, job=job(), record=record(recorded))).status)[0] is state


@pytest.mark.parametrize(
    ("pods", "recorded", "runs", "has_run"),
    [
        ((), None, False, False),
        ((PLACED,), None, False, False),
        ((taskmaster(containerStatuses=[{"name": "taskmaster", "state": {"running": {}}}]),), None, True, False),
        ((PLACED, executor("node-1")), State.QUEUED, True, False),
        ((), State.COMPLETE, True, True),
    ],
)
def test_a_task_has_begun_once_a_pod_beside_its_taskmaster_runs(
    pods: tuple[Pod, ...], recorded: State | None, runs: bool, has_run: bool
) -> None:
    found = assessed(seen(*pods, record=None if recorded is None else record(recorded)))
    assert (found.leading_node is not None, found.has_begun) == (runs, has_run)


RUNS = taskmaster(containerStatuses=[{"name": "taskmaster", "state": {"running": {}}}])


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (seen(), False),
        (seen(job=job()), True),
        (seen(RUNS, job=job()), True),
        (seen(RUNS, job=job(), record=record(State.RUNNING)), False),
        (seen(job=job(), record=record(State.RUNNING)), True),
        (seen(NO_ROOM, job=job(), record=record(State.RUNNING)), True),
        (seen(waits("InvalidImageName"), job=job(), record=record(State.RUNNING)), True),
        (seen(job=job(), record=record(State.COMPLETE)), False),
        (seen(record=record(State.RUNNING)), False),
    ],
)
def test_a_task_lacks_a_taskmaster_until_one_has_told_something_and_when_that_is_lost(
    task: ObservedTask, answer: bool
) -> None:
    assert assessed(task).waits_for_pod is answer


def test_where_no_taskmaster_is_at_work_the_task_waits_for_that_whatever_the_last_one_waited_for() -> None:
    before = record(State.RUNNING, waiting="outputs: a quota")
    assert told(assessed(seen(RUNS, job=job(), record=before, delay="x")).status)[1] == ["waiting: outputs: a quota"]
    assert told(assessed(seen(NO_ROOM, job=job(), record=before)).status)[1] == [
        "waiting: the taskmaster: 0/1 nodes are available"
    ]
    lost = seen(taskmaster(), job=job(), record=record(State.RUNNING), delay="FailedMount: no secret")
    assert told(assessed(lost).status)[1] == ["waiting: FailedMount: no secret"]


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (seen(job=job(), record=record(State.RUNNING)), False),
        (seen(job=job(COMPLETE)), True),
        (seen(job=job(FAILED), record=record(State.RUNNING)), True),
        (seen(job=job(COMPLETE | {"status": "False"})), False),
        (seen(job=job(COMPLETE), record=record(State.COMPLETE)), False),
        (seen(job=job(COMPLETE), is_record_final=True), False),
        (seen(job=job(FAILED), refused="no"), False),
    ],
)
def test_a_record_is_read_again_when_its_job_is_over_and_it_does_not_say_how(task: ObservedTask, answer: bool) -> None:
    assert assessed(task).needs_record_read is answer


def test_a_cancelled_task_shows_what_its_executor_had_written() -> None:
    status = cancelled(record(State.RUNNING, waiting="x"), ("so far", "err"))
    first, second = status.log.logs
    assert (first.exit_code, second.exit_code, second.stdout, second.stderr) == (0, 143, "so far", "err")
    assert second.end_time is not UNSET
    assert told(status) == (State.CANCELED, ["canceled by the user"])


def test_a_task_cancelled_before_it_began_says_so() -> None:
    assert told(cancelled(None)) == (State.CANCELED, ["canceled by the user before it started"])


def test_a_task_cancelled_after_its_end_keeps_its_log_and_says_what_its_state_comes_from() -> None:
    ended = record(State.COMPLETE)
    status, log = cancelled(ended), running(ended, ("", "")).log
    assert msgspec.structs.replace(status.log, system_logs=log.system_logs) == log
    assert told(status) == (State.CANCELED, ["canceled by the user"])


def test_a_running_executor_has_no_exit_code_yet() -> None:
    entry = running(record(State.RUNNING), ("so far", "")).log.logs[1]
    assert (entry.exit_code, entry.end_time, entry.stdout) == (-1, UNSET, "so far")
