"""Who reaches whom by what the chart makes: network policies, services, the front, ingress and route."""

import pytest

from tesk.kubernetes import names
from tests.chart.values import EVERYTHING, selected
from tests.servers.helm import Manifest, of_kind, rendered


@pytest.mark.parametrize(
    ("role", "policies"),
    [
        (names.TASKMASTER, {"tesk-tasks", "tesk-taskmasters"}),
        (names.EXECUTOR_ROLE, {"tesk-tasks", "tesk-executors"}),
        (names.INPUTS, {"tesk-tasks"}),
        (names.OUTPUTS, {"tesk-tasks"}),
        (names.TASK_POD, {"tesk-tasks", "tesk-executors"}),
    ],
)
def test_network_policies_are_about_the_pods_of_this_release_s_tasks(role: str, policies: set[str]) -> None:
    found = of_kind(rendered(), "NetworkPolicy")
    mine, other = (names.labels(instance, "1m83p24e6ra00", role) for instance in ("tesk", "other"))
    assert {name for name, policy in found.items() if selected(policy, mine)} == policies
    assert not {name for name, policy in found.items() if selected(policy, other)}
    server = of_kind(rendered(), "Deployment")["tesk-server"]["spec"]["template"]["metadata"]["labels"]
    assert not {name for name, policy in found.items() if selected(policy, server)}


def test_executors_reach_their_taskmaster_and_the_internet_but_not_the_cluster() -> None:
    taskmaster, names_, internet = of_kind(rendered(), "NetworkPolicy")["tesk-executors"]["spec"]["egress"]
    assert taskmaster["ports"] == [{"protocol": "TCP", "port": names.MESSAGE_PORT}]
    assert selected({"spec": taskmaster["to"][0]}, names.labels("tesk", "1m83p24e6ra00", names.TASKMASTER))
    assert {each["port"] for each in names_["ports"]} == {53, 5353}
    four, six = (each["ipBlock"] for each in internet["to"])
    assert (four["cidr"], six["cidr"]) == ("0.0.0.0/0", "::/0")
    assert {"169.254.0.0/16", "10.0.0.0/8"} <= set(four["except"])
    assert {"fe80::/10", "fc00::/7"} == set(six["except"])


def test_what_executors_may_not_reach_can_be_named_exactly() -> None:
    values = {"networkPolicy.executors.blocked": ["169.254.0.0/16", "203.0.113.7/32"]}
    internet = of_kind(rendered(values), "NetworkPolicy")["tesk-executors"]["spec"]["egress"][-1]
    assert internet["to"] == [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16", "203.0.113.7/32"]}},
        {"ipBlock": {"cidr": "::/0"}},
    ]


def test_taskmasters_hear_only_the_pods_of_their_release() -> None:
    (rule,) = of_kind(rendered(), "NetworkPolicy")["tesk-taskmasters"]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": names.MESSAGE_PORT}]
    (peer,) = rule["from"]
    assert selected({"spec": peer}, names.labels("tesk", "1m83p24e6ra00", names.INPUTS))
    assert not selected({"spec": peer}, names.labels("other", "1m83p24e6ra00", names.INPUTS))


def test_a_pod_of_a_whole_task_reports_to_the_server_and_reaches_where_its_files_are() -> None:
    storage = {"ipBlock": {"cidr": "10.1.0.0/16"}}
    objects = rendered(
        {"tasks.mode": "auto", "networkPolicy.pods.to": [storage], "networkPolicy.server.from": [storage]}
    )
    of_pod = names.labels("tesk", "1m83p24e6ra00", names.TASK_POD)
    policies = of_kind(objects, "NetworkPolicy")
    assert {name for name, each in policies.items() if selected(each, of_pod)} == {
        "tesk-tasks",
        "tesk-executors",
        "tesk-pods",
    }
    reports, files = policies["tesk-pods"]["spec"]["egress"]
    assert selected({"spec": reports["to"][0]}, pod_labels(objects, "tesk-server"))
    assert files["to"] == [storage]
    heard = policies["tesk-server"]["spec"]["ingress"][-1]
    assert selected({"spec": heard["from"][0]}, of_pod)
    assert heard["ports"] == reports["ports"] == [{"protocol": "TCP", "port": "reports"}]


def test_a_closed_server_still_hears_its_front_and_its_own_test() -> None:
    objects = rendered({"networkPolicy.server.from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]})
    peers = of_kind(objects, "NetworkPolicy")["tesk-server"]["spec"]["ingress"][0]["from"]
    test = of_kind(objects, "Pod")["tesk-hello"]["metadata"]["labels"]
    assert selected({"spec": peers[-1]}, test)
    assert selected({"spec": peers[-1]}, pod_labels(objects, "tesk-front"))
    assert not selected({"spec": peers[-1]}, names.labels("tesk", "1m83p24e6ra00", names.EXECUTOR_ROLE))


def test_without_network_policies_there_are_none() -> None:
    assert not of_kind(rendered({"networkPolicy.enabled": False}), "NetworkPolicy")


def pod_labels(objects: list[Manifest], deployment: str) -> dict[str, str]:
    found: dict[str, str] = of_kind(objects, "Deployment")[deployment]["spec"]["template"]["metadata"]["labels"]
    return found


@pytest.mark.parametrize(
    ("values", "service", "leads_to"),
    [
        ({}, "tesk-server", "tesk-front"),
        ({}, "tesk-upstream", "tesk-server"),
        ({"front.enabled": False}, "tesk-server", "tesk-server"),
        ({"tasks.mode": "pod"}, "tesk-reports", "tesk-server"),
    ],
)
def test_services_lead_where_they_should_and_nowhere_else(values: Manifest, service: str, leads_to: str) -> None:
    objects = rendered(values)
    spec = of_kind(objects, "Service")[service]["spec"]
    pods = {name: pod_labels(objects, name) for name in of_kind(objects, "Deployment")}
    pods |= {name: each["metadata"]["labels"] for name, each in of_kind(objects, "Pod").items()}
    assert {name for name, labels in pods.items() if spec["selector"].items() <= labels.items()} == {leads_to}
    assert spec.get("publishNotReadyAddresses", False) == (leads_to == "tesk-server")


def test_the_front_passes_on_to_the_server() -> None:
    objects = rendered({"front.replicas": 2, "front.waitSeconds": 30, "front.drainSeconds": 15})
    front = of_kind(objects, "Deployment")["tesk-front"]["spec"]
    assert front["replicas"] == 2
    assert front["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert {"--to=tesk-upstream:80", "--wait=30"} <= set(front["template"]["spec"]["containers"][0]["args"])
    assert front["template"]["spec"]["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 15}}}
    assert front["template"]["spec"]["terminationGracePeriodSeconds"] == 40
    assert front["template"]["spec"]["automountServiceAccountToken"] is False
    assert "tesk-front" not in of_kind(rendered({"front.enabled": False}), "Deployment")


def test_probes_are_answered_whatever_host_names_are_allowed() -> None:
    (container,) = of_kind(rendered(EVERYTHING), "Deployment")["tesk-server"]["spec"]["template"]["spec"]["containers"]
    paths = {}
    for probe in ("startup", "liveness", "readiness"):
        asked = container[f"{probe}Probe"]["httpGet"]
        paths[probe] = asked["path"]
        assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_ingress_and_route_lead_to_the_service() -> None:
    objects = rendered(EVERYTHING)
    (rule,) = of_kind(objects, "Ingress")["tesk-server"]["spec"]["rules"]
    assert rule["host"] == "tes.example.org"
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "tesk-server", "port": {"name": "http"}}
    route = of_kind(objects, "Route")["tesk-server"]["spec"]
    assert (route["to"]["name"], route["port"]["targetPort"]) == ("tesk-server", "http")
    assert not {"Ingress", "Route", "PodDisruptionBudget"} & {each["kind"] for each in rendered()}
