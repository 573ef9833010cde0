"""Backend parameters, and what the local engine makes of them."""

from pathlib import Path
from typing import Any

import pytest

from tesk import parameters
from tesk.layout import Layout
from tesk.places.base import PlaceError
from tesk.places.local import manifest
from tesk.settings import Settings
from tesk.tes import Executor, Resources


def body(given: dict[str, str], **resources: Any) -> dict[str, Any]:
    return manifest.container(
        Executor("image", ["program", "word"]), Layout(), Resources(**resources), last=True, labels={}, shim=Path("/s"),
        control=Path("/c"), scratch=Path("/x"), settings=Settings(), cores=2, given=given, devices=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64m", 64 * 1024**2), ("1.5G", 3 * 512 * 1024**2), ("2gb", 2 * 1024**3), ("1KiB", 1024)],
)
def test_sizes_are_dockers(text: str, size: int) -> None:
    pattern, _ = parameters.MEANT["shm_size"]
    assert pattern.fullmatch(text)
    assert parameters.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.0g", "-1", "1x", "m", "1 g", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    pattern, _ = parameters.MEANT["shm_size"]
    assert not pattern.fullmatch(text)


def test_shared_memory_is_the_tasks_memory_or_what_it_asks_for() -> None:
    assert "ShmSize" not in body({})["HostConfig"]
    assert body({}, ram_gb=1)["HostConfig"]["ShmSize"] == 1024**3
    assert body({"shm_size": "2g"}, ram_gb=1)["HostConfig"]["ShmSize"] == 2 * 1024**3


def test_the_shim_is_the_entry_point_or_comes_after_the_images() -> None:
    plain, behind = body({}), body({"entrypoint": "image"})
    assert "Entrypoint" not in behind
    assert behind["Cmd"] == plain["Entrypoint"] + plain["Cmd"]
    assert plain["Cmd"] == ["program", "word"]


@pytest.mark.parametrize(
    ("kind", "engine", "version", "found"),
    [
        ("nvidia.com/gpu", "Docker", "20.10", {"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}),
        ("amd.com/gpu", "Docker", "28.2.0", {"Driver": "cdi", "DeviceIDs": ["amd.com/gpu=0", "amd.com/gpu=1"]}),
        ("lab.org/gpu", "Podman", "5.4.0-rc1", {"Driver": "cdi", "DeviceIDs": ["lab.org/gpu=0", "lab.org/gpu=1"]}),
        ("lab.org/gpu", "Podman", "10.0.1", {"Driver": "cdi", "DeviceIDs": ["lab.org/gpu=0", "lab.org/gpu=1"]}),
    ],
)  # fmt: skip
def test_gpus_are_asked_for_as_each_engine_has_them(kind: str, engine: str, version: str, found: Any) -> None:
    assert manifest.device_requests(2, kind, engine, version) == [found]


@pytest.mark.parametrize("version", ["4.3.1", "5.3.2"])
def test_a_podman_that_would_say_nothing_and_give_no_gpu_is_refused(version: str) -> None:
    with pytest.raises(PlaceError, match=f"Podman {version} gives no devices"):
        manifest.device_requests(1, "nvidia.com/gpu", "Podman", version)
