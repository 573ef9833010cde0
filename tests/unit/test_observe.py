"""What a pod's status means for a task's step, as tables of statuses like those that clusters write."""

import json
from typing import Any

import msgspec
import pytest

from tesk.kubernetes import pod_status
from tesk.kubernetes.objects import Event, Pod, PodSpec

EXITED = {"exitCode": 3, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
ROOT = "container has runAsNonRoot and image will run as root"


def pod(status: dict[str, Any], **metadata: Any) -> Pod:
    document = {"metadata": {"name": "p", **metadata}, "spec": {}, "status": status}
    return msgspec.json.decode(json.dumps(document), type=Pod)


def containers(**states: dict[str, Any]) -> dict[str, Any]:
    return {
        "containerStatuses": [
            {"name": name, "image": f"image-of-{name}", "restartCount": 0, "state": state}
            for name, state in states.items()
        ]
    }


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


@pytest.mark.parametrize(
    ("status", "metadata", "words"),
    [
        ({}, {}, None),
        ({"phase": "Failed"}, {}, None),
        ({}, DELETED, "deleted by somebody else"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, {}, "evicted: disk"),
        (condition("DisruptionTarget", "True", "PreemptionByScheduler", "by x"), DELETED, "higher priority: by x"),
        (condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "asked"), DELETED, "drained: asked"),
        (condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "asked"), {}, None),
        ({**condition("DisruptionTarget", "True", "EvictionByEvictionAPI", ""), "phase": "Succeeded"}, {}, None),
        ({**condition("DisruptionTarget", "True", "DeletionByPodGC", "no node"), "phase": "Failed"}, {}, "no node"),
        (condition("DisruptionTarget", "True", "DeletionByTaintManager", ""), DELETED, "node was lost or tainted"),
        (condition("DisruptionTarget", "True", "NewReason", "x"), DELETED, "NewReason: x"),
        (condition("DisruptionTarget", "False", "x", "x"), {}, None),
        (
            containers(filer={"terminated": {**EXITED, "reason": "ContainerStatusUnknown"}}),
            {},
            "not know how filer",
        ),
        (
            containers(filer={"terminated": {**EXITED, "reason": "ContainerStatusUnknown"}}),
            DELETED,
            "deleted by somebody else",
        ),
    ],
)
def test_loss(status: dict[str, Any], metadata: dict[str, Any], words: str | None) -> None:
    found = pod_status.loss(pod(status, **metadata))
    assert (found is None) == (words is None)
    assert words is None or (found and words in found and "pod p" in found)


def test_a_pod_that_is_gone_was_taken_by_the_disruption_that_was_announced() -> None:
    announced = pod(condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "asked"))
    assert "drained: asked" in (pod_status.loss(announced, is_gone=True) or "")


@pytest.mark.parametrize(
    ("status", "kind", "hopeless"),
    [
        ({}, None, False),
        (containers(executor={"waiting": {"reason": "ContainerCreating"}}), None, False),
        (condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available"), "room", False),
        (containers(executor={"waiting": {"reason": "ErrImagePull", "message": "no such"}}), "image", False),
        (containers(executor={"waiting": {"reason": "InvalidImageName", "message": "bad"}}), "image", True),
        (containers(executor={"waiting": {"reason": "CreateContainerError", "message": "bad"}}), "start", False),
        (containers(executor={"waiting": {"reason": "CreateContainerConfigError", "message": ROOT}}), "start", True),
    ],
)
def test_trouble(status: dict[str, Any], kind: str | None, hopeless: bool) -> None:
    found = pod_status.trouble(pod(status))
    assert (found and found.kind, bool(found and found.hopeless)) == (kind, hopeless)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("0/1 nodes are available: 1 Insufficient memory.", "room"),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "volume"),
        ('0/1 nodes are available: persistentvolumeclaim "tesk-1" is being deleted.', "volume"),
        ("0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.", "volume"),
        ('running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded', "volume"),
        ("0/2 nodes are available: 2 node(s) had volume node affinity conflict.", "volume"),
        ("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had volume node affinity conflict.", "room"),
    ],
)
def test_a_volume_that_cannot_be_had_is_told_from_a_lack_of_room(words: str, kind: str) -> None:
    found = pod_status.trouble(pod(condition("PodScheduled", "False", "Unschedulable", words)))
    assert found
    assert (found.kind, found.words) == (kind, words)


def event(kind: str, reason: str, message: str = "m") -> Event:
    return msgspec.convert({"metadata": {}, "type": kind, "reason": reason, "message": message}, Event)


SCHEDULED, PULLING = event("Normal", "Scheduled"), event("Normal", "Pulling", 'Pulling image "x"')
LATE, MOUNT = event("Warning", "FailedScheduling"), event("Warning", "FailedMount", "no such secret")
ASIDE = "pod p has not been taken up by the scheduler yet"
CONSUMER, NOBODY = event("Normal", "WaitForFirstConsumer"), event("Normal", "ExternalProvisioning", "waits for x")


@pytest.mark.parametrize(
    ("node", "events", "kind", "words"),
    [
        ("n", [], None, ""),
        ("n", [LATE, SCHEDULED], None, ""),
        ("n", [SCHEDULED, PULLING], "wait", 'Pulling image "x"'),
        ("n", [SCHEDULED, PULLING, event("Normal", "Pulled")], None, ""),
        ("n", [SCHEDULED, MOUNT], "start", "FailedMount: no such secret"),
        ("n", [MOUNT, event("Normal", "Pulled")], None, ""),
        ("n", [LATE], None, ""),
        ("", [], "wait", ASIDE),
        ("", [CONSUMER], "wait", ASIDE),
        ("", [CONSUMER, NOBODY], "volume", "its scratch volume: ExternalProvisioning: waits for x"),
        (
            "",
            [NOBODY, event("Normal", "ProvisioningSucceeded")],
            "wait",
            ASIDE,
        ),
    ],
)
def test_what_only_events_tell(node: str, events: list[Event], kind: str | None, words: str) -> None:
    seen = msgspec.structs.replace(pod({}), spec=PodSpec(node))
    found = pod_status.trouble_by_events(seen, events)
    assert (found and found.kind, found.words if found else "") == (kind, words)


def test_the_scheduler_s_words_stand_where_a_claim_has_none() -> None:
    assert pod_status.trouble_by_events(pod(condition("PodScheduled", "False", "Unschedulable", "x")), []) is None


@pytest.mark.parametrize("words", ["not found", "is being deleted"])
def test_what_a_claim_said_before_it_was_deleted_is_over(words: str) -> None:
    said = condition("PodScheduled", "False", "Unschedulable", f'0/1 nodes: persistentvolumeclaim "tesk-x" {words}')
    assert pod_status.trouble_by_events(pod(said), [NOBODY]) is None
    unbound = condition("PodScheduled", "False", "Unschedulable", "pod has unbound immediate PersistentVolumeClaims")
    found = pod_status.trouble_by_events(pod(unbound), [NOBODY])
    assert found is not None
    assert "ExternalProvisioning" in found.words


def test_the_words_of_trouble_name_the_image_and_the_answer() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "registry: no such host"}}
    found = pod_status.trouble(pod(containers(executor=waiting)))
    assert found
    assert found.words == "image image-of-executor cannot be pulled (ErrImagePull): registry: no such host"


def test_an_executors_pod_runs_when_the_executor_does_and_not_its_reporter() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull"}}
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert not pod_status.runs(pod(containers(reporter=running, executor=waiting)))
    assert pod_status.runs(pod(containers(reporter=running, executor=running)))
    assert pod_status.runs(pod(containers(reporter=running, executor={"terminated": EXITED})))
    assert pod_status.runs(pod(containers(filer=running)))
    assert not pod_status.runs(pod({}))


def test_a_pod_is_judged_by_our_containers_and_not_by_those_that_a_webhook_has_added() -> None:
    failing = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    running, done = {"running": {"startedAt": None}}, {"terminated": EXITED | {"exitCode": 0}}
    failed, unknown = {"terminated": EXITED}, {"terminated": EXITED | {"reason": "ContainerStatusUnknown"}}
    before = pod(containers(filer={"waiting": {"reason": "PodInitializing"}}, proxy=failing))
    assert (trouble := pod_status.trouble(before))
    assert "image-of-proxy" in trouble.words
    for status, runs, is_over in (
        (containers(proxy=running), False, False),
        (containers(filer=running, proxy=failing), True, False),
        (containers(proxy=running, filer=done), True, True),
        (containers(filer=failed, proxy=unknown), True, True),
        (containers(reporter=running, executor=done, proxy=running), True, False),
        (containers(reporter=done, executor=failed, proxy=running), True, True),
        (containers(taskmaster=failed, proxy=running), True, False),
        (containers(taskmaster=done, proxy=running), True, True),
    ):
        seen = pod(status)
        assert not pod_status.has_ended(seen)
        found = (pod_status.runs(seen), pod_status.is_over(seen), pod_status.trouble(seen), pod_status.loss(seen))
        assert found == (runs, is_over, None, None), status


def test_a_container_that_has_to_run_first_and_fails_is_named() -> None:
    first = [{"name": "vault-agent-init", "state": {"terminated": EXITED | {"message": "no such role"}}}]
    words = pod_status.failure(pod({"phase": "Failed", "initContainerStatuses": first}))
    assert words == "pod p: vault-agent-init, which has to run first, ended with code 3 (Error): no such role"


def test_starts_and_ends_are_the_containers_own() -> None:
    seen = pod(containers(executor={"terminated": EXITED}, reporter={"running": {"startedAt": None}}))
    end = pod_status.exit_of(seen)
    assert end
    assert (end.exit_code, end.finished_at) == (3, "2026-01-01T00:00:01Z")
    assert pod_status.started(seen, "executor") == "2026-01-01T00:00:00Z"
    assert pod_status.started(seen, "reporter") is None
    assert pod_status.started(seen, "filer") is None
    assert pod_status.never_ran(end) is None


def test_a_program_that_the_runtime_could_not_start_says_why() -> None:
    state = {"terminated": {**EXITED, "reason": "StartError", "message": "exec failed: no such file"}}
    end = pod_status.exit_of(pod(containers(executor=state)))
    assert end
    assert pod_status.never_ran(end) == "exec failed: no such file"


STOPPED = "failed to create containerd task: failed to create shim task: context canceled"
MISSING = "failed to create containerd task: failed to create shim task: OCI runtime create failed: no such file"
BEGUN = "failed to start containerd task: context canceled"


@pytest.mark.parametrize(
    ("executor", "reporter", "words"),
    [
        (STOPPED, None, STOPPED),
        (MISSING, STOPPED, STOPPED),  # it found no shim, which its reporter would have brought
        (MISSING, None, None),
        (BEGUN, None, None),
        (None, STOPPED, None),
    ],
)
def test_a_program_that_was_never_begun_is_told_from_one_that_cannot_be(
    executor: str | None, reporter: str | None, words: str | None
) -> None:
    states: dict[str, Any] = {
        name: {"terminated": {**EXITED, "reason": "StartError", "message": message}} if message else {"running": {}}
        for name, message in (("executor", executor), ("reporter", reporter))
    }
    assert pod_status.never_begun(pod(containers(**states)), "executor") == words


def test_of_two_accounts_of_a_failed_pull_the_clearer_is_kept() -> None:
    failed, back_off, both = (
        "ErrImagePull: no such host",
        "ImagePullBackOff: Back-off",
        "ImagePullBackOff: rpc error: x",
    )
    assert pod_status.clearer(failed, back_off) == failed
    assert pod_status.clearer(failed, both) == failed
    assert pod_status.clearer("", back_off) == back_off
    assert pod_status.clearer(back_off, both) == both
    assert pod_status.clearer(both, failed) == failed


def test_a_back_off_repeats_the_cause_and_not_the_image() -> None:
    message = 'Back-off pulling image "x": ErrImagePull: rpc error: not found'
    found = pod_status.trouble(
        pod(containers(executor={"waiting": {"reason": "ImagePullBackOff", "message": message}}))
    )
    assert found
    assert found.words == "image image-of-executor cannot be pulled (ImagePullBackOff): rpc error: not found"
