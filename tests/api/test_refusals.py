"""What is refused: status, field and reason of each, as JSON, and never a 5xx."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.conftest import Running, running
from tests.unit.test_tes import REFUSED

JSON = {"Content-Type": "application/json"}
TASK = b'{"executors":[{"image":"alpine","command":["true"]}]}'


def error(answer: httpx.Response, status: int, field: str | None = None) -> str:
    """The reason, after the form of the error has been checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body["status_code"] == status
    assert body.get("field", "") == (field or "")
    assert set(body) <= {"status_code", "msg", "field"}
    reason: str = body["msg"]
    assert reason
    return reason


@pytest.mark.parametrize(("document", "field", "reason"), REFUSED)
def test_a_task_that_cannot_run_is_400(client: httpx.Client, document: object, field: str, reason: str) -> None:
    before = client.get("/v1/tasks?page_size=1").json()
    assert reason in error(client.post("/ga4gh/tes/v1/tasks", content=json.dumps(document), headers=JSON), 400, field)
    assert client.get("/v1/tasks?page_size=1").json() == before, "nothing is stored"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b'{"name":"\xff","executors":[{"image":"a","command":["b"]}]}',
        b'{"x":' + b"[" * 500_000,
        b'{"resources":{"cpu_cores":' + b"9" * 100_000 + b'},"executors":[{"image":"a","command":["b"]}]}',
        b'{"resources":{"cpu_cores":1e999},"executors":[{"image":"a","command":["b"]}]}',
        b'{"resources":{"ram_gb":-0.1},"executors":[{"image":"a","command":["b"]}]}',
        b'{"name":"\\ud800","executors":[{"image":"a","command":["b"]}]}',
        b'{"tags":{"a\\u0000":"b"},"executors":[{"image":"a","command":["b"]}]}',
    ],
)
def test_a_body_that_is_no_task_is_400(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/tasks", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["msg"]


QUERIES = [
    ("view=minimal", "view"),
    ("view=EVERYTHING", "view"),
    ("view=BASIC%00", "view"),
    ("page_size=0", "page_size"),
    ("page_size=-1", "page_size"),
    ("page_size=2048", "page_size"),
    ("page_size=99999999999999999999", "page_size"),
    ("page_size=ten", "page_size"),
    ("page_size=1.5", "page_size"),
    ("page_size=1e2", "page_size"),
    ("page_size=+5", "page_size"),
    ("page_size=1_0", "page_size"),
    ("page_size=%D9%A3", "page_size"),
    ("page_size=1%0A", "page_size"),
    ("page_token=x", "page_token"),
    ("page_token=" + "A" * 10_000, "page_token"),
    ("page_token=%C3%A4", "page_token"),
    ("page_token=MQ", "page_token"),
    ("page_token=0000000000000", "page_token"),
    ("page_token=MnwwMDAwMDAwMDAwMDAwMA", "page_token"),
    ("state=DONE", "state"),
    ("state=queued", "state"),
    ("state=1", "state"),
    ("state=QUEUED,RUNNING", "state"),
    ("tag_value=x", "tag_value"),
    ("tag_key=a&tag_value=x&tag_value=y", "tag_value"),
    ("name_prefix=%00", "name_prefix"),
    ("tag_key=%00", "tag_key"),
    ("tag_key=a&tag_value=%00", "tag_value"),
    ("&".join(f"tag_key=k{n}" for n in range(257)), "tag_key"),
    ("name_prefix=%FF", None),
    ("state=%ff%fe", None),
    ("&".join("a=1" for _ in range(2001)), None),
]


@pytest.mark.parametrize(("query", "field"), QUERIES)
def test_a_list_request_that_makes_no_sense_is_400(client: httpx.Client, query: str, field: str | None) -> None:
    error(client.get(f"/v1/tasks?{query}"), 400, field)


@pytest.mark.parametrize(("query", "field"), [("view=all", "view"), ("view=%ff", None), ("view=MINIMAL%20", "view")])
def test_a_view_that_there_is_not_is_400(client: httpx.Client, query: str, field: str | None) -> None:
    error(client.get(f"/v1/tasks/0000000000000?{query}"), 400, field)


@pytest.mark.parametrize(
    "query",
    [
        "&",
        "view=BASIC&",
        "&&view=FULL",
        "unknown=1&x",
        "page_size=&state=&name_prefix=&page_token=&view=",
        "%",
        "%zz=%zz",
    ],
)
def test_what_forms_leave_in_a_query_is_ignored(client: httpx.Client, query: str) -> None:
    assert client.get(f"/v1/tasks?{query}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/",
        "/v1/task",
        "/v2/tasks",
        "/ga4gh/tes/v1/",
        "/v1/tasks/",
        "/v1/tasks/x",
        "/v1/tasks/0000000000000",
        "/v1/tasks/0000000000000/",
        "/v1/tasks/0000000000000/logs",
        "/v1/tasks/zzzzzzzzzzzzz",
        "/v1/tasks/UPPERCASE0000",
        "/v1/tasks/" + "a" * 10_000,
        "/v1/tasks/" + quote("ä" * 13),
        "/v1/tasks/%00",
        "/v1/tasks/%ff%fe",
        "/v1/tasks/%zz",
        "/v1/tasks/..%2f..%2fetc%2fpasswd",
        "/v1/tasks/0000000000000%0a",
        "/v1/tasks/٠٠٠٠٠٠٠٠٠٠٠٠٠",
        "/v1/tasks/' OR 1=1 --",
        "/healthz/x",
        "//v1/tasks",
        "/V1/tasks",
    ],
)
def test_what_is_not_there_is_404(client: httpx.Client, path: str) -> None:
    answer = client.get(httpx.URL(str(client.base_url).rstrip("/") + path))
    assert answer.status_code == 404, answer.text
    assert answer.json()["status_code"] == 404
    assert len(answer.content) < 1000, "the path is not sent back at any length"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("PATCH", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("TRACE", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/tasks/0000000000000", {"GET", "HEAD"}),
        ("DELETE", "/v1/tasks/0000000000000", {"GET", "HEAD"}),
        ("GET", "/v1/tasks/0000000000000:cancel", {"POST"}),
        ("DELETE", "/v1/tasks/0000000000000:cancel", {"POST"}),
        ("POST", "/v1/service-info", {"GET", "HEAD"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(
    client: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.request(method, path, headers=JSON)
    error(answer, 405)
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "media",
    [
        None,
        "",
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "text/plain, application/json",
        "application/xml",
    ],
)
@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/tasks/0000000000000:cancel"])
def test_a_write_without_the_json_media_type_is_415_and_names_the_header(
    client: httpx.Client, path: str, media: str | None
) -> None:
    headers = {} if media is None else {"Content-Type": media}
    reason = error(client.post(path, content=TASK, headers=headers), 415, "Content-Type")
    assert "Content-Type: application/json" in reason


def test_an_encoded_body_is_415(client: httpx.Client) -> None:
    error(
        client.post("/v1/tasks", content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": "gzip"}),
        415,
        "Content-Encoding",
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes bodies of at most 4 KiB."""
    with running(Path(tmp_path_factory.mktemp("small")), max_body_bytes=4096) as started:
        yield started


def body_of(size: int) -> bytes:
    return TASK[:-1] + b',"name":"' + b"x" * (size - len(TASK) - 10) + b'"}'


def test_a_body_of_exactly_the_limit_is_taken(small: Running) -> None:
    body = body_of(4096)
    assert len(body) == 4096
    assert small.client.post("/v1/tasks", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("size", [4097, 100_000, 20_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413(small: Running, size: int, chunked: bool) -> None:
    body = body_of(size)
    content = iter([body[n : n + 65_536] for n in range(0, size, 65_536)]) if chunked else body
    reason = error(small.client.post("/v1/tasks", content=content, headers=JSON), 413)
    assert "4096" in reason
    assert "max_body_bytes" in reason


def test_a_body_over_the_limit_is_not_asked_for(small: Running) -> None:
    headers = {**JSON, "Expect": "100-continue"}
    error(small.client.post("/v1/tasks", content=body_of(100_000), headers=headers), 413)


def test_hundreds_of_tag_filters_are_answered(client: httpx.Client) -> None:
    query = "&".join(f"tag_key=k{n}&tag_value=v" for n in range(256))
    assert client.get(f"/v1/tasks?{query}").json()["tasks"] == []
