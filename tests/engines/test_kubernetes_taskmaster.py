"""A taskmaster's requests, as it makes them, and what they come to when the API does not do as it should."""

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from tesk.engines.kubernetes.config import load
from tesk.engines.kubernetes.objects import PodList
from tesk.taskmaster import api as client
from tesk.taskmaster.api import Api, ApiError
from tests.engines import strikes
from tests.engines.places import KUBERNETES, KubernetesPlace
from tests.servers.closing import closing
from tests.servers.cluster import BUSYBOX, Object

pytestmark = pytest.mark.parametrize("place", KUBERNETES, indirect=True, scope="session")


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
    strikes.delete(place, "pod", made)


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
    monkeypatch.setattr(client, "PAUSES_S", (0.1,))
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
    creating.join(30)
    assert made
    assert made[0]
