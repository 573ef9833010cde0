"""tes.parse as a function: which documents are kept, as what, and which are refused at which field."""

import json
import re
from typing import Any

import pytest

from tesk import tes
from tesk.tes import NEXT, TERMINAL, FileType, InvalidTask, State

EXECUTOR: dict[str, Any] = {"image": "alpine", "command": ["true"]}


def task(**fields: Any) -> dict[str, Any]:
    return {"executors": [EXECUTOR], **fields}


def executor(**fields: Any) -> dict[str, Any]:
    return {"executors": [{**EXECUTOR, **fields}]}


def an_input(**fields: Any) -> dict[str, Any]:
    return task(inputs=[{"path": "/in", "url": "s3://bucket/key", **fields}])


def an_output(**fields: Any) -> dict[str, Any]:
    return task(outputs=[{"path": "/out", "url": "s3://bucket/key", **fields}])


def resources(**fields: Any) -> dict[str, Any]:
    return task(resources=fields)


def parse(document: object, **options: Any) -> tuple[tes.Task, list[str]]:
    return tes.parse(json.dumps(document).encode(), **options)


def kept(document: object, **options: Any) -> Any:
    return json.loads(tes.encode(parse(document, **options)[0]))


REFUSED: list[tuple[object, str, str]] = [
    # shape
    (None, "", "Expected `object`, got `null`"),
    ([], "", "Expected `object`, got `array`"),
    ("task", "", "Expected `object`, got `str`"),
    (1, "", "Expected `object`, got `int`"),
    ({}, "executors", "required"),
    ({"executors": None}, "executors", "got `null`"),
    ({"executors": []}, "executors", "length >= 1"),
    ({"executors": {}}, "executors", "got `object`"),
    ({"executors": [EXECUTOR] * 1001}, "executors", "length <= 1000"),
    ({"executors": [None]}, "executors[0]", "got `null`"),
    ({"executors": [EXECUTOR, {}]}, "executors[1].image", "required"),
    (task(name=1), "name", "got `int`"),
    (task(name="a" * 4097), "name", "length <= 4096"),
    (task(name="a\0b"), "name", "NUL"),
    (task(description="a\0b"), "description", "NUL"),
    (task(description=[]), "description", "got `array`"),
    # executors
    ({"executors": [{"command": ["true"]}]}, "executors[0].image", "required"),
    ({"executors": [{"image": "alpine"}]}, "executors[0].command", "required"),
    (executor(image=""), "executors[0].image", "length >= 1"),
    (executor(image=None), "executors[0].image", "got `null`"),
    (executor(image="  "), "executors[0].image", "not the name of an image"),
    (executor(image="al pine"), "executors[0].image", "not the name of an image"),
    (executor(image="alpine\0"), "executors[0].image", "not the name of an image"),
    (executor(image="../images/get?names=big:1&x="), "executors[0].image", "not the name of an image"),
    (executor(image="alpine?x=1"), "executors[0].image", "not the name of an image"),
    (executor(image="Ubuntu"), "executors[0].image", "small letters"),
    (executor(image="library://lab/tool:1"), "executors[0].image", "library:// names no image"),
    (executor(image="oras://quay.io/lab/tool:1"), "executors[0].image", "oras:// names no image"),
    (executor(image="docker://"), "executors[0].image", "not the name of an image"),
    (executor(image="a" * 1025), "executors[0].image", "length <= 1024"),
    (executor(command=[]), "executors[0].command", "length >= 1"),
    (executor(command="true"), "executors[0].command", "got `str`"),
    (executor(command=[1]), "executors[0].command[0]", "got `int`"),
    (executor(command=[None]), "executors[0].command[0]", "got `null`"),
    (executor(command=[""]), "executors[0].command[0]", "empty"),
    (executor(command=["a", "b\0"]), "executors[0].command[1]", "NUL"),
    (executor(workdir="work"), "executors[0].workdir", "not an absolute path"),
    (executor(workdir="./work"), "executors[0].workdir", "not an absolute path"),
    (executor(workdir="/a/../b"), "executors[0].workdir", "'..'"),
    (executor(stdin="in.txt"), "executors[0].stdin", "not an absolute path"),
    (executor(stdout="out.txt"), "executors[0].stdout", "not an absolute path"),
    (executor(stderr="err.txt"), "executors[0].stderr", "not an absolute path"),
    (executor(stderr="/e\0"), "executors[0].stderr", "NUL"),
    (executor(stdout="/"), "executors[0].stdout", "a directory's path"),
    (executor(stdin="/."), "executors[0].stdin", "a directory's path"),
    (executor(stdin="/in/"), "executors[0].stdin", "a directory's path"),
    (executor(stderr="/out/."), "executors[0].stderr", "a directory's path"),
    (executor(stdout="/.tesk/control/ended"), "executors[0].stdout", "what is its own"),
    (executor(workdir="//.tesk"), "executors[0].workdir", "what is its own"),
    (executor(workdir="/" + "/".join(["a" * 250] * 16)), "executors[0].workdir", "longer than 3840 bytes"),
    (executor(workdir="http://me:hunter2@host/w"), "executors[0].workdir", "'http://host/w' is not an absolute path"),
    (executor(stdout="/" + "a" * 256), "executors[0].stdout", "255 bytes"),
    (executor(stdout="/" + "ä" * 128), "executors[0].stdout", "255 bytes"),
    (executor(stdout="/" + "a/" * 3000), "executors[0].stdout", "length <= 4096"),
    (executor(env={"A": 1}), "executors[0].env.A", "got `int`"),
    (executor(env={"": "x"}), "executors[0].env", "cannot be an environment variable"),
    (executor(env={"A=B": "x"}), "executors[0].env", "cannot be an environment variable"),
    (executor(env={"A": "x\0"}), "executors[0].env", "cannot be an environment variable"),
    (executor(env=[]), "executors[0].env", "got `array`"),
    (executor(ignore_error="yes"), "executors[0].ignore_error", "got `str`"),
    # inputs
    (task(inputs=[{"url": "s3://b/k"}]), "inputs[0].path", "required"),
    (task(inputs=[{"path": "/in"}]), "inputs[0]", "url or content"),
    (task(inputs=[{"path": "/in", "url": ""}]), "inputs[0]", "url or content"),
    (task(inputs=[{"path": "/in", "url": None, "content": None}]), "inputs[0]", "url or content"),
    (an_input(path=""), "inputs[0].path", "not an absolute path"),
    (an_input(path="in"), "inputs[0].path", "not an absolute path"),
    (an_input(path="/"), "inputs[0].path", "root"),
    (an_input(path="//"), "inputs[0].path", "root"),
    (an_input(path="/."), "inputs[0].path", "root"),
    (an_input(path="/a/../etc"), "inputs[0].path", "'..'"),
    (an_input(path="/a\0"), "inputs[0].path", "NUL"),
    (an_input(type="file"), "inputs[0].type", "Invalid enum value"),
    (an_input(type="FOLDER"), "inputs[0].type", "'FOLDER'; it is one of FILE, DIRECTORY"),
    (an_input(path="/proc/x"), "inputs[0].path", "the kernel's"),
    (an_input(path="/sys"), "inputs[0].path", "the kernel's"),
    (an_input(path="/.tesk/shim/run"), "inputs[0].path", "what is its own"),
    (an_input(path="/in/", content="x"), "inputs[0].path", "a directory's path"),
    (an_input(url="http://ho st/x"), "inputs[0].url", "percent-encoded"),
    (an_input(url="http://host\r\nX/x"), "inputs[0].url", "percent-encoded"),
    (an_input(url="s3://buck?et/x"), "inputs[0].url", "bucket's name"),
    (an_input(url="s3://key:secret@bucket/x"), "inputs[0].url", "bucket's name"),
    (an_input(url="drs://host/"), "inputs[0].url", "needs a path: drs://host/id"),
    (an_input(url="sftp://host"), "inputs[0].url", "needs a path"),
    (an_input(url="file:///a%00b"), "inputs[0].url", "NUL"),
    (an_input(content="x", type="DIRECTORY"), "inputs[0].type", "FILE, not a DIRECTORY"),
    (an_input(url="gopher://host/x"), "inputs[0].url", "unsupported URL scheme 'gopher'"),
    (an_input(url="relative/path"), "inputs[0].url", "unsupported URL scheme ''"),
    (an_input(url="s3:bucket/key"), "inputs[0].url", "needs a host or bucket"),
    (an_input(url="http:///x"), "inputs[0].url", "needs a host or bucket"),
    (an_input(url="http://[::1"), "inputs[0].url", "not a URL"),
    (an_input(url="http://host:99999/"), "inputs[0].url", "not a URL"),
    (an_input(url="file://elsewhere/x"), "inputs[0].url", "file:///absolute/path"),
    (an_input(url="file:x"), "inputs[0].url", "file:///absolute/path"),
    (an_input(url="s3://b/\0"), "inputs[0].url", "NUL"),
    (an_input(url=1), "inputs[0].url", "got `int`"),
    (an_input(content=1), "inputs[0].content", "got `int`"),
    (an_input(streamable=1), "inputs[0].streamable", "got `int`"),
    (task(inputs={}), "inputs", "got `object`"),
    (task(inputs=[None]), "inputs[0]", "got `null`"),
    # outputs
    (task(outputs=[{"path": "/out"}]), "outputs[0].url", "required"),
    (task(outputs=[{"url": "s3://b/k"}]), "outputs[0].path", "required"),
    (an_output(url=""), "outputs[0].url", "needs a url"),
    (an_output(url=None), "outputs[0].url", "got `null`"),
    (an_output(path="out"), "outputs[0].path", "not an absolute path"),
    (an_output(path="/"), "outputs[0].path", "root"),
    (an_output(path="/.tesk"), "outputs[0].path", "what is its own"),
    (an_output(path="/out/../x"), "outputs[0].path", "'..'"),
    (an_output(url="drs://host/id"), "outputs[0].url", "unsupported URL scheme 'drs'; supported: az, "),
    (an_input(url="drs://dg.4503:dg.4503/x"), "inputs[0].url", "not a URL"),
    (an_output(url="gs2://b/k"), "outputs[0].url", "unsupported URL scheme 'gs2'"),
    (an_output(path="/out/*"), "outputs[0].path_prefix", "wildcards"),
    (an_output(path="/out/?.txt"), "outputs[0].path_prefix", "wildcards"),
    (an_output(path="/out/[ab]"), "outputs[0].path_prefix", "wildcards"),
    (an_output(path="/out/*", path_prefix=""), "outputs[0].path_prefix", "wildcards"),
    (an_output(path="/out/\\\\*"), "outputs[0].path_prefix", "wildcards"),
    (an_output(path="/out/a[1]", url="s3://bucket/a1"), "outputs[0].path_prefix", "wildcards"),
    (an_output(path="/out/" + "{a,b}" * 7), "outputs[0].path", "more than 100 patterns"),
    (an_output(path="/out/" + "{a,b}" * 40), "outputs[0].path", "more than 100 patterns"),
    (an_output(path="/out/" + "**a" * 7, path_prefix="/out"), "outputs[0].path", "more than 100 patterns"),
    (
        task(outputs=[{"path": f"/out/{n}.{{a,b}}", "url": "s3://b/k"} for n in range(500)]),
        "outputs[333].path",
        "1,000",
    ),
    (an_output(path="/out/*", path_prefix="/elsewhere"), "outputs[0].path_prefix", "not a prefix"),
    (an_output(path="/out/*", path_prefix="/ou"), "outputs[0].path_prefix", "not a prefix"),
    (an_output(path="/out/*", path_prefix="out"), "outputs[0].path_prefix", "not a prefix"),
    (an_output(path="/out/*/x", path_prefix="/out/*"), "outputs[0].path_prefix", "must not hold wildcards"),
    # volumes, tags
    (task(volumes=["vol"]), "volumes[0]", "not an absolute path"),
    (task(volumes=["/ok", "/"]), "volumes[1]", "root"),
    (task(volumes=["/a/.."]), "volumes[0]", "'..'"),
    (task(volumes=["/proc"]), "volumes[0]", "the kernel's"),
    (task(volumes=["/.tesk/x"]), "volumes[0]", "what is its own"),
    # a file and a directory at once
    ({**executor(stdout="/data/"[:-1]), "volumes": ["/data/"]}, "volumes[0]", "a file in executors[0].stdout"),
    (
        {**executor(stdin="/in"), "inputs": [{"path": "/in", "url": "s3://b/k", "type": "DIRECTORY"}]},
        "inputs[0].path",
        "a file in executors[0].stdin",
    ),
    (
        {**executor(workdir="/w"), "inputs": [{"path": "/w", "content": "x"}]},
        "executors[0].workdir",
        "a file in inputs[0].path",
    ),
    (
        task(inputs=[{"path": "/a", "content": "x"}, {"path": "/a/b", "url": "s3://b/k"}]),
        "inputs[1].path",
        "lies below '/a'",
    ),
    (
        {**executor(stderr="/a//b/c"), "inputs": [{"path": "/a/b", "content": "x"}]},
        "executors[0].stderr",
        "lies below '/a/b'",
    ),
    (
        {**executor(stdout="/o"), "outputs": [{"path": "/o/*", "path_prefix": "/o", "url": "s3://b/k"}]},
        "outputs[0].path",
        "lies below '/o'",
    ),
    (task(volumes=["/.tesk"]), "volumes[0]", "what is its own"),
    (task(volumes=["//./.tesk/"]), "volumes[0]", "what is its own"),
    (an_input(path="/.tesk/shim/run"), "inputs[0].path", "what is its own"),
    (an_output(path="/.tesk/control/stdout"), "outputs[0].path", "what is its own"),
    (task(volumes=[None]), "volumes[0]", "got `null`"),
    (task(volumes="/vol"), "volumes", "got `str`"),
    (task(tags={"ok": "x", "n": None, "a.b": 1}), "tags.a.b", "got `int`"),
    (task(tags=["a"]), "tags", "got `array`"),
    (task(tags={"a\0": "x"}), "tags", "NUL"),
    (task(tags={"a": "x\0"}), "tags", "NUL"),
    (task(tags={str(n): "" for n in range(1001)}), "tags", "length <= 1000"),
    # resources
    (task(resources=[]), "resources", "got `array`"),
    (resources(cpu_cores=-1), "resources.cpu_cores", ">= 0"),
    (resources(cpu_cores=-0.5), "resources.cpu_cores", ">= 0"),
    (resources(cpu_cores=1_000_001), "resources.cpu_cores", "<= 1000000"),
    (resources(cpu_cores=2**31), "resources.cpu_cores", "<= 1000000"),
    (resources(cpu_cores=10**40), "resources.cpu_cores", "<= 1000000"),
    (resources(cpu_cores="2"), "resources.cpu_cores", "got `str`"),
    (resources(cpu_cores=True), "resources.cpu_cores", "got `bool`"),
    (resources(ram_gb=-1), "resources.ram_gb", ">= 0"),
    (resources(ram_gb=1e300), "resources.ram_gb", "<= 10000000"),
    (resources(ram_gb="8"), "resources.ram_gb", "got `str`"),
    (resources(disk_gb=-1), "resources.disk_gb", ">= 0"),
    (resources(disk_gb=10**12), "resources.disk_gb", "<= 1000000000"),
    (resources(preemptible="no"), "resources.preemptible", "got `str`"),
    (resources(zones=[1]), "resources.zones[0]", "got `int`"),
    (resources(zones={}), "resources.zones", "got `object`"),
    (resources(backend_parameters=[]), "resources.backend_parameters", "got `array`"),
    (resources(backend_parameters={"a": 1}), "resources.backend_parameters.a", "got `int`"),
    (
        resources(backend_parameters={"gpu": "1"}, backend_parameters_strict=True),
        "resources.backend_parameters.gpu",
        "not supported",
    ),
]


@pytest.mark.parametrize(("document", "field", "reason"), REFUSED)
def test_a_task_that_cannot_run_is_refused_at_its_field(document: object, field: str, reason: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        parse(document)
    assert refused.value.field == field
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nul",
        b"task",
        b'{"executors":[{"image":"a","command":["b"]}]}x',
        b'{"executors":[{"image":"a","command":["b"]}],}',
        b"{'executors': []}",
        b'{"name":NaN,"executors":[{"image":"a","command":["b"]}]}',
        b'{"name":"\xff","executors":[{"image":"a","command":["b"]}]}',
        b'{"name":"\\ud800","executors":[{"image":"a","command":["b"]}]}',
        b'\xef\xbb\xbf{"executors":[{"image":"a","command":["b"]}]}',
        '{"executors":[{"image":"a","command":["b"]}]}'.encode("utf-16"),
        b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b',"executors":[{"image":"a","command":["b"]}]}',
        b"\0",
    ],
)
def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    with pytest.raises(InvalidTask) as refused:
        tes.parse(body)
    assert refused.value.field == ""
    assert "JSON" in refused.value.reason


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_called_so(body: bytes) -> None:
    with pytest.raises(InvalidTask, match="the body is empty: send the task as JSON"):
        tes.parse(body)


def test_a_number_beyond_all_bounds_is_refused_at_its_field() -> None:
    with pytest.raises(InvalidTask) as refused:
        tes.parse(b'{"resources":{"cpu_cores":1e999},"executors":[{"image":"a","command":["b"]}]}')
    assert refused.value.field == "resources.cpu_cores"


SAME: list[dict[str, Any]] = [
    task(),
    task(name="align", description="one step", tags={"run": "r 17", "": "", "ü": "🧬"}, volumes=["/data", "/tmp/v"]),
    executor(command=["sh", "-c", "echo $HOME", "", "*", "$(X)"]),
    executor(workdir="/", stdin="/in", stdout="/out", stderr="/err", env={"A": "", "b.c-d": "e=f"}, ignore_error=True),
    executor(workdir="/" + "a" * 255),
    {"executors": [EXECUTOR, {"image": "quay.io/a/b@sha256:" + "0" * 64, "command": ["x"]}]},
    executor(image="localhost:5000/a/b_c__d-e---f.g:V1.2-x_y@sha256:" + "a" * 64),
    executor(image="[2001:db8::1]:5000/a"),
    executor(image="Registry.Example.ORG/lab/tool"),
    executor(stdin="/dev/null", stdout="/dev/stdout", stderr="/proc/self/fd/2"),
    {**executor(stdout="/w/out", workdir="/w"), "volumes": ["/w"], "outputs": [{"path": "/w/out", "url": "/srv/o"}]},
    an_input(type="DIRECTORY", name="n", description="d", streamable=True),
    an_input(url="/a bare path/with spaces"),
    an_input(url="file:///a"),
    an_input(url="file://localhost/a"),
    an_input(url="http://user:pass@host:8080/x?y=z&a=%20#f"),
    an_input(url="ftp://user:p%40ss@host:2121/x"),
    an_input(url="sftp://me@host:2222/~/x"),
    an_input(url="ftps://host/x"),
    an_input(url="drs://host/a%2Fb"),
    an_input(url="gs://bucket/a b/%41"),
    an_input(url="az://container/x"),
    an_input(url="https://account.blob.core.windows.net/container/x?sig=a%3D"),
    an_input(url="HTTPS://host"),
    an_input(url="http://[::1]:80/x"),
    an_input(url="s3://bucket"),
    task(inputs=[{"path": "/in", "content": ""}]),
    task(inputs=[{"path": "/in", "content": "a\0b\n"}]),
    task(inputs=[{"path": "/in", "content": "x" * 131_072}]),
    task(inputs=[{"path": "/in/*", "content": "x"}]),
    task(inputs=[{"path": "/in", "content": "x", "url": "whatever: it is ignored"}]),
    an_output(type="FILE", name="n", description="d"),
    an_output(path="/out/*.bam", path_prefix="/out"),
    an_output(path="/out/*.bam", path_prefix="/out/"),
    an_output(path="/out/*.bam", path_prefix="/"),
    an_output(path="/out/[!a]?/**", path_prefix="/out"),
    an_output(path="/out/plain", path_prefix="ignored"),
    an_output(path="/out/*.{html,zip}", path_prefix="/out"),
    an_output(path="/out/x.{bai,csi}"),
    an_output(path="/out/a\\[1\\].\\*"),
    an_output(path="/out/sub/a[1].txt", url="s3://bucket/sub/a[1].txt"),
    an_output(path="/out/a[1].txt", url="file:///data/a%5B1%5D.txt"),
    resources(cpu_cores=4, ram_gb=8.5, disk_gb=20, preemptible=True, zones=["a", "b"]),
    resources(cpu_cores=0.5),
    resources(cpu_cores=0),
    resources(cpu_cores=1_000_000),
]


@pytest.mark.parametrize("document", SAME)
def test_a_task_is_kept_as_it_was_sent(document: dict[str, Any]) -> None:
    assert kept(document) == document


TOLERATED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # pydantic-tes: null for every optional field, and for those of the server
    (
        task(
            id=None, state=None, logs=None, creation_time=None, name=None, description=None, inputs=None, outputs=None,
            resources=None, volumes=None, tags=None,
        ),
        task(),
    ),
    (executor(workdir=None, stdin=None, stdout=None, stderr=None, env=None, ignore_error=None), task()),
    (
        resources(
            cpu_cores=None, preemptible=None, ram_gb=None, disk_gb=None, zones=None, backend_parameters=None,
            backend_parameters_strict=None,
        ),
        task(),
    ),
    (
        an_input(name=None, description=None, type=None, content=None, streamable=None),
        an_input(),
    ),
    (an_output(name=None, description=None, type=None, path_prefix=None), an_output()),
    # server-owned fields
    (task(id="mine", state="COMPLETE", logs=[{"logs": []}], creation_time="now"), task()),
    (task(id=5, state={}, logs="x", creation_time=[]), task()),
    # Cromwell: null values in maps
    (task(tags={"a": None, "b": "c"}), task(tags={"b": "c"})),
    (task(tags={"a": None}), task()),
    (executor(env={"A": None, "B": "c"}), executor(env={"B": "c"})),
    (resources(cpu_cores=1, backend_parameters={"a": None}), resources(cpu_cores=1)),
    # forms: misspelt and textual fields, empty ones
    (task(output=[{"path": "x"}]), task()),
    (resources(zones="eu-1"), resources(zones=["eu-1"])),
    (resources(zones=""), task()),
    (resources(zones=[]), task()),
    (task(name="", description="", inputs=[], outputs=[], volumes=[], tags={}, resources={}), task()),
    # Apptainer, Snakemake, WDL
    (executor(image="docker://quay.io/a/b:1"), executor(image="quay.io/a/b:1")),
    (executor(workdir="", stdin="", stdout="", stderr="", env={}), task()),
    # defaults
    (executor(ignore_error=False), task()),
    (resources(preemptible=False, backend_parameters_strict=False), task()),
    (an_input(streamable=False), an_input()),
    (an_input(content=""), an_input()),
    (an_output(path_prefix=""), an_output()),
    # unknown fields
    (task(unknown=1, project="x"), task()),
    (executor(unknown={"a": [1]}), task()),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), TOLERATED)
def test_what_clients_send_beside_the_task_is_dropped(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    assert kept(sent) == expected


def test_the_type_of_an_input_stays_open_when_it_is_not_given() -> None:
    parsed, _ = parse(an_input())
    assert parsed.inputs is not None
    assert parsed.inputs[0].type is None
    assert kept(an_input(type="FILE"))["inputs"][0]["type"] == FileType.FILE.value


def test_unsupported_backend_parameters_are_dropped_with_a_warning_each() -> None:
    sent = resources(backend_parameters={"gpu": "1", "VMSIZE": "big", "arch": "arm"})
    parsed, warnings = parse(sent, parameters={"VmSize"})
    assert parsed.resources is not None
    assert parsed.resources.backend_parameters == {"VMSIZE": "big"}
    assert [re.findall(r"'(\w+)'", warning) for warning in warnings] == [["arch"], ["gpu"]]


def test_supported_backend_parameters_pass_strict_in_any_case() -> None:
    sent = resources(backend_parameters={"vmsize": "big"}, backend_parameters_strict=True)
    assert kept(sent, parameters={"VmSize"}) == sent


def test_a_null_backend_parameter_is_no_reason_to_refuse_under_strict() -> None:
    sent = resources(backend_parameters={"gpu": None}, backend_parameters_strict=True)
    assert kept(sent) == resources(backend_parameters_strict=True)


def test_reasons_never_quote_what_may_be_secret() -> None:
    for document in (
        executor(env={"TOKEN": "hunter2\0"}),
        an_input(url="http://user:hunter2@host:port/x"),
        an_input(url="http://host:hunter2/x"),
        an_input(url="s9://key:hunter2@bucket/x"),
        an_input(content="hunter2", type="DIRECTORY"),
        an_input(url="ftp://me:hunter2@ho st/x"),
        an_input(path="https://me:hunter2@host/x?sig=hunter2"),
    ):
        with pytest.raises(InvalidTask) as refused:
            parse(document)
        assert "hunter2" not in str(refused.value)


def test_the_basic_document_lacks_nothing_but_content() -> None:
    inputs = [{"path": "/a", "content": "secret"}, {"path": "/b", "url": "s3://b/k"}]
    parsed, _ = parse(task(inputs=inputs, name="n"))
    basic, full = tes.documents(parsed)
    assert json.loads(basic) == task(inputs=[{"path": "/a"}, inputs[1]], name="n")
    assert full is not None
    assert json.loads(full) == task(inputs=inputs, name="n")
    assert tes.encode(parsed) == full, "making the documents must leave the task as it was"


def test_a_task_without_content_has_one_document() -> None:
    parsed, _ = parse(an_input())
    assert tes.documents(parsed) == (tes.encode(parsed), None)


def test_terminal_states_have_no_successor_and_all_others_can_end() -> None:
    assert {state for state in State if not NEXT[state]} == TERMINAL
    assert {state for state in State if state.is_terminal} == TERMINAL
    for state in set(State) - TERMINAL:
        assert NEXT[state] & TERMINAL


def test_states_never_go_back() -> None:
    forward = [State.QUEUED, State.INITIALIZING, State.RUNNING, State.CANCELING, State.CANCELED]
    for n, state in enumerate(forward):
        assert not NEXT[state] & set(forward[: n + 1])
