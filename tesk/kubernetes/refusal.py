"""What the API means by refusing something, by its words (pure): the code 403 alone may be a right that is missing, a
quota that has no room just now, or a policy that will never have it otherwise."""

import re
from typing import Final

from tesk.kubernetes.bounds import Bounds, blamed

# RBAC: `pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "n"`. A policy's own
# words may well have "cannot" in them.
NO_RIGHT: Final = re.compile(r'forbidden: User ".*" cannot [a-z]+ (resource|path) "')
ADVICE: Final = (
    ("violates PodSecurity", "the namespace enforces a Pod Security Standard: set pod_security = restricted"),
    ("must specify", "the server may not see this quota: it needs the right to list and watch resourcequotas"),
    ("no PriorityClass with name", "check the backend parameter priority_class"),
    ("error looking up service account", "check the name of the service account"),
)
LASTING: Final = (" is forbidden: ", " denied the request", " is invalid: ", "request is too large")


def is_quota(words: str) -> bool:
    """True for a refusal by a ResourceQuota that has no room, or is not counted yet."""
    return "exceeded quota" in words or "status unknown for quota" in words


def is_early(words: str) -> bool:
    """True for the refusal of an API server that has just started and does not know its own rules yet."""
    return "not yet ready to handle request" in words


def is_race(code: int, words: str) -> bool:
    """True where others changed what the request would have, as quotas do that are counted while pods are made."""
    return code == 409 and "the object has been modified" in words


def is_lasting(words: str) -> bool:
    """True for a refusal of an object that will be repeated: a policy's, or one for its size, as opposed to a quota's
    or a fault."""
    denied = any(sign in words for sign in LASTING)
    return denied and not (is_quota(words) or is_early(words))


def lacks_right(words: str) -> bool:
    """True when our own account may not do this, as opposed to what a policy says of the object."""
    return bool(NO_RIGHT.search(words))


def advice(words: str, bounds: Bounds) -> str:
    """What to do about a refusal, or which LimitRange it comes from, where that is known; begins with a semicolon."""
    return next((f"; {do}" for sign, do in ADVICE if sign in words), "") or blamed(words, bounds)
