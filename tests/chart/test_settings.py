"""The chart against the declaration of the settings: each has a value of equal default and type, or a reason."""

import json
import tomllib
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from tesk.settings import LOCAL, TABLE, Group, Setting
from tests.servers.helm import CHART, HelmError, Manifest, of_kind, rendered

OF_THE_CHART = "other objects of the chart rest on it"
RARE = "few change it: extraSettings"
WITHOUT_VALUE = {
    "port": OF_THE_CHART,
    "data": OF_THE_CHART,
    "engine": OF_THE_CHART,
    "instance": OF_THE_CHART,
    "namespace": OF_THE_CHART,
    "image": OF_THE_CHART,
    "own_user": "follows from the value platform",
    "database_url": "holds a password: a Secret has it",
    "report_port": OF_THE_CHART,
    "report_address": OF_THE_CHART,
    "kubeconfig": "the server is inside the cluster",
    "kube_context": "the server is inside the cluster",
    "max_body_bytes": RARE,
    "max_files": RARE,
    "kubernetes_qps": RARE,
    "max_waiting_tasks": RARE,
    "executor_capabilities": RARE,
    "transfer_allow": RARE,
    "transfer_deny": RARE,
    "credentials": RARE,
}
OTHER_DEFAULT = {
    "host": ("0.0.0.0", "clients reach a Pod from outside"),
    "max_active_tasks": (1000, "what 0 means on a cluster, where people see it"),
    "run_as_user": (None, "null is -1"),
    "taskmaster_service_account": ("", "one of the chart's own, which the release names"),
}
MAPS = {"labels", "annotations", "node_selector", "preemptible_node_selector"}
OBJECTS = {"tolerations", "preemptible_tolerations", "filer_mounts", "file_roots"}
"""Settings that the chart takes as Kubernetes writes them, where the file has lists of text."""

VALUES: Manifest = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Manifest = json.loads((CHART / "values.schema.json").read_text())
IN_CHART = [setting for setting in TABLE if setting.chart]


def value_of(setting: Setting) -> Any:
    found: Any = VALUES
    for key in setting.chart.split("."):
        found = found[key]
    return found


def schema_of(setting: Setting) -> Manifest:
    found = SCHEMA
    for key in setting.chart.split("."):
        found = resolved(found)["properties"][key]
    return resolved(found)


def resolved(schema: Manifest) -> Manifest:
    return SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def test_each_setting_has_a_value_of_the_chart_or_a_reason_why_not() -> None:
    assert {setting.name for setting in TABLE if not setting.chart and setting.group != LOCAL} == {*WITHOUT_VALUE}
    assert not [setting.name for setting in IN_CHART if setting.group == LOCAL]
    assert len({setting.chart for setting in IN_CHART}) == len(IN_CHART)


@pytest.mark.parametrize("setting", IN_CHART, ids=lambda setting: setting.path)
def test_a_value_has_the_default_of_its_setting(setting: Setting) -> None:
    default, _ = OTHER_DEFAULT.get(setting.name, (setting.default, ""))
    if setting.is_list:
        default = {} if setting.name in MAPS else list(default)
    assert value_of(setting) == default


@pytest.mark.parametrize("setting", IN_CHART, ids=lambda setting: setting.path)
def test_the_schema_takes_what_the_setting_takes(setting: Setting) -> None:
    wanted = msgspec.json.schema(setting.type)
    found = schema_of(setting)
    if setting.name == "run_as_user":
        assert found == {"type": ["integer", "null"], "minimum": 0}
    elif setting.name in MAPS:
        assert found == {"type": "object", "additionalProperties": {"type": "string"}}
    elif setting.is_list:
        kind = "object" if setting.name in OBJECTS else "string"
        assert (found["type"], resolved(found["items"])["type"]) == ("array", kind)
    elif setting.choices:
        assert {*found["enum"]} == {*setting.choices}
    else:
        bounds = ("type", "minimum", "exclusiveMinimum", "maximum")
        assert {key: found.get(key) for key in bounds} == {key: wanted.get(key) for key in bounds}


def other(setting: Setting) -> Any:
    """A value of the chart that is not the default."""
    if setting.choices and not setting.is_list:
        return next(each for each in setting.choices if each != setting.default)
    if setting.name in MAPS:
        return {"a": "b"}
    if setting.name in ("tolerations", "preemptible_tolerations"):
        return [{"key": "a", "value": "b"}]
    if setting.name in OBJECTS:
        return [{"path": f"/{setting.name}", "claim": "b"}]
    if setting.name == "anyone":
        return False  # excludes ways in; see test_people.py
    if setting.is_list:
        return ["gpu"]
    if isinstance(setting.default, bool):
        return not setting.default
    return setting.default + 2 if isinstance(setting.default, int | float) else "other"


MOUNTS = {"file_roots": ["/file_roots"], "filer_mounts": ["/filer_mounts=claim:b", "/file_roots=claim:b"]}
FILES = {
    "users_file": "/etc/tesk-users/users.toml",
    "issuers": "/etc/tesk-issuers/issuers.toml",
    "rules": "/etc/tesk-rules/rules.toml",
}
"""Files that the chart mounts from the Secret or ConfigMap that the value names."""


def test_each_value_sets_its_setting() -> None:
    chosen = {setting.chart: other(setting) for setting in IN_CHART}
    (config,) = of_kind(rendered({**chosen, "front.enabled": False}), "ConfigMap").values()
    file = tomllib.loads(config["data"]["tesk.toml"])
    for setting in IN_CHART:
        wanted = chosen[setting.chart]
        if setting.name in FILES:
            wanted = FILES[setting.name]
        elif setting.name in MAPS | OBJECTS:
            wanted = MOUNTS.get(setting.name, ["a=b"])
        found = file[setting.group.name][setting.key]
        assert (found[-1:] if setting.name == "allowed_hosts" else found) == wanted, setting.name


def test_the_file_has_no_old_name() -> None:
    (config,) = of_kind(rendered(), "ConfigMap").values()
    paths = {setting.path for setting in TABLE}
    assert {line.partition(" = ")[0] for line in config["data"]["tesk.toml"].splitlines()} <= paths


@pytest.mark.parametrize("group", dict.fromkeys(setting.group for setting in TABLE), ids=lambda group: group.name)
def test_extra_settings_are_in_the_groups_that_a_cluster_has(group: Group) -> None:
    refused = list(jsonschema.Draft7Validator(SCHEMA).iter_errors({"extraSettings": {group.name: {"name": 1}}}))
    assert bool(refused) == (group == LOCAL)


def test_an_extra_setting_may_have_its_old_name() -> None:
    extra = {"retries": 2, "storage": ["s3://lab"], "max_files": 5}
    (config,) = of_kind(rendered({"extraSettings": extra}), "ConfigMap").values()
    file = tomllib.loads(config["data"]["tesk.toml"])
    assert (file["kubernetes"]["retries"], file["kubernetes"]["taskmaster_retries"]) == (2, 20)
    assert (file["service"]["storage"], file["max_files"]) == (["s3://lab"], 5)


def test_an_extra_setting_by_both_its_names_is_refused() -> None:
    with pytest.raises(HelmError, match=r"extraSettings: retries: kubernetes\.retries sets the same"):
        rendered({"extraSettings": {"retries": 2, "kubernetes": {"retries": 2}}})
