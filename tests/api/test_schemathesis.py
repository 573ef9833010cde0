"""Schemathesis: thousands of requests made from the specification, valid and not; no server error, every reply valid.

It reads the published specification, so that a reply is held against what clients were promised. One exception:
fractional cpu_cores, which the specification calls an integer, are accepted and echoed on purpose (served.py says why).
"""

import datetime
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tesk.tes import State
from tests.api.conftest import LIMIT_S, Running, running
from tests.api.test_clients import log_of_all_fields
from tests.servers.postgres import Postgres
from tests.spec import served

EXAMPLES = 120
CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    content_type_conformance,
    response_headers_conformance,
]


def published() -> dict[str, Any]:
    document = served.specification()
    served.accept_fractions(document)

    def text(value: object) -> str:
        assert isinstance(value, datetime.datetime)
        return value.isoformat()

    plain = json.loads(json.dumps(document, default=text))
    assert isinstance(plain, dict)
    return plain


def own_description() -> dict[str, Any]:
    description = json.loads(served.SERVED.read_text())
    assert isinstance(description, dict)
    return description


def schema_of(document: dict[str, Any]) -> Any:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    schema.config.request_timeout = LIMIT_S
    return schema


SPECIFICATION = schema_of(published())
OWN = schema_of(own_description()).exclude(path_regex="^/api/")
BESIDE_TES = schema_of(own_description()).include(path_regex="^/api/")
RUN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[Running]:
    """On PostgreSQL, which is the stricter one about texts."""
    with running(tmp_path_factory.mktemp("schemathesis"), database=postgres_server.new_database()) as started:
        yield started


@pytest.fixture(scope="module")
def existing(server: Running) -> str:
    """The id of a task that has ended, with all that a log can hold."""
    document = {"executors": [{"image": "alpine", "command": ["true"]}], "inputs": [{"path": "/in", "content": "x"}]}
    identifier = server.client.post("/v1/tasks", json=document).json()["id"]
    assert server.do(server.store.advance(identifier, State.COMPLETE, log_of_all_fields()))
    assert isinstance(identifier, str)
    return identifier


def call(case: Any, base_url: str, checks: list[Any], existing: str) -> None:
    """Sends a case as it is, and where it names a task once more with the id of one that there is."""
    case.call_and_validate(base_url=base_url, checks=checks)
    if isinstance(case.path_parameters, dict) and "id" in case.path_parameters:
        case.path_parameters["id"] = existing
        case.call_and_validate(base_url=base_url, checks=checks)


@SPECIFICATION.parametrize()  # type: ignore[untyped-decorator]
@RUN
def test_replies_are_what_the_specification_promises(case: Any, server: Running, existing: str) -> None:
    call(case, server.url + "/ga4gh/tes/v1", CHECKS, existing)


@OWN.parametrize()  # type: ignore[untyped-decorator]
@RUN
def test_replies_are_what_openapi_json_promises_errors_too(case: Any, server: Running, existing: str) -> None:
    call(case, server.url + "/v1", [*CHECKS, status_code_conformance], existing)


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[Running]:
    """A server where callers are whom the header X-Forwarded-User names."""
    database, trusted = postgres_server.new_database(), ("127.0.0.1/32",)
    with running(tmp_path_factory.mktemp("beside"), database=database, trusted_addresses=trusted) as started:
        yield started


@BESIDE_TES.parametrize()  # type: ignore[untyped-decorator]
@settings(RUN, max_examples=EXAMPLES // 4)
def test_replies_beside_tes_are_what_openapi_json_promises(case: Any, behind_proxy: Running, server: Running) -> None:
    checks = [*CHECKS, status_code_conformance]
    case.call_and_validate(base_url=behind_proxy.url, checks=checks, headers={"X-Forwarded-User": "ann"})
    case.call_and_validate(base_url=server.url, checks=checks)


def test_requests_of_both_kinds_were_made(server: Running) -> None:
    """Runs last: thousands of requests, each operation with success and refusal."""
    requests = Counter(
        (line["method"], bool(re.search("/tasks/.", line["path"])), line["status"])
        for line in map(json.loads, server.log_stream.getvalue().splitlines())
        if line["msg"] == "request"
    )
    assert requests.total() > 8 * EXAMPLES
    for method, on_one, statuses in (
        ("GET", False, (200, 400)),
        ("POST", False, (200, 400)),
        ("GET", True, (200, 400, 404)),
        ("POST", True, (200, 404)),
    ):
        for status in statuses:
            assert requests[method, on_one, status] > 5, (method, on_one, status)
