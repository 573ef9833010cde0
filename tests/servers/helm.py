"""Helm in its two supported major versions, as scripts/ensure builds them, and the chart as they see it."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.servers.process import program

CHART = Path(__file__).parents[2] / "charts" / "tesk"
MAJORS = (3, 4)
KUBERNETES = "1.37.0"

Manifest = dict[str, Any]


class HelmError(AssertionError):
    """Helm refused; its words."""


def helm(arguments: Sequence[str], *, major: int = 3, kubeconfig: Path | None = None) -> str:
    """What a helm command prints. Raises HelmError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tesk"
    found = program("helm", *sorted(cache.glob(f"helm-v{major}.*/helm")))
    environment = {**os.environ, "HELM_NO_PLUGINS": "1"} | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})
    done = subprocess.run(
        [found, *arguments], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


def rendered(
    values: Manifest | None = None,
    *,
    release: str = "tesk",
    namespace: str = "lab",
    major: int = 3,
    apis: Sequence[str] = (),
) -> list[Manifest]:
    """The chart's objects, its test pod among them, as some values make them. Raises HelmError.

    Everybody may call unless the values say who may.
    """
    values = values or {}
    if not any(key.partition(".")[0] == "people" for key in values):
        values = {"people.anyone": True, **values}
    arguments = ["template", release, str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES]
    arguments += [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    arguments += [f"--api-versions={api}" for api in apis]
    return [each for each in yaml.load_all(helm(arguments, major=major), Loader=yaml.CSafeLoader) if each]


def of_kind(objects: Sequence[Manifest], kind: str) -> dict[str, Manifest]:
    """The objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pod_specs(objects: Sequence[Manifest]) -> Iterator[Manifest]:
    """The specs of all pods that objects of the chart make."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["spec"]
        elif each["kind"] in ("Deployment", "Job"):
            yield each["spec"]["template"]["spec"]
