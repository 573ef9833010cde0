"""Backend parameters that every engine has: the image's entry point, the size of shared memory, GPUs."""

from typing import Any

import pytest

from tests.engines.alone import lines
from tests.engines.places import LOCAL
from tests.engines.running import Document, Tesk, sh
from tests.servers.containers import ENTRY_IMAGE


def entry(script: str, **more: Any) -> Document:
    """An executor of an image whose entry point sets a variable and runs its arguments; `latest`, of no registry."""
    return sh(script, **more) | {"image": ENTRY_IMAGE}


async def test_an_image_s_entry_point_runs_in_front_of_the_command_where_a_task_wants_it(tesk: Tesk) -> None:
    shown = 'echo "$ENTRY $$ $1"; grep -o "/dev/shm.*size=[0-9]*k" /proc/mounts | grep -o "size.*"'
    wanted = {"ram_gb": 0.125, "backend_parameters": {"EntryPoint": "image", "shm_size": "40m"}}
    executors = [
        entry(shown),
        entry("exit 3", env={"STAY": "1"}, ignore_error=True),
        entry("echo never", env={"FAIL": "1"}, ignore_error=True),
        entry("echo last; exit 4"),
    ]
    task = await tesk.run(executors=executors, resources=wanted)
    assert task["state"] == "EXECUTOR_ERROR", task["logs"]
    first, *others = task["logs"][0]["logs"]
    assert first["stdout"].startswith("ran ")
    assert first["stdout"].endswith("size=40960k\n")
    assert [each["exit_code"] for each in others] == [3, 5, 4]
    assert [(each["stdout"], each["stderr"].rstrip()) for each in others] == [
        ("", ""),
        ("", "no licence"),
        ("last\n", ""),
    ]
    task = await tesk.run(executors=[entry(shown)], resources={"ram_gb": 0.125})
    (only,) = task["logs"][0]["logs"]
    assert "ran" not in only["stdout"]
    assert only["stdout"].endswith("size=131072k\n"), "shared memory is what the task may have"


@pytest.mark.places(*LOCAL)
@pytest.mark.parametrize("settings", [{"allowed_backend_parameters": ("gpu", "executor_timeout_s")}], indirect=True)
async def test_an_engine_without_gpus_says_so(tesk: Tesk) -> None:
    task = await tesk.run(executors=[sh("echo never")], resources={"backend_parameters": {"gpu": "2"}})
    assert task["state"] == "SYSTEM_ERROR"
    assert "gpu: Podman 4" in lines(task) or "this machine has no such GPUs" in lines(task), lines(task)
    limit = {"backend_parameters": {"Executor_Timeout_S": "0.5"}}
    task = await tesk.run(executors=[sh("sleep 600")], resources=limit)
    assert "ended after its time limit of 0.5 s" in lines(task)
