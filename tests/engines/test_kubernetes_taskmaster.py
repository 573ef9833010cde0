"""A taskmaster's requests, as it makes them, and what they come to when the API or a node does not do as it should."""

import base64
import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from tesk.kubernetes import record as records
from tesk.kubernetes.objects import PodList
from tesk.kubernetes.record import Record
from tesk.kubernetes.task_settings import TaskSettings
from tesk.places.kubernetes.config import load
from tesk.taskmaster import api as client
from tesk.taskmaster import endings
from tesk.taskmaster.api import GAP, Api, ApiError
from tesk.taskmaster.record_writer import RecordWriter, Superseded
from tesk.tes import OutputFileLog, State
from tests.engines import strikes
from tests.engines.places import DISRUPTED, KUBERNETES, KubernetesPlace
from tests.servers.closing import closing
from tests.servers.cluster import BUSYBOX, Object, until

pytestmark = pytest.mark.places(*KUBERNETES)

LINES = 5000


@pytest.fixture
def account(place: KubernetesPlace, tmp_path: Path) -> Path:
    """The folder of a taskmaster's service account, as its pod has it."""
    ca = load(str(place.cluster.kubeconfig), {}).ca
    assert ca
    (tmp_path / "ca.crt").write_bytes(ca)
    (tmp_path / "token").write_text(place.cluster.kubectl("-n", place.namespace, "create", "token", "tesk-taskmaster"))
    return tmp_path


@pytest.fixture
def address(place: KubernetesPlace) -> tuple[str, int]:
    """Host and port of the API server."""
    url = urlsplit(load(str(place.cluster.kubeconfig), {}).server)
    return url.hostname or "", url.port or 443


@pytest.fixture
def api(place: KubernetesPlace, address: tuple[str, int], account: Path) -> Iterator[Api]:
    made = Api(*address, place.namespace, account)
    yield made
    made.close()


def pod(name: str, script: str) -> Object:
    container = {"name": "executor", "image": BUSYBOX, "command": ["sh", "-c", script]}
    metadata = {"name": name, "labels": {"app": name, "tesk/role": "executor"}}
    return {"metadata": metadata, "spec": {"restartPolicy": "Never", "containers": [container]}}


@pytest.fixture
def name(place: KubernetesPlace) -> Iterator[str]:
    """Of an object that a test makes; it is gone afterwards."""
    made = f"tesk-{uuid.uuid4().hex[:8]}"
    yield made
    for kind in ("pod", "job"):
        strikes.delete(place, kind, made)


@pytest.fixture
def talker(place: KubernetesPlace, api: Api, name: str) -> str:
    """A pod that has written 5000 numbered lines."""
    api.create("pods", pod(name, f"i=1; while [ $i -le {LINES} ]; do echo line $i; i=$((i + 1)); done"))
    phase = ("-n", place.namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
    until(lambda: place.cluster.kubectl(*phase) == "Succeeded", what=f"the end of {name}")
    return name


def line(n: int) -> bytes:
    return b"line %d\n" % n


def test_of_a_log_that_is_too_long_the_end_is_read_too(api: Api, talker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.logs(talker, "executor", LINES) == b"".join(map(line, range(1, LINES + 1)))
    monkeypatch.setattr(client, "MOST_LOG_BYTES", 20_000)
    found = (api.logs(talker, "executor", LINES) or b"").splitlines(keepends=True)
    gap = found.index(GAP)
    assert found[:gap] == [line(n) for n in range(1, gap + 1)]
    assert found[gap + 1 :] == [line(n) for n in range(LINES - LINES // 10 + 1, LINES + 1)]


@pytest.mark.places(*DISRUPTED)
@pytest.mark.parametrize("instead", ["REJECT --reject-with tcp-reset", "DROP"], ids=["refuses", "says nothing"])
def test_a_log_is_given_up_while_its_node_is_away_and_had_once_it_is_back(
    instead: str, place: KubernetesPlace, api: Api, talker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LOG_PATIENCE_S", 600.0)
    found: list[bytes | None] = []
    waiting = threading.Thread(target=lambda: found.append(api.logs(talker, "executor", 1)), daemon=True)
    with strikes.without_logs(place.cluster, instead):
        with monkeypatch.context() as changed:
            changed.setattr(client, "LOG_TIMEOUT_S", 1.0)
            changed.setattr(client, "LOG_PATIENCE_S", 0.5)
            assert api.logs(talker, "executor", 1) is None
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
    waiting.join(600)
    assert found == [line(LINES)]


def test_a_log_that_is_no_more_is_empty(api: Api) -> None:
    assert api.logs("nowhere", "executor", 1) == b""


def test_a_watch_goes_on_after_a_list_whose_connection_was_closed(
    place: KubernetesPlace, address: tuple[str, int], account: Path, api: Api, name: str, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "token").write_bytes((account / "token").read_bytes())
    with closing(*address, account / "ca.crt", there) as (port, trusted):
        trusted.rename(there / "ca.crt")
        through = Api("127.0.0.1", port, place.namespace, there)
        before = msgspec.json.decode(through.find("pods", labelSelector=f"app={name}"), type=PodList)
        api.create("pods", pod(name, "true"))
        change = next(through.watch("pods", f"app={name}", before.metadata.resource_version))
    assert json.loads(change)["object"]["metadata"]["name"] == name


def test_a_creation_that_goes_on_failing_is_the_callers_to_tell_of(
    place: KubernetesPlace, api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.1, 0.1))
    away = strikes.webhook_away(place.cluster, place.namespace, "executor")
    with away, pytest.raises(ApiError, match="failed calling webhook") as raised:
        api.create("pods", pod(name, "true"))
    assert (raised.value.code, raised.value.is_passing) == (500, True)


def test_a_creation_that_fails_for_a_moment_is_repeated(
    place: KubernetesPlace, api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TOLD_AFTER", 1000)
    made: list[bytes | None] = []
    creating = threading.Thread(target=lambda: made.append(api.create("pods", pod(name, "true"))), daemon=True)
    with strikes.webhook_away(place.cluster, place.namespace, "executor"):
        creating.start()
        creating.join(1)
        assert creating.is_alive()
    creating.join(600)
    assert made
    assert made[0]


@pytest.fixture
def owner_uid(place: KubernetesPlace, name: str) -> str:
    """The uid of a Job that runs nothing."""
    template = {"spec": pod(name, "true")["spec"]}
    metadata = {"name": name, "namespace": place.namespace}
    spec = {"suspend": True, "template": template}
    place.cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    (owner,) = [each for each in place.cluster.get(place.namespace, "jobs") if each["metadata"]["name"] == name]
    return str(owner["metadata"]["uid"])


@pytest.fixture
def life(place: KubernetesPlace, api: Api, name: str, owner_uid: str) -> Callable[[], RecordWriter]:
    """The record of one task, as a taskmaster of it takes it up."""

    def begin() -> RecordWriter:
        cluster = TaskSettings(namespace=place.namespace, instance="i", image="tesk:1")
        kept = RecordWriter(api, name.removeprefix("tesk-"), cluster, owner_uid)
        kept.recall()
        return kept

    return begin


def recorded(api: Api, name: str) -> Record:
    return records.unpack(endings.recorded(api.get("configmaps", name) or b""))


def test_an_end_whose_record_is_refused_is_kept_without_its_log(
    life: Callable[[], RecordWriter], api: Api, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = life()
    kept.advance_state(State.RUNNING)
    monkeypatch.setattr(records.pack, "__defaults__", (10_000_000,))
    noise = base64.b64encode(random.Random(0).randbytes(1_500_000)).decode()
    kept.record.now.log.outputs = [OutputFileLog(f"s3://b/{noise}", "/out", "1")]
    kept.end(State.SYSTEM_ERROR, "some reason")
    record = recorded(api, name)
    assert (record.state, record.now.log.outputs) == (State.SYSTEM_ERROR, [])
    refused, reason = record.now.log.system_logs or ["", ""]
    assert refused.startswith("warning: the log could not be kept: ConfigMap ")
    assert reason == "error: some reason"


def test_a_life_that_another_has_superseded_gives_way(life: Callable[[], RecordWriter], api: Api, name: str) -> None:
    first, rival = life(), life()
    first.advance_state(State.INITIALIZING)
    rival.note("made a record of its own")
    with pytest.raises(Superseded, match=name):
        rival.advance_state(State.INITIALIZING)
    last = life()
    last.end(State.COMPLETE, "")
    with pytest.raises(Superseded, match=name):
        first.advance_state(State.RUNNING)
    assert recorded(api, name).state is State.COMPLETE


def test_a_record_goes_on_when_others_change_its_labels_or_delete_it(
    place: KubernetesPlace, life: Callable[[], RecordWriter], api: Api, name: str
) -> None:
    kept = life()
    kept.advance_state(State.INITIALIZING)
    api.merge("configmaps", name, {"metadata": {"labels": {"looked-at": "yes"}}})
    kept.advance_state(State.RUNNING)
    assert recorded(api, name).state is State.RUNNING
    strikes.delete(place, "configmap", name)
    until(lambda: api.get("configmaps", name) is None, what="the deletion")
    kept.end(State.COMPLETE, "")
    assert recorded(api, name).state is State.COMPLETE
