"""Who may call, as the chart's values say it: no release without an answer, secrets from Secrets alone."""

from typing import Any

import pytest

from tests.servers.helm import HelmError, Manifest, of_kind, pod_specs, rendered

NOBODY = "nobody has to sign in"
CONTRADICTION = "lets everybody in"
BEHIND_FRONT = r"set front\.enabled=false"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"people.anyone": False}, NOBODY),
        ({"people.anyone": False, "people.tokens": "beside"}, NOBODY),
        ({"people.anyone": True, "people.tokens": "alone"}, CONTRADICTION),
        ({"people.anyone": True, "people.usersSecret": "users"}, CONTRADICTION),
        ({"people.anyone": True, "extraSettings": {"people": {"users_file": "/users.toml"}}}, CONTRADICTION),
        ({"people.trustedAddresses": ["10.0.0.7/32"]}, BEHIND_FRONT),
    ],
)
def test_a_release_that_lets_in_nobody_knows_whom_is_refused(values: Manifest, why: str) -> None:
    with pytest.raises(HelmError, match=why):
        rendered(values)


@pytest.mark.parametrize(
    "values",
    [
        {"people.anyone": True},
        {"people.usersSecret": "users"},
        {"people.issuersSecret": "issuers"},
        {"people.anyone": False, "people.tokens": "alone"},
        {"people.trustedAddresses": ["10.0.0.7/32"], "front.enabled": False},
        {"people.anyone": False, "extraSettings": {"people": {"users_file": "/users.toml"}}},
        {"people.anyone": False, "extraSettings": {"people": {"anyone": True}}},
    ],
)
def test_one_answer_is_enough(values: Manifest) -> None:
    assert rendered(values)


@pytest.mark.parametrize(
    ("value", "path"), [("usersSecret", "/etc/tesk-users"), ("issuersSecret", "/etc/tesk-issuers")]
)
def test_a_secret_is_seen_by_the_server_and_by_no_other_pod(value: str, path: str) -> None:
    objects = rendered({f"people.{value}": "ours", "test.tokenSecret": "token"})
    (server,) = (each["spec"]["template"]["spec"] for each in server_of(objects))
    names = [each["name"] for each in server["volumes"] if each.get("secret", {}).get("secretName") == "ours"]
    mounts = [each for each in server["containers"][0]["volumeMounts"] if each["name"] in names]
    assert [(each["mountPath"], each["readOnly"]) for each in mounts] == [(path, True)]
    others = [spec for spec in pod_specs(objects) if spec != server]
    assert others
    assert not [spec for spec in others if "ours" in str(spec.get("volumes"))]


def server_of(objects: list[Manifest]) -> list[Any]:
    return [each for name, each in of_kind(objects, "Deployment").items() if name.endswith("-server")]


@pytest.mark.parametrize(
    ("values", "has_test", "has_token"),
    [
        ({"people.anyone": True}, True, False),
        ({"people.usersSecret": "users"}, False, False),
        ({"people.usersSecret": "users", "test.tokenSecret": "token"}, True, True),
    ],
)
def test_helm_test_signs_in_or_there_is_none(values: Manifest, has_test: bool, has_token: bool) -> None:
    pods = of_kind(rendered(values), "Pod")
    assert bool(pods) == has_test
    assert ("TESK_TOKEN" in str(pods)) == has_token
