"""Which images and volumes the rules let whom use, over HTTP on a running server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tesk.identity import SERVER
from tesk.store.base import Row
from tests.api.conftest import Running, running
from tests.servers.cluster import until

RULES = """
[storage."s3://lab-a"]
groups = ["lab-a"]
[storage."s3://open"]

[volumes.genomes]
path = "/refs/genomes"
folder = "/srv/genomes"
[volumes.private]
path = "/refs/private"
folder = "/srv/private"
groups = ["lab-a"]

[images]
allow = ["quay.io/biocontainers/*", "registry.example.org/{group}/*"]
"""


def start(folder: Path, rules: str = RULES, **settings: Any) -> Any:
    (folder / "rules.toml").write_text(rules)
    return running(folder, rules=str(folder / "rules.toml"), **settings)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("rules"), trusted_addresses=("127.0.0.1/32",)) as started:
        yield started


def ask(server: Running, user: str, method: str, path: str, **more: Any) -> httpx.Response:
    name, _, groups = user.partition("@")
    headers = {"X-Forwarded-User": name, "X-Forwarded-Groups": groups}
    return server.client.request(method, path, headers=headers, **more)


def post(server: Running, user: str, *images: str, **more: Any) -> httpx.Response:
    executors = [{"image": image, "command": ["true"]} for image in images]
    return ask(server, user, "POST", "/v1/tasks", json={"executors": executors, **more})


def test_an_image_that_no_pattern_covers_is_refused_and_named(server: Running) -> None:
    allowed = "registry.example.org/lab-a/tool:1"
    assert post(server, "ann@lab-a", allowed, "quay.io/biocontainers/samtools").status_code == 200
    refused = post(server, "ann@lab-a", allowed, "ubuntu")
    assert (refused.status_code, refused.json()["field"]) == (403, "executors[1].image")
    assert refused.json()["msg"] == (
        "you may not run 'docker.io/library/ubuntu:latest' here; you may run: quay.io/biocontainers/*, "
        "registry.example.org/lab-a/*"
    )
    assert post(server, "ben@lab-b", allowed).status_code == 403
    assert post(server, "cy", "docker://quay.io/biocontainers/samtools").status_code == 200


def test_an_image_without_a_digest_is_refused_where_only_digests_may_be_run(tmp_path: Path) -> None:
    with start(tmp_path, "[images]\ndigests_only = true") as server:
        assert post(server, "", "ubuntu:22.04").status_code == 403
        assert post(server, "", "ubuntu@sha256:" + "ab" * 32).status_code == 200


def test_everybody_is_told_what_is_theirs(server: Running) -> None:
    assert ask(server, "ann@lab-a", "GET", "/api/v1/capabilities").json() == {
        "volumes": [{"name": "genomes", "path": "/refs/genomes"}, {"name": "private", "path": "/refs/private"}],
        "storage": ["s3://lab-a", "s3://open"],
        "images": ["quay.io/biocontainers/*", "registry.example.org/lab-a/*"],
        "digests_only": False,
    }
    assert ask(server, "ben@lab-b", "GET", "/api/v1/capabilities").json() == {
        "volumes": [{"name": "genomes", "path": "/refs/genomes"}],
        "storage": ["s3://open"],
        "images": ["quay.io/biocontainers/*", "registry.example.org/lab-b/*"],
        "digests_only": False,
    }
    assert server.client.get("/api/v1/capabilities").status_code == 401


def test_without_rules_all_images_may_be_run(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        found = server.client.get("/api/v1/capabilities").json()
    assert found == {"volumes": [], "storage": [], "images": ["*"], "digests_only": False}


def test_whoami_shows_what_one_may_use(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TESK_")}
        command, environment = [sys.executable, "-m", "tesk", "whoami"], {**plain, "TESK_SERVER": server.url}
        words = subprocess.run([*command, "--table"], capture_output=True, text=True, env=environment, timeout=60)
        as_json = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert words.stdout.splitlines() == [
        "this server asks nobody to sign in",
        "storage  s3://open",
        "volumes  genomes at /refs/genomes",
        "images   quay.io/biocontainers/*",
    ]
    assert json.loads(as_json.stdout)["capabilities"]["images"] == ["quay.io/biocontainers/*"]


def test_a_path_that_a_volume_of_the_callers_needs_is_refused_and_named(server: Running) -> None:
    image, inputs = "quay.io/biocontainers/samtools", [{"path": "/refs/private/x", "content": "x"}]
    refused = post(server, "ann@lab-a", image, inputs=inputs)
    assert (refused.status_code, refused.json()["field"]) == (400, "inputs[0].path")
    assert "'/refs/private/x' lies below '/refs/private', where this server mounts reference data" in refused.text
    assert post(server, "ben@lab-b", image, inputs=inputs).status_code == 200


def test_a_task_is_given_the_volumes_that_its_caller_may_use_when_it_is_made(server: Running) -> None:
    task_id = post(server, "ann@lab-a", "quay.io/biocontainers/samtools").json()["id"]
    row = server.do(server.store.get(task_id, "FULL", SERVER))
    assert isinstance(row, Row)
    assert row.grants.volumes == ("genomes", "private")


def test_a_queued_task_in_whose_way_a_volume_has_come_ends_and_says_so(tmp_path: Path) -> None:
    with start(tmp_path) as server:
        made = post(server, "", "quay.io/biocontainers/samtools", inputs=[{"path": "/in/x", "content": "x"}])
    with start(tmp_path, RULES.replace("/refs/genomes", "/in/genomes")) as server:
        task_id = made.json()["id"]
        server.engine.room = 1
        server.dispatcher.wake()
        until(lambda: server.client.get(f"/v1/tasks/{task_id}").json()["state"] == "SYSTEM_ERROR", 20, "its end")
        logs = server.client.get(f"/v1/tasks/{task_id}?view=FULL").json()["logs"]
    assert "inputs[0].path: '/in' holds '/in/genomes', where this server mounts reference data" in str(logs)
    assert server.engine.submitted.empty()
