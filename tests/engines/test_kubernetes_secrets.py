"""That a secret is found in what tesk could leave on a cluster (tests/known_secrets.py): pods, ConfigMaps, events."""

import base64
import uuid
from typing import Any

import pytest

from tests import known_secrets
from tests.engines.places import BOTH, KUBERNETES, KubernetesPlace, Place
from tests.engines.running import Tesk, running, sh
from tests.servers import cluster as clusters


@pytest.mark.places(*KUBERNETES)
def test_a_secret_is_found_in_what_was_deleted_and_in_what_is_left(place: Place) -> None:
    assert isinstance(place, KubernetesPlace)
    secret = known_secrets.known("a planted secret", f"planted-{uuid.uuid4().hex}")
    encoded = base64.b64encode(b"user:" + secret.encode()).decode()
    leaks = set[str]()
    with clusters.namespace(place.cluster) as name:

        def has(kind: str, what: str, **fields: Any) -> None:
            version = {"kind": kind, "apiVersion": "v1"}
            place.cluster.apply({**version, "metadata": {"name": what, "namespace": name}, **fields})

        program = {"name": "a", "image": clusters.PRODUCT, "command": ["/x"], "env": [{"name": "A", "value": secret}]}
        for when in ("deleted", "left"):
            has("ConfigMap", when, binaryData={"record": base64.b64encode(encoded.encode()).decode()})
            has("Pod", when, spec={"containers": [program]})
        has("Event", "one", involvedObject={"kind": "Pod", "name": "left", "namespace": name}, message=f"a {secret}")
        for kind in ("pods", "configmaps"):
            place.cluster.delete(name, kind, "deleted", gracePeriodSeconds="0")

        def are_found() -> bool:
            leaks.update(known_secrets.take())
            return len(leaks) >= 2

        clusters.until(are_found)
        assert leaks == {f"a planted secret is in {kind}/deleted" for kind in ("pods", "configmaps")}
    leaks.update(known_secrets.take())
    expected = {f"{kind}/{when}" for kind in ("pods", "configmaps") for when in ("deleted", "left")} | {"events/one"}
    assert {leak.rpartition(" ")[2] for leak in leaks} >= expected
    known_secrets.forget(secret)


@pytest.mark.places(*BOTH)
async def test_the_word_of_a_task_is_known_while_it_runs(tesk: Tesk) -> None:
    task_id = await tesk.create(executors=[sh("sleep 1")])
    await tesk.until(task_id, running)
    assert any(task_id in name for name in known_secrets.names())
    await tesk.ended(task_id)
