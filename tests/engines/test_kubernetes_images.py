"""Images that cannot be pulled, or only slowly, at any executor's position."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.alone import lines, waits_for
from tests.engines.places import KUBERNETES
from tests.engines.running import Tesk, content, sh
from tests.servers.cluster import Cluster
from tests.servers.process import refusing
from tests.servers.registry import holding_registry, registry

pytestmark = pytest.mark.places(*KUBERNETES)

SLOW_S = 8.0


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The full name of an image in a registry that the node may pull from."""
    with registry(tmp_path_factory.mktemp("images") / "root", "some/tool", cluster.host) as name:
        cluster.trust(name.partition("/")[0])
        yield name


@pytest.fixture
def nobody(cluster: Cluster) -> Iterator[str]:
    """Where nobody listens, as the node sees it."""
    with refusing(cluster.host) as port:
        yield f"{cluster.host}:{port}"


async def test_an_image_that_cannot_be_pulled_ends_the_task_in_time_and_says_why(
    tesk: Tesk, cluster: Cluster, image: str, nobody: str
) -> None:
    host = image.partition("/")[0]
    faults = {
        f"{host}/some/tool:2": f"{host}/some/tool:2: not found",
        f"{host}/no/such:1": f"{host}/no/such:1: not found",
        f"{host}/private/tool:1": "403 Forbidden",
        f"{nobody}/some/tool:1": "connection refused",
    }

    async def fails(name: str, words: str, before: int) -> None:
        executors = [sh("echo ran")] * before + [{"image": name, "command": ["true"]}, sh("echo never")]
        task = await tesk.run(executors=executors)
        assert task["state"] == "SYSTEM_ERROR"
        assert f"error: executor {before}: image {name} cannot be pulled" in lines(task)
        assert words in lines(task)
        assert "given up after 4 s, image_timeout_s" in lines(task)
        assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["ran\n"] * before

    async def fails_before_its_inputs(name: str, words: str) -> None:
        """Where they lie depends on what the image has."""
        task = await tesk.run(executors=[{"image": name, "command": ["true"]}], inputs=[content("/app/in")])
        assert task["state"] == "SYSTEM_ERROR"
        assert f"error: inputs: image {name} cannot be pulled" in lines(task)
        assert words in lines(task)

    cases = [(name, words, before) for before in (0, 1) for name, words in faults.items()]
    await asyncio.gather(*(fails(*case) for case in cases), fails_before_its_inputs(*next(iter(faults.items()))))


async def test_a_pull_that_takes_longer_than_it_may_fail_is_waited_for_and_shown(
    tesk: Tesk, cluster: Cluster, tmp_path: Path
) -> None:
    assert tesk.settings.image_timeout_s < SLOW_S
    with holding_registry(tmp_path / "root", "large/tool", cluster.host) as (name, let_go):
        cluster.trust(name.partition("/")[0])
        task_id = await tesk.create(executors=[{"image": name, "command": ["cat", "/etc/image-file"]}])
        shown = await waits_for(tesk, task_id, f'executor 0: Pulling image "{name}"')
        assert shown["state"] == "INITIALIZING"
        await asyncio.sleep(SLOW_S)
        let_go()
        task = await tesk.ended(task_id)
    assert task["state"] == "COMPLETE"
    assert not lines(task)
    cluster.on_node("ctr", "images", "remove", name)


@pytest.mark.parametrize(
    "settings", [{"image": "localhost/no-such-tesk:1", "image_pull_policy": "Never"}], indirect=True
)
async def test_an_absent_image_of_ours_is_named_too(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("echo never")])
    assert task["state"] == "SYSTEM_ERROR"
    assert "the taskmaster: image localhost/no-such-tesk:1 cannot be pulled (ErrImageNeverPull)" in lines(task)
