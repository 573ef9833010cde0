"""What the chart makes of its values, by both major versions of Helm; no cluster is needed for that."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from scripts.values_table import PAGE, VALUES, rows, table
from tesk import __version__
from tesk.kubernetes import manifests, names
from tesk.kubernetes.task_settings import Mount
from tesk.places.kubernetes.rights import OPTIONAL, TASKMASTER, WITH_PODS
from tesk.places.kubernetes.task_settings import task_settings
from tesk.server.exchange import Refusal
from tesk.server.origins import Hosts
from tesk.settings import Settings
from tesk.settings.load import load
from tests.chart.values import EVERYTHING, selected
from tests.servers.helm import CHART, MAJORS, HelmError, Manifest, helm, of_kind, pod_specs, rendered


def settings(objects: list[Manifest], folder: Path) -> Settings:
    """What the server makes of the chart's settings file."""
    (config,) = of_kind(objects, "ConfigMap").values()
    path = folder / "tesk.toml"
    path.write_text(config["data"]["tesk.toml"])
    return load({}, {}, path)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_both_major_versions_of_helm_render_the_same(values: Manifest) -> None:
    first, second = (rendered(values, major=major) for major in MAJORS)
    assert sorted(first, key=json.dumps) == sorted(second, key=json.dumps)


@pytest.mark.parametrize("major", MAJORS)
def test_helm_finds_nothing_to_complain_about(major: int) -> None:
    assert "0 chart(s) failed" in helm(["lint", "--strict", str(CHART), "--set=people.anyone=true"], major=major)


def test_the_chart_is_of_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_schema_is_one_and_takes_the_defaults() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_every_default_is_known_to_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Any, described: Any, path: str) -> list[str]:
        described = schema["definitions"][described["$ref"].rpartition("/")[2]] if "$ref" in described else described
        if not isinstance(values, dict) or "properties" not in described:
            return []
        wrong = [f"{path}{key}" for key in values.keys() ^ described["properties"].keys()]
        for key in values.keys() & described["properties"].keys():
            wrong += compare(values[key], described["properties"][key], f"{path}{key}.")
        return wrong

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {each for each in compare(values, schema, "") if ".probes." not in each} == {"global"}


REFUSED: list[tuple[str, Any, str]] = [
    ("imagee", {}, "imagee"),
    ("image.tagg", "1", "tagg"),
    ("image.tag", 1, "/image/tag"),
    ("image.pullPolicy", "Sometimes", "pullPolicy"),
    ("image.pullSecrets", "registry", "pullSecrets"),
    ("image.digest", "sha256:1", "digest"),
    ("fullnameOverride", "1st", "fullnameOverride"),
    ("platform", "nomad", "platform"),
    ("database.sqlite.size", 8, "size"),
    ("database.sqlite.size", "8 GiB", "size"),
    ("database.postgresql.url", "postgresql://a:b@c/d", "url"),
    ("people.anyone", "yes", "anyone"),
    ("people.trustedAddresses", "10.0.0.0/8", "trustedAddresses"),
    ("people.users", {"alice": "hash"}, "users"),
    ("serviceInfo.id", "", "id"),
    ("corsOrigins", "https://a.example.org", "corsOrigins"),
    ("tasks.maxActive", "many", "maxActive"),
    ("tasks.maxActive", -1, "maxActive"),
    ("tasks.maxActive", 1.5, "maxActive"),
    ("tasks.defaults.diskGb", 0, "diskGb"),
    ("tasks.cpuLimit", "some", "cpuLimit"),
    ("tasks.accessMode", "ReadOnlyMany", "accessMode"),
    ("tasks.podSecurity", "privileged", "podSecurity"),
    ("tasks.runAsUser", "me", "runAsUser"),
    ("tasks.labels", {"a": 1}, "labels"),
    ("tasks.nodeSelector", ["a=b"], "nodeSelector"),
    ("tasks.tolerations", [{"operator": "Exists"}], "tolerations"),
    ("tasks.tolerations", [{"key": "a", "tolerationSeconds": 5}], "tolerationSeconds"),
    ("tasks.tolerations", [{"key": "a", "effect": "Never"}], "effect"),
    ("tasks.allowedBackendParameters", ["privileged"], "allowedBackendParameters"),
    ("tasks.timeouts.start", "10m", "start"),
    ("storage.mounts", [{"path": "/a"}], "mounts"),
    ("storage.mounts", [{"path": "a", "secret": "b"}], "path"),
    ("storage.mounts", [{"path": "/a", "secret": "b", "claim": "c"}], "mounts"),
    ("storage.fileRoots", [{"path": "/a"}], "claim"),
    ("storage.fileRoots", ["/a"], "fileRoots"),
    ("extraSettings", {"max-body-bytes": 1024}, "max-body-bytes"),
    ("extraSettings", {"labels": {"a": "b"}}, "extraSettings"),
    ("extraSettings", {"kubernetes": {"labels": {"a": "b"}}}, "extraSettings"),
    ("extraSettings", {"local": {"ram_gb": 1}}, "extraSettings"),
    ("server.replicas", 2, "replicas"),
    ("server.logLevel", "loud", "logLevel"),
    ("server.resources.requests", {"memory": "192 MiB"}, "memory"),
    ("server.extraEnv", {"TZ": "UTC"}, "extraEnv"),
    ("server.probes.liveness", {"httpGet": {}}, "httpGet"),
    ("service.port", 0, "port"),
    ("service.type", "ExternalName", "type"),
    ("ingress", {"enabled": True}, "hosts"),
    ("ingress.hosts", ["tes.example.org"], "hosts"),
    ("networkPolicy.enabled", "yes", "enabled"),
    ("networkPolicy.executors.blocked", ["10.96.0.1"], "blocked"),
    ("networkPolicy.executors.blocked", ["0.0.0.0/0"], "blocked"),
    ("service.nodePort", 30080, "nodePort"),
    ("podDisruptionBudget.enabled", True, "enabled"),
]


@pytest.mark.parametrize(("key", "value", "word"), REFUSED)
def test_a_value_that_cannot_be_meant_is_refused_by_name(key: str, value: Any, word: str) -> None:
    with pytest.raises(HelmError, match=r"(?s)don't meet the specifications of the schema.*" + word):
        rendered({key: value})


OWN = (
    "tasks.engine", "server.host", "server.port", "store.data", "store.database_url", "kubernetes.instance",
    "kubernetes.image",
)  # fmt: skip


@pytest.mark.parametrize("path", OWN)
def test_what_other_objects_rest_on_is_not_for_extra_settings(path: str) -> None:
    for name in (path, path.partition(".")[2]):
        with pytest.raises(HelmError, match=f"extraSettings: {path} is the chart's own to set"):
            rendered({f"extraSettings.{name}": "x"})


SERVICE = (
    "tesk-server", "tesk-server.lab", "tesk-server.lab.svc", "tesk-server.lab.svc.cluster.local"
)  # fmt: skip
NAMED: dict[str, Any] = {
    "allowedHosts": ["tes.lab.example"],
    "ingress": {
        "enabled": True,
        "hosts": [{"host": "tes.example.org"}, {"host": "*.tes.example.org"}],
        "tls": [{"hosts": ["tes.example.org", "secure.example.org"]}, {"secretName": "default"}],
    },
    "route": {"enabled": True, "host": "tes.apps.example.org"},
}
BROWSER = {b"accept-language": b"de"}


@pytest.mark.parametrize(
    ("values", "host", "answered"),
    [
        *(({}, f"{name}:8080", True) for name in (*SERVICE, "localhost", "127.0.0.1", "10.96.0.7", "[fd00::7]")),
        ({}, "evil.example:8080", False),
        ({}, "tesk-server.lab.svc.evil.example", False),
        ({}, "tesk-server.other", False),
        ({}, "tes.example.org", False),
        *((NAMED, name, True) for name in (SERVICE[1], "tes.example.org", "a.tes.example.org", "secure.example.org")),
        *((NAMED, name, True) for name in ("tes.apps.example.org", "tes.lab.example")),
        (NAMED, "evil.example", False),
        ({**NAMED, "ingress.enabled": False}, "tes.example.org", False),
        ({"allowedHosts": ["*"]}, "evil.example", True),
    ],
)
def test_a_page_comes_by_the_names_that_the_chart_makes_known(
    values: Manifest, host: str, answered: bool, tmp_path: Path
) -> None:
    found = settings(rendered(values), tmp_path)
    hosts = Hosts(found.host, found.allowed_hosts)
    hosts.check({b"host": host.encode(), b"user-agent": b"curl/8"}, "1.1")
    if answered:
        hosts.check({b"host": host.encode(), **BROWSER}, "1.1")
    else:
        with pytest.raises(Refusal):
            hosts.check({b"host": host.encode(), **BROWSER}, "1.1")


def test_the_defaults_are_the_server_s_own(tmp_path: Path) -> None:
    found = settings(rendered(), tmp_path)
    changed = {
        name: value for name, value in msgspec.structs.asdict(found).items() if value != getattr(Settings(), name)
    }
    assert changed == {
        "anyone": True,
        "engine": "kubernetes",
        "host": "0.0.0.0",
        "data": "/data",
        "namespace": "lab",
        "max_active_tasks": 1000,
        "allowed_hosts": ("localhost", *SERVICE),
        "image": f"ghcr.io/tesk/tesk:{__version__}",
    }


def test_every_value_reaches_its_setting(tmp_path: Path) -> None:
    found = settings(rendered(EVERYTHING), tmp_path)
    chosen = task_settings(found, "lab")
    assert found.max_body_bytes == 8388608
    assert found.storage == ("s3://lab",)
    assert found.default_ram_gb == 2.5
    assert found.cors_origins == ("https://a.example.org", "https://b.example.org")
    assert found.file_roots == ("/data",)
    assert chosen.image == "registry.example.org/tesk:1"
    assert chosen.image_pull_secrets == ("registry",)
    assert (chosen.run_as_user, chosen.own_user, chosen.pod_security) == (1000, None, "restricted")
    assert chosen.labels == {"team": "a", "example.org/of": "b,c=d"}
    assert chosen.node_selector == {"pool": "tasks"}
    assert chosen.tolerations == (
        {"key": "dedicated", "operator": "Equal", "value": "tesk", "effect": "NoSchedule"},
        {"key": "gpu", "operator": "Exists"},
    )
    assert chosen.preemptible_node_selector == {"spot": "true"}
    assert chosen.preemptible_tolerations == ({"key": "spot", "operator": "Exists", "effect": "NoExecute"},)
    assert chosen.filer_environment_secret == "keys"
    assert chosen.filer_mounts == (
        Mount("/credentials", secret="lab"),
        Mount("/refs", claim="references"),
        Mount("/data", claim="lab-data"),
    )


def test_a_value_set_to_null_leaves_the_setting_alone(tmp_path: Path) -> None:
    assert settings(rendered({"tasks.retries": None, "tasks.zoneLabel": None}), tmp_path).zone_label


NAMES = [
    ("tesk", "tesk"),
    ("lab", "lab"),
    ("lab-2", "lab-2"),
    ("a" * 53, "a" * 53),
    ("2024", "tesk-2024-"),
    ("my.lab", "tesk-my-lab-"),
    ("1" * 53, "tesk-" + "1" * 40 + "-"),
    ("0" * 39 + ".a", "tesk-" + "0" * 39 + "-"),
]


@pytest.mark.parametrize(("release", "first"), NAMES)
def test_any_release_name_makes_names_that_kubernetes_takes(release: str, first: str) -> None:
    objects = rendered(EVERYTHING, release=release)
    for each in objects:
        name = each["metadata"]["name"]
        assert name.startswith(first)
        assert len(name) <= (63 if each["kind"] == "Service" else 253)
        assert name.replace("-", "").isalnum()
        assert name[0].isalpha()
        assert all(len(value) <= 63 for value in each["metadata"]["labels"].values())


@pytest.mark.parametrize("release", ["on", "true", "null", "y"])
def test_a_release_name_that_yaml_has_a_meaning_for_is_a_name(release: str) -> None:
    objects = rendered({**EVERYTHING, "fullnameOverride": release}, release=release)
    for policy in of_kind(objects, "NetworkPolicy").values():
        assert all(isinstance(value, str) for value in policy["spec"]["podSelector"]["matchLabels"].values())
    for each in objects:
        assert all(isinstance(value, str) for value in each["metadata"]["labels"].values())


def test_an_extra_setting_may_be_nothing_at_all(tmp_path: Path) -> None:
    extra = {"kubernetes": {"image_timeout_s": 0}, "storage": {"missing_outputs": "error"}, "service": {"storage": []}}
    found = settings(rendered({"extraSettings": extra, "serviceInfo.storage": ["s3://lab"]}), tmp_path)
    assert (found.image_timeout_s, found.missing_outputs, found.storage) == (0, "error", ())


def test_releases_side_by_side_have_no_name_in_common() -> None:
    taken: set[tuple[str, str]] = set()
    for release in (
        "a",
        "a-server",
        "a-tesk",
        "tesk",
        "tesk-server",
        "2024",
        "2025",
        "my.lab",
        "my-lab",
        "tesk-my-lab",
    ):
        found = {(each["kind"], each["metadata"]["name"]) for each in rendered(release=release)}
        assert not taken & found
        taken |= found


def test_releases_side_by_side_do_not_see_each_other_s_tasks(tmp_path: Path) -> None:
    instances = [settings(rendered(release=release), tmp_path).instance for release in ("a", "b", "2024", "my.lab")]
    accounts = [
        settings(rendered(release=release), tmp_path).taskmaster_service_account for release in ("a", "b", "2024")
    ]
    assert len(set(instances)) == len(instances)
    assert len(set(accounts)) == len(accounts)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_our_own_pods_pass_pod_security_restricted(values: Manifest) -> None:
    specs = list(pod_specs(rendered(values)))
    assert len(specs) == 3
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["enableServiceLinks"] is False
        assert all(
            {"configMap", "emptyDir", "persistentVolumeClaim", "secret"} & volume.keys()
            for volume in spec.get("volumes", [])
        )
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize(
    ("values", "apis", "chooses"),
    [
        ({}, [], False),
        ({}, ["security.openshift.io/v1"], True),
        ({"platform": "openshift"}, [], True),
        ({"platform": "kubernetes"}, ["security.openshift.io/v1"], False),
    ],
)
def test_on_openshift_the_platform_chooses_user_ids(
    values: Manifest, apis: list[str], chooses: bool, tmp_path: Path
) -> None:
    objects = rendered(values, apis=apis)
    assert settings(objects, tmp_path).own_user == (-1 if chooses else 65532)
    for spec in pod_specs(objects):
        assert ("runAsUser" not in spec["securityContext"]) == chooses
        assert ("fsGroup" not in spec["securityContext"]) == chooses


@pytest.mark.parametrize(
    ("mode", "role", "needed"),
    [
        ("taskmaster", "tesk-server", WITH_PODS | OPTIONAL),
        ("pod", "tesk-server", WITH_PODS | OPTIONAL),
        ("auto", "tesk-taskmaster", TASKMASTER),
    ],
)
def test_a_role_gives_what_is_needed_and_nothing_else(mode: str, role: str, needed: dict[str, tuple[str, ...]]) -> None:
    rules = of_kind(rendered({"tasks.mode": mode}), "Role")[role]["rules"]
    found = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert found == {resource: set(verbs) for resource, verbs in needed.items()}
    assert [rule["apiGroups"] for rule in rules if rule["apiGroups"] != [""]] == [["batch"]] * ("jobs" in needed)


def test_roles_are_of_the_namespace_and_bound_to_the_release_s_accounts() -> None:
    objects = rendered()
    assert not {"ClusterRole", "ClusterRoleBinding"} & {each["kind"] for each in objects}
    for name, binding in of_kind(objects, "RoleBinding").items():
        assert binding["roleRef"]["name"] == name
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "lab"}]
        assert of_kind(objects, "ServiceAccount")[name]["automountServiceAccountToken"] is False


def test_accounts_and_roles_may_be_somebody_else_s(tmp_path: Path) -> None:
    account = {"create": False, "name": "given"}
    objects = rendered({"serviceAccount": account, "taskmaster.serviceAccount": account, "rbac.create": False})
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {each["kind"] for each in objects}
    assert settings(objects, tmp_path).taskmaster_service_account == "given"
    assert of_kind(objects, "Deployment")["tesk-server"]["spec"]["template"]["spec"]["serviceAccountName"] == "given"


DATABASES = [
    ({}, True, "tesk-data", False),
    ({"database.sqlite.existingClaim": "mine"}, False, "mine", False),
    ({"database.postgresql.existingSecret": "database", "database.postgresql.key": "dsn"}, False, None, True),
]


@pytest.mark.parametrize(("values", "makes_claim", "claim", "has_url"), DATABASES)
def test_the_database_is_on_a_claim_or_named_by_a_secret(
    values: Manifest, makes_claim: bool, claim: str | None, has_url: bool
) -> None:
    objects = rendered(values)
    assert ("tesk-data" in of_kind(objects, "PersistentVolumeClaim")) == makes_claim
    deployment = of_kind(objects, "Deployment")["tesk-server"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    spec = deployment["template"]["spec"]
    claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each]
    assert claims == ([claim] if claim else [])
    environment = {each["name"]: each["valueFrom"] for each in spec["containers"][0]["env"] if "valueFrom" in each}
    wanted = {"TESK_STORE_DATABASE_URL": {"secretKeyRef": {"name": "database", "key": "dsn"}}} if has_url else {}
    assert environment == wanted


def test_the_claim_stays_when_asked_to() -> None:
    claim = of_kind(rendered({"database.sqlite.keep": True}), "PersistentVolumeClaim")["tesk-data"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_changed_setting_starts_the_server_anew() -> None:
    def of(values: Manifest) -> Any:
        return of_kind(rendered(values), "Deployment")["tesk-server"]["spec"]["template"]["metadata"]["annotations"]

    assert of({}) != of({"tasks.retries": 1})
    assert of({}) == of({"service.annotations": {"a": "b"}})


def test_budgets_keep_drains_from_the_server_and_from_tasks() -> None:
    found = of_kind(rendered(EVERYTHING), "PodDisruptionBudget")
    assert found["tesk-server"]["spec"]["maxUnavailable"] == 0
    tasks = found["tesk-tasks"]["spec"]
    assert tasks["minAvailable"] >= 1_000_000
    assert tasks["selector"]["matchLabels"].items() <= names.labels("tesk", "1m83p24e6ra00").items()


def test_an_image_is_named_by_tag_or_digest() -> None:
    digest = "sha256:" + "0" * 64
    for values, image in [
        ({}, f"ghcr.io/tesk/tesk:{__version__}"),
        ({"image.digest": digest}, f"ghcr.io/tesk/tesk@{digest}"),
    ]:
        assert {each["image"] for spec in pod_specs(rendered(values)) for each in spec["containers"]} == {image}


def test_pods_of_tasks_carry_what_policies_select_by() -> None:
    chosen = task_settings(Settings(instance="tesk", image="tesk:1"), "lab")
    job = manifests.taskmaster_job("1m83p24e6ra00", chosen, 1)
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert selected(of_kind(rendered(), "NetworkPolicy")["tesk-taskmasters"], labels)


def test_the_documented_table_is_of_the_chart_s_values() -> None:
    found = table(VALUES.read_text())
    assert found in PAGE.read_text(), "run python -m scripts.values_table"
    assert not [path for path, _, meaning in rows(VALUES.read_text()) if not meaning]


def test_every_example_of_values_in_the_documentation_is_taken() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert examples
    for example in examples:
        rendered(yaml.safe_load(example))
