"""A request that the Kubernetes API refuses, and what the API means by it (pure).

The words tell more than the code: 403 may be a right that is missing, a quota that has no room just now, or a policy
that will never have the object otherwise.
"""

import re
from typing import Final

from tesk.errors import PlaceError
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
EARLY: Final = "not yet ready to handle request"
"""An API server says so that has just started and does not know its own rules yet."""
LASTING: Final = (" is forbidden: ", " denied the request", " is invalid: ", "request is too large")


class ApiError(PlaceError):
    """The API refuses a request, or cannot be reached (code 0)."""

    def __init__(self, code: int, reason: str, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message or f"HTTP {code}")
        self.code = code
        self.reason = reason
        self.pause_s = pause_s
        """So long the API asks not to repeat the request."""

    @property
    def is_passing(self) -> bool:
        """True when the same request may be granted later without anybody changing it."""
        if self.is_away:
            return not is_lasting(str(self))
        no_namespace = self.code == 404 and str(self).startswith("namespaces ")
        is_early = self.code == 403 and EARLY in str(self)
        return self.is_race or self.lacks_right or self.is_quota or is_early or no_namespace

    @property
    def is_away(self) -> bool:
        """True when the API is not there, or not able to answer."""
        return self.code in (0, 408, 429) or self.code >= 500

    @property
    def is_race(self) -> bool:
        """True where others changed what the request needs, as quotas are while pods are made: it may be granted at
        once."""
        return self.code == 409 and "the object has been modified" in str(self)

    @property
    def is_conflict(self) -> bool:
        """True where the object has changed since the version that the request is about."""
        return self.code == 409 and self.reason == "Conflict"

    @property
    def is_quota(self) -> bool:
        """True when the object may be made as soon as there is room."""
        return self.code == 403 and is_quota(str(self))

    @property
    def lacks_right(self) -> bool:
        """True when our account may not do this, as opposed to what a policy or a quota says of the object."""
        return self.code == 401 or (self.code == 403 and bool(NO_RIGHT.search(str(self))))

    @property
    def is_logged(self) -> bool:
        """True for what the client has logged already, once for all tasks."""
        return self.code == 0 or self.lacks_right


def is_quota(words: str) -> bool:
    """True for a refusal by a ResourceQuota that has no room, or is not counted yet."""
    return "exceeded quota" in words or "status unknown for quota" in words


def is_lasting(words: str) -> bool:
    """True for a refusal of an object that will be repeated: a policy's, or one for its size, as opposed to a quota's
    or a fault."""
    denied = any(sign in words for sign in LASTING)
    return denied and not (is_quota(words) or EARLY in words)


def advice(words: str, bounds: Bounds) -> str:
    """What to do about a refusal, or which LimitRange it comes from, where that is known; begins with a semicolon."""
    return next((f"; {do}" for sign, do in ADVICE if sign in words), "") or blamed(words, bounds)
