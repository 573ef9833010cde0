"""What the API means by refusing something, as a table of its own words."""

import pytest

from tesk.kubernetes.bounds import Bounds, Item, Range
from tesk.kubernetes.errors import ApiError, advice, is_lasting, is_quota

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
    found = is_quota(words), is_lasting(words), ApiError(403, "", words).lacks_right
    assert found == (quota, lasting, right)


@pytest.mark.parametrize(
    ("code", "message", "kinds"),
    [
        (0, "cannot be reached", {"is_away", "is_passing"}),
        (503, "", {"is_away", "is_passing"}),
        (429, "too many requests", {"is_away", "is_passing"}),
        (401, "Unauthorized", {"lacks_right", "is_passing"}),
        (403, 'jobs.batch is forbidden: User "u" cannot create resource "jobs"', {"lacks_right", "is_passing"}),
        (403, 'pods "p" is forbidden: exceeded quota: q, requested: pods=1', {"is_quota", "is_passing"}),
        (403, 'pods "p" is forbidden: status unknown for quota: q', {"is_quota", "is_passing"}),
        (403, 'pods "p" is forbidden: violates PodSecurity "restricted:latest": seccompProfile', set()),
        (404, 'namespaces "n" not found', {"is_passing"}),
        (404, 'jobs.batch "j" not found', set()),
        (409, 'jobs.batch "j" already exists', set()),
        (422, "Job is invalid", set()),
        (500, "Internal error occurred: failed calling webhook", {"is_away", "is_passing"}),
        (500, "etcdserver: request is too large", {"is_away"}),
        (500, 'admission webhook "v" denied the request: no latest', {"is_away"}),
    ],
)
def test_what_a_refusal_is(code: int, message: str, kinds: set[str]) -> None:
    error = ApiError(code, "", message)
    every = ("is_away", "lacks_right", "is_quota", "is_passing")
    assert {kind for kind in every if getattr(error, kind)} == kinds


def test_a_quota_that_was_being_counted_is_asked_again() -> None:
    words = (
        'Operation cannot be fulfilled on resourcequotas "few": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert ApiError(409, "Conflict", words).is_passing
    assert not ApiError(409, "AlreadyExists", 'pods "p" already exists').is_passing
    assert not ApiError(
        409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"
    ).is_passing


def test_advice_names_the_setting() -> None:
    assert "pod_security = restricted" in advice('violates PodSecurity "restricted:latest"', Bounds())
    assert "resourcequotas" in advice("failed quota: q: must specify limits.cpu for: taskmaster", Bounds())
    assert advice(QUOTA, Bounds()) == ""


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
    found = advice(f'pods "p" is forbidden: {words}', Bounds((lab, other)))
    assert found == named
