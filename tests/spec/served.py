"""Makes tesk/server/openapi.json: the TES 1.1 specification, with the few things that tesk does differently, and what
tesk has beside TES.

Run `python -m tests.spec.served` after a change; tests/api/test_service.py holds the file against this module.
"""

import datetime
import json
from pathlib import Path
from typing import Any

import yaml

SPEC = Path(__file__).with_name("tes-openapi-1.1.yaml")
BESIDE_TES = Path(__file__).with_name("beside-tes.yaml")
SERVED = Path(__file__).parents[2] / "tesk" / "server" / "openapi.json"
ERRORS = {
    "400": "The request is not valid; `field` names the place.",
    "401": "The caller has to sign in, or the credential is no good; `WWW-Authenticate` names the ways in.",
    "403": "The credential is not good for this, or a web page of an origin that is not configured wants to write.",
    "404": "There is no such task or path.",
    "405": "The method is not possible here.",
    "408": "The request did not arrive in time.",
    "413": "The request body is too large.",
    "415": "A write needs the header `Content-Type: application/json`.",
    "421": "The server does not answer to this Host name.",
    "429": "There were too many wrong tries to sign in; `Retry-After` says how long to wait.",
    "500": "Server error; the log has it under the request id.",
    "503": "The database, or what checks credentials, does not answer; try again later.",
}
ERROR = {
    "type": "object",
    "description": "An error: the status, the reason, and the place in the document or query where there is one.",
    "required": ["status_code", "msg"],
    "properties": {
        "status_code": {"type": "integer"},
        "msg": {"type": "string"},
        "field": {"type": "string", "example": "executors[0].image"},
    },
}


def specification() -> dict[str, Any]:
    """The specification as it was published (the variant whose schemas match what servers send)."""
    document = yaml.safe_load(SPEC.read_text())
    assert isinstance(document, dict)
    return document


def accept_fractions(document: dict[str, Any]) -> None:
    """cpu_cores may be fractional: clients ask for half a core, and read back what they asked for."""
    cores = document["components"]["schemas"]["tesResources"]["properties"]["cpu_cores"]
    assert cores["type"] == "integer", "the specification has changed: is this exception still needed?"
    cores["type"] = "number"
    cores["format"] = "double"


def beside_tes() -> dict[str, Any]:
    """What tesk has beside TES: `paths` and `schemas`. The file is short for what OpenAPI writes at length."""
    found = yaml.safe_load(BESIDE_TES.read_text())
    assert isinstance(found, dict)
    for path in found["paths"].values():
        for operation in path.values():
            operation["tags"] = ["tesk"]
            for response in operation["responses"].values():
                response["content"] = _content(response.pop("schema"))
                if response.pop("csv", False):
                    response["content"]["text/csv"] = {"schema": {"type": "string"}}
            operation["responses"] |= {status: _error(reason) for status, reason in ERRORS.items()}
            if body := operation.get("requestBody"):
                operation["requestBody"] = {"required": True, "content": _content(body["schema"])}
        path["servers"] = [{"url": "/"}]
    return found


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _error(reason: str) -> dict[str, Any]:
    return {"description": reason, "content": _content("tesError")}


def served() -> dict[str, Any]:
    """The document that /openapi.json answers."""
    document = specification()
    accept_fractions(document)
    document["servers"] = [{"url": "/ga4gh/tes/v1"}, {"url": "/v1"}, {"url": "/"}]
    document["components"]["schemas"]["tesError"] = ERROR
    for path in document["paths"].values():
        for operation in path.values():
            success = operation["responses"]["200"]
            success["description"] = success["description"] or "OK"
            errors = {status: _error(reason) for status, reason in ERRORS.items()}
            operation["responses"] = {"200": success} | errors
    cancel = document["paths"]["/tasks/{id}:cancel"]["post"]
    cancel["requestBody"] = {
        "description": "May be empty; the media type is required all the same.",
        "content": {"application/json": {"schema": {"type": "object", "nullable": True}}},
    }
    beside = beside_tes()
    document["paths"] |= beside["paths"]
    document["components"]["schemas"] |= beside["schemas"]
    return document


def text() -> str:
    """The served document as it lies in the package."""

    def plain(value: object) -> str:
        assert isinstance(value, datetime.datetime)
        return value.isoformat()

    return json.dumps(served(), default=plain, indent=1) + "\n"


if __name__ == "__main__":
    SERVED.write_text(text())
