"""Tasks in a namespace that enforces the Pod Security Standard "restricted": as elsewhere, but for what needs root."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from tesk.settings import Settings
from tests.engines.places import RESTRICTED, Place
from tests.engines.running import Document, Tesk, content, sh, started
from tests.engines.test_client_tasks import test_cromwell, test_nextflow  # noqa: F401
from tests.engines.test_executors import (  # noqa: F401
    test_a_working_directory_is_made_and_can_be_written,
    test_arguments_arrive_verbatim,
    test_files_beside_the_images_own_do_not_hide_them,
    test_inputs_are_private_copies_that_any_user_can_change,
    test_limits_hold_and_running_out_of_memory_is_named,
    test_outputs_arrive_whatever_their_modes_and_owners,
    test_streams_go_to_files_and_to_the_log_apart,
)
from tests.engines.test_kubernetes_pods import logs_of
from tests.engines.test_lifecycle import (  # noqa: F401
    test_cancelling_a_running_program_lets_it_end_in_its_own_way,
    test_cancelling_while_inputs_are_fetched,
    test_outputs_are_pushed_after_a_failed_executor_whose_error_stays,
)
from tests.engines.test_volumes import reads_and_does_not_write
from tests.servers.containers import NUMERIC_IMAGE

pytestmark = pytest.mark.places(*RESTRICTED)
IN_BOTH_MODES = pytest.mark.parametrize("settings", [{}, {"mode": "pod"}], indirect=True)


@pytest.fixture
def unset(settings: Settings) -> Settings:
    """User ids are left to the images, or to a platform that assigns them as OpenShift does."""
    return msgspec.structs.replace(settings, run_as_user=-1, own_user=-1)


def said(task: Document) -> str:
    return "\n".join(task["logs"][0]["system_logs"])


@IN_BOTH_MODES
async def test_executors_run_as_the_user_that_is_set(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("id -u"), sh("id -u; grep NoNewPrivs /proc/self/status")])
    assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["1000\n", "1000\nNoNewPrivs:\t1\n"]


@IN_BOTH_MODES
async def test_user_ids_may_be_left_to_the_image_or_the_platform(unset: Settings, place: Place, shared: Path) -> None:
    is_pod = unset.mode == "pod"
    workdir = "/mnt/v" if is_pod else "/made"
    first = "id -u; umask 077; cat /mnt/in/a > /mnt/out/a; echo > /mnt/v/x"
    async with started(unset) as tesk:
        task = await tesk.run(
            executors=[
                {"image": NUMERIC_IMAGE, "command": ["sh", "-c", first]},
                {"image": NUMERIC_IMAGE, "command": ["sh", "-c", "rm /mnt/v/x; pwd"], "workdir": workdir},
            ],
            inputs=[content("/mnt/in/a", "hello\n")], outputs=[{"path": "/mnt/out/a", "url": f"{shared}/a"}],
            volumes=["/mnt/v"],
        )  # fmt: skip
        assert task["state"] == "COMPLETE", said(task)
        assert [log["stdout"] for log in task["logs"][0]["logs"]] == ["1234\n", f"{workdir}\n"]
        assert ("runs as one pod" in str(await logs_of(tesk, task["id"]))) == is_pod
        assert (shared / "a").read_text() == "hello\n"
        assert await place.leftovers(unset) == []


@IN_BOTH_MODES
async def test_what_the_namespace_or_the_node_refuses_ends_at_once_and_names_the_setting(
    unset: Settings, place: Place
) -> None:
    async def run(settings: Settings, words: str, setting: str) -> None:
        async with started(settings) as tesk:
            task = await tesk.run(executors=[sh("true")])
            assert task["state"] == "SYSTEM_ERROR"
            assert words in said(task)
            assert setting in said(task)
            assert task["logs"][0]["logs"] == []
            assert await place.leftovers(settings) == []

    (Path(unset.data) / "other").mkdir()
    baseline = msgspec.structs.replace(
        unset, pod_security="baseline", data=f"{unset.data}/other", instance=f"{unset.instance}-other"
    )
    await asyncio.gather(
        run(baseline, 'violates PodSecurity "restricted', "pod_security = restricted"),
        run(unset, "runAsNonRoot and image will run as root", "run_as_user"),
    )


@IN_BOTH_MODES
async def test_executors_read_reference_data(settings: Settings, place: Place, tmp_path: Path) -> None:
    await reads_and_does_not_write(settings, place, tmp_path)
