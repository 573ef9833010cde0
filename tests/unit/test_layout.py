"""Where paths lie: a table of the cases that clients send, and what must hold for any task at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesk.layout import Layout, is_protected, layout, normal
from tesk.tes import parse


def layout_of(**document: Any) -> Layout:
    document.setdefault("executors", [{"image": "busybox", "command": ["true"]}])
    return layout(parse(json.dumps(document).encode())[0])


def file_in(path: str, **more: str) -> dict[str, str]:
    return {"path": path, "content": "x", **more}


def file_out(path: str, **more: str) -> dict[str, str]:
    return {"path": path, "url": "/store/x", **more}


def run(**executor: Any) -> list[dict[str, Any]]:
    return [{"image": "busybox", "command": ["true"], **executor}]


def test_a_task_without_paths_needs_no_scratch_volume() -> None:
    assert layout_of().is_empty


def test_nested_directories_are_mounted_once_at_the_topmost() -> None:
    result = layout_of(inputs=[file_in("/data/in/deep/a")], volumes=["/data/"], outputs=[file_out("/data/out/b")])
    assert result.mounts == ("/data",)
    assert set(result.directories) == {"/data", "/data/out"}


def test_siblings_with_a_common_name_prefix_are_not_nested() -> None:
    assert layout_of(volumes=["/data", "/data2", "/data-x"]).mounts == ("/data", "/data-x", "/data2")


@pytest.mark.parametrize(
    "path", ["/etc/passwd2", "/usr/bin/tool", "/script.sh", "/opt/tool/bin/x", "/root/x", "/home/me/x"]
)
def test_an_input_among_the_images_own_files_is_mounted_alone(path: str) -> None:
    result = layout_of(inputs=[file_in(path)])
    assert (result.mounts, result.files) == ((), (path,))


@pytest.mark.parametrize("path", ["/etc/result", "/result", "/usr/share/x/result", "/opt/out/result"])
def test_an_output_among_the_images_own_files_is_copied_out(path: str) -> None:
    result = layout_of(outputs=[file_out(path)])
    assert (result.mounts, result.files, result.copied_out) == ((), (), (path,))


def test_a_directory_input_over_one_of_the_images_is_merged_into_it() -> None:
    given = {"path": "/usr/local", "url": "/store/x", "type": "DIRECTORY"}
    result = layout_of(inputs=[given])
    assert (result.mounts, result.files, result.copied_in) == ((), (), ("/usr/local",))


def test_a_random_top_level_workdir_that_is_an_output_is_mounted() -> None:
    """cwl-tes: stdout in it makes it a mount, so the whole of it is there without a copy."""
    result = layout_of(
        outputs=[file_out("/JxGRyz", type="DIRECTORY")], executors=run(workdir="/JxGRyz", stdout="/JxGRyz/out")
    )
    assert (result.mounts, result.copied_out) == (("/JxGRyz",), ())


def test_an_output_directory_below_a_mount_is_not_made_beforehand() -> None:
    result = layout_of(inputs=[file_in("/work/.command.sh")], outputs=[file_out("/work/results/")])
    assert result.directories == ("/work",)


@pytest.mark.parametrize(
    ("pattern", "mounts", "copied_out"),
    [
        ("/work/*.bam", ("/work",), ()),
        ("/work/*/x.bam", ("/work",), ()),
        ("/*.txt", (), ("/*.txt",)),
        ("/out*/deep/x", (), ("/out*",)),
    ],
)
def test_wildcards_are_found_from_the_directory_before_them(
    pattern: str, mounts: tuple[str, ...], copied_out: tuple[str, ...]
) -> None:
    prefix = pattern.split("*")[0].rsplit("/", 1)[0] or "/"
    result = layout_of(outputs=[file_out(pattern, path_prefix=prefix)])
    assert (result.mounts, result.copied_out) == (mounts, copied_out)


def test_stdio_files_in_protected_directories_exist_to_be_mounted() -> None:
    result = layout_of(executors=run(stdout="/stdout.txt", stderr="/etc/errors"))
    assert result.files == result.touched == ("/etc/errors", "/stdout.txt")


def test_devices_as_stdio_are_the_containers_own() -> None:
    assert layout_of(executors=run(stdout="/dev/null", stderr="/proc/self/fd/2")).is_empty


def test_tmp_as_workdir_with_a_script_in_it_is_fresh() -> None:
    result = layout_of(inputs=[file_in("/tmp/run_snakemake.sh")], executors=run(workdir="/tmp"))
    assert result.mounts == ("/tmp",)


names = st.sampled_from(["a", "b", "etc", "usr", "bin", "opt", "home", "var", "lib", "tmp", "work", ".x"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(
    st.lists(paths, max_size=4), st.lists(paths, max_size=4), st.lists(paths, max_size=3), st.lists(paths, max_size=2)
)
def test_every_path_reaches_the_container_and_nothing_of_the_image_is_hidden(
    inputs: list[str], outputs: list[str], volumes: list[str], stdio: list[str]
) -> None:
    result = layout_of(
        inputs=[file_in(path) for path in inputs],
        outputs=[file_out(path) for path in outputs],
        volumes=volumes,
        executors=run(**dict(zip(("stdout", "stderr"), stdio, strict=False))),
    )
    for mount in result.mounts:
        assert mount in {normal(volume) for volume in volumes} or not is_protected(mount)
        assert not any(other != mount and mount.startswith(other + "/") for other in result.mounts)
    for path in inputs:
        assert result.covers(path)
    for path in outputs:
        assert result.covers(path) or normal(path) in result.copied_out
    for volume in volumes:
        assert result.covers(volume)
