"""What the API means by refusing something, as a table of its own words."""

import pytest

from tesk.kubernetes import refusal
from tesk.kubernetes.bounds import Bounds, Item, Range
from tesk.places.kubernetes.client import ApiError as ServerError
from tesk.taskmaster.api import ApiError as TaskmasterError

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
        ("etcdserver: request is too large", False, True, False),
        ('pods "p" is forbidden: not yet ready to handle request', False, False, False),
        (RIGHT, False, True, True),
    ],
)
def test_quotas_policies_and_missing_rights_are_told_apart(words: str, quota: bool, lasting: bool, right: bool) -> None:
    found = refusal.is_quota(words), refusal.is_lasting(words), refusal.lacks_right(words)
    assert found == (quota, lasting, right)


@pytest.mark.parametrize("error", [TaskmasterError, ServerError])
def test_a_quota_that_was_being_counted_is_asked_again(error: type[TaskmasterError] | type[ServerError]) -> None:
    words = (
        'Operation cannot be fulfilled on resourcequotas "few": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert error(409, "Conflict", words).is_passing
    assert not error(409, "AlreadyExists", 'pods "p" already exists').is_passing
    assert not error(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b").is_passing


def test_advice_names_the_setting() -> None:
    assert "pod_security = restricted" in refusal.advice('violates PodSecurity "restricted:latest"', Bounds())
    assert "resourcequotas" in refusal.advice("failed quota: q: must specify limits.cpu for: taskmaster", Bounds())
    assert refusal.advice(QUOTA, Bounds()) == ""


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi", "; LimitRange lab, other"),
        ("[minimum cpu usage per Pod is 1, but request is 0]", "; LimitRange lab"),
        ("memory max limit to request ratio per Pod is 2, but provided ratio is 3.0", "; LimitRange other"),
        ("maximum storage usage per PersistentVolumeClaim is 1Gi", "; a LimitRange of the namespace says so"),
    ],
)
def test_a_limit_range_that_refuses_is_named(words: str, named: str) -> None:
    lab = Range("lab", (Item("Container", max={"memory": "1Gi"}), Item("Pod", min={"cpu": "1"})))
    ratio = Item("Pod", max_limit_request_ratio={"memory": "2"})
    other = Range("other", (Item("Container", max={"memory": "3Gi"}), ratio))
    found = refusal.advice(f'pods "p" is forbidden: {words}', Bounds((lab, other)))
    assert found == named
