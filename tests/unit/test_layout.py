"""Where paths lie: a table of the cases that clients send, and what must hold for any task at all."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tesk.kubernetes.pod_layout import pod_layout
from tesk.layout import (
    COPIES,
    MANY,
    Found,
    Layout,
    Trees,
    doubtful,
    is_protected,
    layout,
    occupied,
    read_answer,
    to_look_at,
)
from tesk.tes import Task, normal, parse


def task_of(**document: Any) -> Task:
    document.setdefault("executors", [{"image": "busybox", "command": ["true"]}])
    return parse(json.dumps(document).encode())[0]


def layout_of(occupied: dict[str, bool] | None = None, *alone: str, **document: Any) -> Layout:
    return layout(task_of(**document), Found(occupied or {}, [*alone]))


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


def test_in_one_pod_a_directory_that_an_image_may_have_is_never_mounted() -> None:
    """Its containers are made before anything can look into the images."""
    task = task_of(inputs=[file_in("/data/a"), file_in("/mnt/b/c")], outputs=[file_out("/work/x")], volumes=["/vol"])
    assert layout(task).mounts == ("/data", "/mnt/b", "/vol", "/work")
    result = pod_layout(task)
    assert (result.mounts, result.copied_in, result.copied_out) == (("/mnt/b", "/vol"), ("/data/a",), ("/work/x",))


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
        ("/work/**.bam", ("/work",), ()),
        ("/*/**/x", (), ("/*",)),
        ("/*.{txt,log}", (), ("/*.log", "/*.txt", "/*.{txt,log}")),
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


def test_inputs_become_the_last_executors_own_by_few_words() -> None:
    several = [{"path": "/in/d", "url": "/store/d"}, file_in("/in/d/a"), file_in("/in/b"), file_in("/root/.ssh/id")]
    assert layout_of(inputs=several).taken == ["t/in/b", "t/in/d", "t/root/.ssh/id"]
    assert layout_of(inputs=[file_in(f"/in/{n}") for n in range(5000)]).taken == ["t/in"]
    assert layout_of(inputs=[file_in(f"/etc/{n}") for n in range(5000)]).taken == []


def test_what_lies_below_a_mount_is_no_mount_of_its_own() -> None:
    """A program can rename what it finds inside a mount; the next container would be given what lies there then."""
    result = layout_of(
        inputs=[{"path": "/opt/tools", "url": "/store/x"}, file_in("/opt/tools/d/a"), file_in("/opt/tools-2")],
        outputs=[file_out("/opt/tools/d/b")],
        executors=run(stdout="/opt/tools/log"),
    )
    assert result.bound == ("/opt/tools", "/opt/tools-2")


@pytest.mark.parametrize(
    "paths",
    [
        {"outputs": [file_out("/result")]},
        {"outputs": [file_out("/*.txt", path_prefix="/")]},
        {"inputs": [{"path": "/usr/local", "url": "/store/x", "type": "DIRECTORY"}]},
    ],
)
def test_what_is_copied_has_a_folder_of_its_own(paths: dict[str, Any]) -> None:
    result = layout_of(volumes=["/data", "/opt/volume"], **paths)
    assert result.bound == ("/.tesk/files", "/data", "/opt/volume")
    assert set(result.bound) <= {*result.directories, *result.files}
    assert result.uncopied == ["/data", "/opt/volume"]


def test_where_nothing_is_copied_all_paths_lie_alike() -> None:
    assert layout_of(volumes=["/data"], outputs=[file_out("/data/a")]).uncopied is None


def directory_in(path: str) -> dict[str, str]:
    return {"path": path, "url": "/store/x", "type": "DIRECTORY"}


@pytest.mark.parametrize(
    ("paths", "asked"),
    [
        ({"inputs": [file_in("/app/in/x")], "outputs": [file_out("/w/*.txt", path_prefix="/w")]}, ["/app/in", "/w"]),
        ({"executors": run(stdout="/code/log", stdin="/data/x")}, ["/code", "/data"]),
        ({"inputs": [file_in("/root/x"), file_in("/x"), file_in("/home/me/x")]}, ["/", "/home/me", "/root"]),
        ({"inputs": [file_in("/usr/bin/x"), file_in("/etc/x"), file_in("/opt/x/y")]}, []),
        ({"inputs": [file_in("/tmp/x"), file_in("/tmp/d/x"), file_in("/mnt/data/x")]}, []),
        ({"inputs": [file_in("/w/3f/9c8d1a0b7e6f5a4b3c2d1e0f9a8b7c/x")]}, []),
        ({"inputs": [file_in("/run-0b6c1f6e-3f0a-4d55-9d3c-3d6d3f1f1c11/x")]}, []),
        ({"inputs": [file_in("/data/20240131/x")]}, ["/data/20240131"]),
        ({"volumes": ["/app"], "inputs": [file_in("/app/x")]}, []),
        ({"inputs": [directory_in("/app"), file_in("/app/x")]}, []),
        ({"outputs": [file_out("/JxGRyz", type="DIRECTORY"), file_out("/JxGRyz/x"), file_out("/result")]}, []),
        ({"inputs": [file_in(f"/in/{n}/f") for n in range(500)] + [file_in("/in-2/f")]}, ["/in", "/in-2"]),
        ({"inputs": [file_in(f"/{n}/f") for n in range(500)]}, ["/"]),
    ],
)  # fmt: skip
def test_images_are_asked_about_folders_whose_names_do_not_tell(paths: dict[str, Any], asked: list[str]) -> None:
    assert list(doubtful(task_of(**paths))) == asked


@pytest.mark.parametrize(
    ("found", "mounts", "files", "copies"),
    [
        ({}, ("/app", "/app-2"), (), []),
        ({"/app": True}, ("/app-2",), ("/app/log",), ["i/app/in", "o/app/*.txt", "o/app/in", "o/app/out"]),
        ({"/app": False}, ("/app-2",), ("/app/in", "/app/log"), ["o/app/*.txt", "o/app/out"]),
        ({"/app": True, "/app-2": True}, (), ("/app/log",),
         ["i/app/in", "i/app-2/in", "o/app/*.txt", "o/app/in", "o/app/out"]),
    ],
)  # fmt: skip
def test_a_folder_in_which_an_image_has_something_is_not_mounted(
    found: dict[str, bool], mounts: tuple[str, ...], files: tuple[str, ...], copies: list[str]
) -> None:
    """There inputs are copied, or mounted alone where the container's user cannot write; streams are mounted alone."""
    result = layout_of(
        found,
        inputs=[file_in("/app/in"), file_in("/app-2/in")],
        outputs=[file_out("/app/*.txt", path_prefix="/app"), file_out("/app/out"), file_out("/app/in")],
        executors=run(stdout="/app/log"),
    )
    assert (result.mounts, result.files, result.copies(last=True)) == (mounts, files, copies)
    assert result.touched == tuple(path for path in files if path == "/app/log")
    assert result.has_copies == (COPIES in result.directories)


def test_an_input_that_is_too_large_to_be_copied_is_mounted_alone() -> None:
    result = layout_of({"/app": True}, "/app/b", inputs=[file_in("/app/a"), file_in("/app/b")])
    assert (result.files, result.copies(last=True)) == (("/app/b",), ["i/app/a"])


@pytest.mark.parametrize("path", ["/data/{}.bam", "/data/{}/in"])
def test_many_inputs_where_no_user_can_write_are_one_mount(path: str) -> None:
    """No container has room for a mount of each."""
    inputs = [file_in(path.format(n)) for n in range(3000)]
    result = layout_of({"/data": False}, inputs=inputs)
    assert (result.mounts, result.files, result.copied_in) == (("/data",), (), ())
    few = layout_of({"/data": False}, inputs=inputs[:50])
    assert len(few.mounts) + len(few.files) == 50


@pytest.mark.parametrize(
    "named",
    [
        {"volumes": ["/app"]},
        {"inputs": [directory_in("/app"), file_in("/app/in")]},
        {"outputs": [file_out("/app", type="DIRECTORY"), file_out("/app/out")]},
    ],
)
def test_a_folder_that_the_task_names_is_mounted_whatever_images_have_there(named: dict[str, Any]) -> None:
    assert layout_of({"/app": True}, **named).mounts == ("/app",)


def test_later_executors_find_copied_inputs_as_earlier_ones_left_them() -> None:
    result = layout_of({"/app": True}, inputs=[file_in("/app/a"), file_in("/app/a[1]"), directory_in("/usr/local")])
    assert result.copies(last=False) == ["i/app/a[1]", "i/usr/local", "o/app/a"]
    assert result.copies(last=True) == ["i/app/a", "i/app/a[1]", "i/usr/local"]


@pytest.mark.parametrize(
    ("folder", "asked", "copies"),
    [("/data/in", "/data/in", ["i/data/in"]), ("/home/me", "/home/me", ["i/home/me"]), ("", "/", ["i/."])],
)
def test_many_files_are_copied_by_the_folder_that_they_have_in_common(
    folder: str, asked: str, copies: list[str]
) -> None:
    result = layout_of({asked: True}, inputs=[file_in(f"{folder}/{n}/f") for n in range(500)])
    assert (result.mounts, result.files, result.copies(last=True)) == ((), (), copies)


def test_what_images_have_is_told_by_all_of_them() -> None:
    asked = ["/app", "/data", "/none", "/new/deep"]
    paths = to_look_at(asked)
    assert paths == ["/", "/app", "/data", "/new", "/new/deep", "/none"]
    first, second = read_answer(paths, "775000\n"), read_answer(paths, "337100\n")
    assert occupied(asked, [first, second]) == {"/app": False, "/data": True}
    assert occupied(["/", "/home/me"], [read_answer(["/", "/home", "/home/me"], "750")]) == {
        "/": True,
        "/home/me": True,
    }
    assert occupied(["/", "/app"], [read_answer(paths, "")]) == {"/": False}


NUMBERS = range(500)


@pytest.mark.parametrize(
    ("folders", "mounts"),
    [
        ([f"/work/in/{n}" for n in NUMBERS], 1),
        ([f"/work/{n}/in" for n in NUMBERS], 1),
        ([f"/work/{n}/in/{n % 7}" for n in NUMBERS], 1),
        ([f"/work/{n % 10}/{n}" for n in NUMBERS], 1),
        ([f"/work/{n % 2}/{n}" for n in NUMBERS], 2),
        ([f"/work/in/{n}" for n in NUMBERS] + ["/work/other", "/else"], 3),
        ([f"/work/in/{n}" for n in range(MANY)], MANY),
        ([f"/in-{n}" for n in NUMBERS], 500),
        ([f"/home/me/{n}" for n in NUMBERS], 500),
        ([f"/mnt/{n}" for n in NUMBERS], 1),
    ],
)
def test_many_folders_with_a_parent_in_common_are_one_mount_unless_it_is_the_images(
    folders: list[str], mounts: int
) -> None:
    result = layout_of(inputs=[file_in(f"{folder}/f") for folder in folders])
    assert len(result.mounts) == mounts
    assert not any(map(is_protected, result.mounts))
    assert all(result.covers(f"{folder}/f") for folder in folders)
    assert {*folders, *result.mounts} == set(result.directories)


def calls_of(function: Callable[[], Any]) -> int:
    """How many calls, of generators too, a function makes."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("folder", ["/work/{}/{}", "/top-{}-{}", "/opt/{}/{}", "/home/me/{}-{}"])
def test_the_work_grows_as_the_number_of_paths(folder: str) -> None:
    def work(count: int) -> int:
        inputs = [file_in(folder.format("in", n) + "/f") for n in range(count)]
        outputs = [file_out(folder.format("out", n) + "/f") for n in range(count)]
        task = parse(json.dumps({"executors": run(), "inputs": inputs, "outputs": outputs}).encode())[0]

        def lay_out_and_look() -> None:
            result = layout(task)
            for each in task.inputs or ():
                result.covers(each.path)

        return calls_of(lay_out_and_look)

    assert work(2000) < 2.5 * work(1000)


@pytest.mark.parametrize(
    ("path", "inside", "above", "children"),
    [
        ("/", False, True, {"a", "a-b", "c"}),
        ("/a", True, False, set()),
        ("/a/x", True, False, set()),
        ("/a-", False, False, set()),
        ("/a-b", True, False, set()),
        ("/c", False, True, {"d", "d2"}),
        ("/c/d", False, True, {"e", "f"}),
        ("/c/d2/x", True, False, set()),
        ("/zz", False, False, set()),
    ],
)
def test_trees_of_paths(path: str, inside: bool, above: bool, children: set[str]) -> None:
    trees = Trees(["/c/d2", "/a", "/a-b", "/c/d/e", "/c/d/f"])
    assert (path in trees, trees.is_above(path), trees.children(path)) == (inside, above, children)


names = st.sampled_from(["a", "b", "etc", "usr", "bin", "opt", "home", "var", "lib", "tmp", "work", ".x"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@settings(deadline=None)
@given(
    st.lists(paths, max_size=4),
    st.lists(paths, max_size=4),
    st.lists(paths, max_size=3),
    st.lists(paths.map(lambda path: f"{path}/stream"), max_size=2),
)
def test_every_path_reaches_the_container_and_nothing_of_the_image_is_hidden(
    inputs: list[str], outputs: list[str], volumes: list[str], stdio: list[str]
) -> None:
    result = layout_of(
        inputs=[{"path": path, "url": "s3://lab/x"} for path in inputs],
        outputs=[file_out(path) for path in outputs],
        volumes=volumes,
        executors=run(**dict(zip(("stdout", "stderr"), stdio, strict=False))),
    )
    for mount in result.mounts:
        assert mount in {normal(volume) for volume in volumes} or not is_protected(mount)
    for source in result.bound:
        assert not any(other != source and f"{source}/".startswith(f"{other}/") for other in result.bound)
    for path in inputs:
        assert result.covers(path)
    for path in outputs:
        assert result.covers(path) or normal(path) in result.copied_out
    for volume in volumes:
        assert result.covers(volume)
