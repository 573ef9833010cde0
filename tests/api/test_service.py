"""What the server says about itself: service-info in both forms, health, the API description."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

import tesk
from tesk.server.service import storage
from tesk.settings import Settings
from tests.api.conftest import Running, running
from tests.spec import served


def valid(document: object, schema: str) -> None:
    """Holds a document against a schema of the published specification."""
    components = json.loads(json.dumps(served.specification()["components"], default=str))
    jsonschema.validate(document, {"$ref": f"#/components/schemas/{schema}", "components": components})


@pytest.mark.parametrize("prefix", ["/ga4gh/tes/v1", "/v1", ""])
def test_service_info_is_the_full_document(client: httpx.Client, prefix: str) -> None:
    info = client.get(prefix + "/service-info").json()
    valid(info, "tesServiceInfo")
    assert info["type"] == {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"}
    assert info["version"] == tesk.__version__
    assert info["organization"]["url"].startswith("https://")
    assert info["tesResources_backend_parameters"] == ["VmSize"]
    assert None not in info.values()


# 2: py-tes 0.4.2
@pytest.mark.parametrize("prefix", ["/ga4gh/tes/v1", "/v1", ""])
def test_the_old_service_info_has_three_keys(client: httpx.Client, prefix: str) -> None:
    assert set(client.get(prefix + "/tasks/service-info").json()) == {"name", "doc", "storage"}


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any cloud's credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("nobody")
def test_service_info_is_what_was_configured(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    settings: dict[str, Any] = {
        "service_id": "org.example.tes",
        "service_name": "our TES",
        "service_description": "of the lab",
        "organization_name": "the lab",
        "organization_url": "https://lab.example.org",
        "file_roots": (str(tmp_path / "a b"), "/data/"),
        "storage": ("s3://bucket", "sftp://lab/data/"),
        "credentials": (str(tmp_path / "stores.toml"), "/only/where/filers/run.toml"),
    }
    (tmp_path / "stores.toml").write_text(
        '["sftp://lab/data/"]\npassword = "very-secret"\n["https://me:very-secret@data.org"]\ntoken = "very-secret"\n'
    )
    with running(tmp_path, **settings) as server:
        info = server.client.get("/v1/service-info").json()
        old = server.client.get("/v1/tasks/service-info").json()
    assert (info["id"], info["name"], info["description"]) == ("org.example.tes", "our TES", "of the lab")
    assert info["organization"] == {"name": "the lab", "url": "https://lab.example.org"}
    told = ["sftp://lab/data/", "https://data.org"]
    assert info["storage"] == [f"file://{tmp_path}/a%20b", "file:///data", *told, "s3://bucket"]
    assert old == {"name": "our TES", "doc": "of the lab", "storage": info["storage"]}


@pytest.mark.usefixtures("nobody")
def test_service_info_lists_what_the_rules_open_to_all(tmp_path: Path) -> None:
    (tmp_path / "stores.toml").write_text("".join(f'["{url}"]\n' for url in ("s3://lab-a", "s3://else", "s3://open/x")))
    (tmp_path / "rules.toml").write_text(
        '[storage."s3://lab-a"]\ngroups = ["lab-a"]\n[storage."s3://open"]\n[storage."https://open.test/"]\n'
    )
    settings: dict[str, Any] = {"credentials": (str(tmp_path / "stores.toml"),), "rules": str(tmp_path / "rules.toml")}
    with running(tmp_path, **settings) as server:
        listed = server.client.get("/v1/service-info").json()["storage"]
        assert listed == ["s3://else", "s3://open/x", "s3://open", "https://open.test/"]
        assert server.client.get("/v1/tasks/service-info").json()["storage"] == listed


AWS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
AZURE = {"AZURE_STORAGE_ACCOUNT_NAME": "lab", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}


@pytest.mark.parametrize(
    ("environment", "settings", "listed"),
    [
        ({}, {}, []),
        (AWS, {}, ["s3://"]),
        ({**AWS, "AWS_SKIP_SIGNATURE": "true"}, {}, []),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, {}, ["s3://"]),
        ({"AWS_PROFILE": "lab"}, {}, ["s3://"]),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "{home}/key.json"}, {}, ["gs://"]),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/none"}, {}, []),
        (AZURE, {}, ["az://"]),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "lab"}, {}, []),
        (AWS, {"engine": "kubernetes", "storage": ("s3://lab",)}, ["s3://lab"]),  # filers have another environment
        (AWS, {"storage": ("s3://",), "file_roots": ("/data",)}, ["file:///data", "s3://"]),
        ({}, {"credentials": ("{home}/stores.toml",)}, ["s3://lab", "sftp://lab/d", "https://data.org"]),
        (
            {},
            {"credentials": ("{home}/stores.toml",), "transfer_deny": ("lab",)},
            ["s3://lab", "https://data.org"],
        ),
        (
            {},
            {"credentials": ("{home}/stores.toml",), "transfer_allow": ("lab",)},
            ["s3://lab", "sftp://lab/d"],
        ),
        (
            {},
            {"credentials": ("{home}/stores.toml",), "transfer_allow": ("10.0.0.0/8",)},
            ["s3://lab", "sftp://lab/d", "https://data.org"],
        ),
    ],
)
def test_storage_is_what_is_configured_and_can_work(
    environment: dict[str, str], settings: dict[str, Any], listed: list[str], tmp_path: Path
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[lab]\naws_access_key_id = id\naws_secret_access_key = key\n")
    (tmp_path / "key.json").write_text('{"type": "service_account"}')
    (tmp_path / "stores.toml").write_text(
        '["s3://lab"]\n["sftp://lab/d"]\n["https://me:secret@data.org"]\n["gopher://lab"]\n["file://localhost/"]\n'
    )

    def here(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(here, value))
        return value.replace("{home}", str(tmp_path))

    environ = {"HOME": str(tmp_path), **{name: here(value) for name, value in environment.items()}}
    chosen = Settings(**{name: here(value) for name, value in settings.items()})
    assert storage(chosen, environ) == listed


def test_health_and_readiness(server: Running) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ok"}
    server.engine.reason = "no container engine answers"
    try:
        answer = server.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"status_code": 503, "msg": "no container engine answers"}
        assert server.client.get("/healthz").status_code == 200
    finally:
        server.engine.reason = None


def test_the_root_says_where_the_api_is(client: httpx.Client) -> None:
    where = client.get("/").json()
    assert client.get(where["api"] + "/service-info").status_code == 200
    assert client.get(where["openapi"]).status_code == 200


def test_the_api_description_is_the_specification_and_what_differs(client: httpx.Client) -> None:
    assert served.SERVED.read_text() == served.text(), "run: python -m tests.spec.served"
    description = client.get("/openapi.json").json()
    published = json.loads(json.dumps(served.specification(), default=lambda moment: moment.isoformat()))
    assert description["paths"].keys() == published["paths"].keys() | served.beside_tes()["paths"].keys()
    for name, schema in published["components"]["schemas"].items():
        if name != "tesResources":
            assert description["components"]["schemas"][name] == schema
    ours, theirs = (d["components"]["schemas"]["tesResources"]["properties"] for d in (description, published))
    assert {name for name in theirs if ours[name] != theirs[name]} == {"cpu_cores"}


def test_the_api_description_has_every_route_beside_tes(tmp_path: Path) -> None:
    with running(tmp_path, trusted_addresses=("127.0.0.1/32",)) as server:
        routes = {f"{path}/{{id}}": methods for path, methods in server.app._items.items()} | server.app._routes
    described = {path: {name.upper() for name in each} for path, each in served.beside_tes()["paths"].items()}
    beside = {path: methods.keys() - {"HEAD"} for path, methods in routes.items() if path.startswith("/api/")}
    assert beside == {path: names - {"SERVERS"} for path, names in described.items()}


def test_replies_are_valid_by_the_published_schemas(server: Running) -> None:
    document = {
        "name": "of the published schemas",
        "executors": [{"image": "alpine", "command": ["true"], "env": {"A": "b"}}],
        "inputs": [{"path": "/in", "content": "x"}],
        "outputs": [{"path": "/out", "url": "s3://b/k", "type": "DIRECTORY"}],
        "resources": {"cpu_cores": 2, "ram_gb": 0.5, "zones": ["z"], "backend_parameters": {"VmSize": "1"}},
        "tags": {"a": "b"},
    }
    created = server.client.post("/v1/tasks", json=document).json()
    valid(created, "tesCreateTaskResponse")
    for view in ("MINIMAL", "BASIC", "FULL"):
        valid(server.client.get(f"/v1/tasks/{created['id']}?view={view}").json(), "tesTaskView")
        valid(server.client.get(f"/v1/tasks?view={view}&name_prefix=of%20the").json(), "tesListTasksResponse")
    valid(server.client.post(f"/v1/tasks/{created['id']}:cancel", json={}).json(), "tesCancelTaskResponse")
