"""Requests and limits within what a namespace allows, held against the rules by which Kubernetes admits pods."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesk.kubernetes import bounds
from tesk.kubernetes.bounds import Bounds, Item, Range, quantity

Pod = dict[str, Any]
OWN = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}
REPORTER = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}


def pod(**containers: Any) -> Pod:
    return {"containers": [{"name": name, "resources": resources} for name, resources in containers.items()]}


def executor(cpu: str, memory: str, *, has_limit: bool = False) -> Pod:
    """`has_limit`: of the memory that is asked for."""
    limits = {"memory": memory} if has_limit else {}
    return pod(reporter=REPORTER, executor={"requests": {"cpu": cpu, "memory": memory}, "limits": limits})


def namespace(*items: Item, limited: tuple[str, ...] = ()) -> Bounds:
    return Bounds((Range("lab", items),), limited)


def admitted(spec: Pod, within: Bounds) -> list[str]:
    """What Kubernetes would refuse a pod for: plugin/pkg/admission/limitranger, after the API's own defaults."""
    items = [item for each in within.ranges for item in each.items]
    containers = [{of: dict(each["resources"][of]) for of in ("requests", "limits")} for each in spec["containers"]]
    for each in containers:
        each["requests"] = each["limits"] | each["requests"]
        for item in items:
            if item.type == "Container":
                default = item.max | item.default
                each["limits"] = default | each["limits"]
                each["requests"] = item.min | default | each["requests"]
    faults = [
        f"{name}: request above limit"
        for each in containers for name, limit in each["limits"].items()
        if quantity(each["requests"].get(name, "0")) > quantity(limit)
    ]  # fmt: skip
    faults += [f"no limit of {name}" for each in containers for name in within.limited if name not in each["limits"]]
    total = {of: _sum([each[of] for each in containers]) for of in ("requests", "limits")}
    single = [{of: {k: quantity(v) for k, v in each[of].items()} for of in each} for each in containers]
    for item in items:
        for each in {"Container": single, "Pod": [total]}.get(item.type, []):
            faults += _broken(item, each["requests"], each["limits"])
    return faults


def _sum(lists: list[dict[str, str]]) -> dict[str, Fraction]:
    return {name: sum((quantity(each.get(name, "0")) for each in lists), Fraction(0)) for one in lists for name in one}


def _broken(item: Item, requests: dict[str, Fraction], limits: dict[str, Fraction]) -> list[str]:
    faults = []
    for name, least in item.min.items():
        if requests.get(name, Fraction(-1)) < quantity(least) or limits.get(name, quantity(least)) < quantity(least):
            faults.append(f"{item.type}: {name} is below {least}: {requests.get(name)}, {limits.get(name)}")
    for name, most in item.max.items():
        if name not in limits or limits[name] > quantity(most):
            faults.append(f"{item.type}: {name} is above {most}: {limits.get(name)}")
    for name, ratio in item.max_limit_request_ratio.items():
        if not requests.get(name) or name not in limits or limits[name] / requests[name] > quantity(ratio):
            faults.append(f"{item.type}: {name} is above the ratio {ratio}: {requests.get(name)}, {limits.get(name)}")
    return faults


@pytest.mark.parametrize(
    ("spec", "within", "asked", "found"),
    [
        # what concerns none of our resources changes nothing
        (executor("1000m", "1024Mi"), namespace(Item("Container", default={"ephemeral-storage": "4Mi"})), {}, None),
        (executor("1000m", "1024Mi"), namespace(Item("PersistentVolumeClaim", max={"storage": "1Gi"})), {}, None),
        # a default below the request does not apply
        (
            executor("1000m", "1024Mi"), namespace(Item("Container", default={"cpu": "50m", "memory": "64Mi"})), {},
            {"reporter": ("10m", "200m", "16Mi", "64Mi"), "executor": ("1000m", "1000m", "1024Mi", "1024Mi")},
        ),
        # one above it does
        (
            executor("1000m", "1024Mi"), namespace(Item("Container", default={"cpu": "4", "memory": "4Gi"})), {},
            {"reporter": ("10m", "4000m", "16Mi", "64Mi"), "executor": ("1000m", "4000m", "1024Mi", "4096Mi")},
        ),
        # a minimum is had
        (
            executor("50m", "64Mi", has_limit=True),
            namespace(Item("Container", min={"cpu": "100m", "memory": "100Mi"})),
            {"cpu": "50m", "memory": "64Mi"},
            {"reporter": ("100m", None, "100Mi", "100Mi"), "executor": ("100m", None, "100Mi", "100Mi")},
        ),
        # what nobody asked for gives way to a maximum, what somebody did is left for the API to refuse
        (
            executor("280m", "1024Mi"), namespace(Item("Container", max={"cpu": "200m", "memory": "512Mi"})), {},
            {"reporter": ("10m", "200m", "16Mi", "64Mi"), "executor": ("200m", "200m", "512Mi", "512Mi")},
        ),
        (
            executor("280m", "1024Mi", has_limit=True), namespace(Item("Container", max={"memory": "512Mi"})),
            {"memory": "1024Mi"},
            {"reporter": ("10m", None, "16Mi", "64Mi"), "executor": ("280m", None, "1024Mi", "1024Mi")},
        ),
        # ratios: our own containers ask for more, executors are limited to less
        (
            executor("100m", "256Mi"),
            namespace(
                Item("Container", max={"cpu": "2", "memory": "1Gi"}),
                Item("Container", max_limit_request_ratio={"cpu": "2", "memory": "2"}),
            ),
            {},
            {"reporter": ("100m", "200m", "32Mi", "64Mi"), "executor": ("100m", "200m", "256Mi", "512Mi")},
        ),
        # the containers of a pod together
        (
            executor("100m", "256Mi"),
            namespace(Item("Pod", max={"cpu": "1", "memory": "300Mi"}, min={"cpu": "500m"})),
            {},
            {"reporter": ("10m", "200m", "16Mi", "64Mi"), "executor": ("490m", "800m", "236Mi", "236Mi")},
        ),
        (
            pod(taskmaster=OWN), namespace(Item("Pod", min={"memory": "200Mi"})), {},
            {"taskmaster": ("10m", None, "200Mi", "200Mi")},
        ),
        # a quota wants limits: executors get what they ask for
        (
            executor("100m", "256Mi"), Bounds(limited=("cpu", "memory")), {},
            {"reporter": ("10m", "200m", "16Mi", "64Mi"), "executor": ("100m", "100m", "256Mi", "256Mi")},
        ),
    ],
)  # fmt: skip
def test_a_pod_is_made_to_fit(spec: Pod, within: Bounds, asked: dict[str, str], found: Any) -> None:
    made = bounds.fitted(spec, within, asked)
    if found is None:
        assert made == spec
        return
    shown = {}
    for each in made["containers"]:
        requests, limits = each["resources"]["requests"], each["resources"]["limits"]
        shown[each["name"]] = (requests["cpu"], limits.get("cpu"), requests["memory"], limits.get("memory"))
    assert shown == found
    if asked.get("memory") != "1024Mi":
        assert admitted(made, within) == []


def test_a_default_of_devices_gives_none_to_who_asks_for_none() -> None:
    spec = pod(reporter=REPORTER, executor={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"lab/gpu": "1"}})
    made = bounds.fitted(spec, namespace(Item("Container", max={"lab/gpu": "4"})), {})
    assert [each["resources"]["limits"].get("lab/gpu") for each in made["containers"]] == ["0", "1"]
    assert [each["resources"]["requests"].get("lab/gpu") for each in made["containers"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("asked", "is_asked", "size"),
    [(50, False, "100Mi"), (50, True, "100Mi"), (500, True, "500Mi"), (3000, False, "2048Mi"), (3000, True, "3000Mi")],
)
def test_a_claim_is_within_bounds_where_its_task_does_not_ask_for_more(asked: int, is_asked: bool, size: str) -> None:
    within = namespace(Item("PersistentVolumeClaim", min={"storage": "100Mi"}, max={"storage": "2Gi"}))
    assert bounds.claim_size(asked, within, is_asked=is_asked) == size


def test_ephemeral_storage_that_a_pod_must_limit_is_for_the_most_part_the_executors() -> None:
    made = bounds.fitted(executor("1", "1Gi"), namespace(Item("Pod", max={"ephemeral-storage": "1Gi"})), {})
    assert [each["resources"]["limits"]["ephemeral-storage"] for each in made["containers"]] == ["128Mi", "896Mi"]


@st.composite
def items(draw: st.DrawFn) -> Item:
    """A LimitRange's item of which some part can hold our containers: 2 cores and 1 GiB at most, and more."""
    kind = draw(st.sampled_from(["Container", "Pod"]))
    fields: dict[str, dict[str, str]] = {"max": {}, "min": {}, "default": {}, "max_limit_request_ratio": {}}
    for name, unit in (("cpu", "m"), ("memory", "Mi")):
        least, default, most = sorted(draw(st.lists(st.integers(1, 3000), min_size=3, max_size=3)))
        for field, value in (("min", least), ("default", default), ("max", max(1200, most))):
            if draw(st.booleans()) and (kind == "Container" or field != "default"):
                fields[field][name] = f"{min(value, 1000) if field == 'min' else value}{unit}"
        if draw(st.booleans()):
            fields["max_limit_request_ratio"][name] = draw(st.sampled_from(["1", "1.5", "2", "3.3", "10"]))
    return Item(kind, **fields)


@given(
    found=st.lists(items(), max_size=2), limited=st.sampled_from([(), ("cpu",), ("cpu", "memory")]),
    cpu=st.integers(1, 900), memory=st.integers(8, 900), is_asked=st.booleans(),
)  # fmt: skip
def test_whatever_fits_is_admitted(
    found: list[Item], limited: tuple[str, ...], cpu: int, memory: int, is_asked: bool
) -> None:
    within = Bounds((Range("lab", tuple(found)),), limited)
    needs = {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
    asked = needs if is_asked else {}
    filer = pod(filer={"requests": needs, "limits": {"memory": f"{max(256, memory)}Mi"}})
    pods = [pod(taskmaster=OWN), filer]
    if len({item.type for item in found}) < 2:  # else two containers may have more than a pod may have
        pods.append(executor(**needs, has_limit=is_asked))
    for spec in pods:
        made = bounds.fitted(spec, within, asked)
        assert admitted(made, within) == []
        if spec["containers"][0]["name"] != "taskmaster":
            got = made["containers"][-1]["resources"]["requests"]
            assert all(quantity(got[name]) >= quantity(amount) for name, amount in asked.items())
