"""What the API means by refusing something, as a table of its own words."""

import pytest

from tesk.engines.kubernetes import refusal

QUOTA = 'pods "p" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2'
RIGHT = 'pods is forbidden: User "system:serviceaccount:n:a" cannot create resource "pods" in API group "" in'


@pytest.mark.parametrize(
    ("words", "quota", "lasting", "right"),
    [
        (QUOTA, True, False, False),
        (f"Error creating: {QUOTA}", True, False, False),
        ('pods "p" is forbidden: status unknown for quota: few, resources: pods', True, False, False),
        ('pods "p" is forbidden: violates PodSecurity "restricted:latest": x', False, True, False),
        ('pods "p" is forbidden: error looking up service account n/a: not found', False, True, False),
        ("pods \"p\" is forbidden: Policy 'x' denied request: you cannot use resource y here", False, True, False),
        ('Error creating: admission webhook "v" denied the request: no latest', False, True, False),
        ('Pod "p" is invalid: spec.containers[0].image: Required value', False, True, False),
        ("Internal error occurred: failed calling webhook", False, False, False),
        ('pods "p" is forbidden: not yet ready to handle request', False, False, False),
        (RIGHT, False, True, True),
    ],
)
def test_quotas_policies_and_missing_rights_are_told_apart(words: str, quota: bool, lasting: bool, right: bool) -> None:
    found = refusal.is_quota(words), refusal.is_lasting(words), refusal.lacks_right(words)
    assert found == (quota, lasting, right)


def test_advice_names_the_setting() -> None:
    assert "pod_security = restricted" in refusal.advice('violates PodSecurity "restricted:latest"')
    assert "LimitRange" in refusal.advice("failed quota: q: must specify limits.cpu for: taskmaster")
    assert refusal.advice(QUOTA) == ""
