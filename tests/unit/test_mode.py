"""Which tasks run in one pod."""

from typing import Any

import pytest

from tesk.kubernetes.task_settings import TaskSettings
from tesk.places.kubernetes.mode import choose
from tesk.tes import Executor, Input, Output, Resources, Task

RAN = [Executor("image", ["program"])]
TWO = RAN * 2
GPU = Resources(backend_parameters={"gpu": "1"})
ACCOUNT = Resources(backend_parameters={"service_account": "lab"})
ENTRYPOINT = Resources(backend_parameters={"entrypoint": "image"})
ALLOWED = ("gpu", "service_account")


@pytest.mark.parametrize(
    ("fields", "settings", "reason"),
    [
        ({}, {}, ""),
        ({"inputs": [Input(path="/mnt/in/a", content="x")]}, {}, ""),
        ({"inputs": [Input(path="/data/in/a", content="x")]}, {}, "whether an image has something in /data/in"),
        ({"executors": TWO}, {}, ""),
        ({"executors": TWO, "resources": GPU}, {}, "each of its executors has GPUs"),
        ({"resources": GPU}, {}, ""),
        ({"resources": ACCOUNT}, {}, "its executors have a service account of their own"),
        ({}, {"executor_service_account": "lab"}, "its executors have a service account of their own"),
        ({"volumes": ["/mnt/v"], "resources": Resources(disk_gb=101)}, {}, "its disk_gb is above pod_disk_gb, 100"),
        ({"volumes": ["/mnt/v"], "resources": Resources(disk_gb=101)}, {"storage_class": "fast"}, ""),
        ({"resources": Resources(disk_gb=101)}, {}, ""),
    ],
)
def test_auto_is_one_pod_unless_something_speaks_against_it(
    fields: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    of = {"namespace": "n", "instance": "i", "image": "tesk:1", "allowed_backend_parameters": ALLOWED} | settings
    task = Task(**{"executors": RAN} | fields)
    mode, line = choose(task, TaskSettings(**of, mode="auto"))
    expected = ("taskmaster", f"runs with a taskmaster: {reason}") if reason else ("pod", "runs as one pod")
    assert (mode, line[: len(expected[1])]) == expected
    assert choose(task, TaskSettings(**of, mode="pod")) == ("pod", "runs as one pod")
    assert choose(task, TaskSettings(**of)) == ("taskmaster", "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"inputs": [Input(path="/etc/a", content="x")]}, "/etc/a lies where images have files, or may have"),
        ({"executors": [Executor("image", ["program"], stdout="/data/o")]}, "/data/o lies where images have files"),
        ({"executors": [Executor("image", ["program"], stdout="/tmp/o/o")]}, ""),
        ({"outputs": [Output(path="/etc/a", url="file:///a")]}, ""),
        ({"resources": ENTRYPOINT}, "the images' own programs begin before the executors"),
        ({"executors": RAN * 20}, ""),
        ({"executors": RAN * 21}, "it has more than 20 executors"),
    ],
)
def test_what_one_pod_cannot_do_has_a_taskmaster_in_mode_pod_too(fields: dict[str, Any], reason: str) -> None:
    task = Task(**{"executors": RAN} | fields)
    mode, line = choose(task, TaskSettings(namespace="n", instance="i", image="tesk:1", mode="pod"))
    assert (mode, reason in line) == ("taskmaster" if reason else "pod", True)


@pytest.mark.parametrize("settings", [{"run_as_user": 1000}, {"pod_security": "restricted"}])
def test_users_who_cannot_make_directories_have_a_taskmaster_whose_volume_does(settings: dict[str, Any]) -> None:
    chosen = TaskSettings(namespace="n", instance="i", image="tesk:1", mode="pod", **settings)
    outputs = [Output(path="/out/a", url="file:///a")], [Output(path="/tmp/out/a", url="file:///a")]
    found = [choose(Task(executors=RAN, outputs=each), chosen)[0] for each in outputs]
    assert found == ["taskmaster", "pod"]
