"""What a namespace lets containers and claims be, and how ours are made to fit (pure).

A LimitRange sets defaults, bounds and ratios; a ResourceQuota on limits wants each container to have one. Whatever of
that concerns a resource, our containers name request and limit of it themselves, so that no default of the namespace
comes between. What a task asks for is never made less: where that is too much, the cluster refuses it. What nobody
asked for (defaults, and what our own containers would like to have) gives way.
Sources: kubernetes/plugin/pkg/admission/limitranger, kubernetes.io "Limit Ranges", "Resource Quotas".
"""

import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

from msgspec import Struct

from tesk.kubernetes import names

Manifest = dict[str, Any]
Quantities = dict[str, str]

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL: Final = "ephemeral-storage"
MIB: Final = Fraction(1024**2)
SUFFIXES: Final = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}  # fmt: skip
QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([a-zA-Z]{0,2}))")
ASKED_BY_NOBODY: Final = {CPU: Fraction(1, 1000), MEMORY: 8 * MIB}
"""So small may an executor become in what its task does not ask for."""
OURS: Final = {CPU: Fraction(1, 100), MEMORY: 32 * MIB}
"""The same of containers of ours."""
LIKED: Final = {
    names.FILER_CONTAINER: {CPU: Fraction(1, 2), EPHEMERAL: 128 * MIB},
    names.TASKMASTER_CONTAINER: {CPU: Fraction(1, 5), EPHEMERAL: 128 * MIB},
    names.REPORTER_CONTAINER: {CPU: Fraction(1, 5), EPHEMERAL: 128 * MIB},
    names.RUNNER_CONTAINER: {CPU: Fraction(1, 2), EPHEMERAL: 128 * MIB},
}
"""Limits of containers of ours where they must have one and set none: enough for a Python to start, and for its log."""
NAMED: Final = re.compile(
    r"(?P<bound>maximum|minimum) (?P<what>\S+) usage per (?P<type>\w+) is"
    r"|(?P<resource>\S+) max limit to request ratio per (?P<of>\w+) is",
    re.IGNORECASE,
)
"""How the API says which bound an object breaks; the LimitRange that sets it, it does not name."""
OUR_SCOPES: Final = frozenset({"NotTerminating", "NotBestEffort"})
"""Scopes of a ResourceQuota that all pods of ours are in."""


class Item(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A LimitRangeItem: Kubernetes quantities by resource. `type`: Container, Pod or PersistentVolumeClaim."""

    type: str = ""
    max: Quantities = {}
    min: Quantities = {}
    default: Quantities = {}
    max_limit_request_ratio: Quantities = {}


class Range(Struct, frozen=True, omit_defaults=True):
    """A LimitRange."""

    name: str
    items: tuple[Item, ...] = ()


class Bounds(Struct, frozen=True, omit_defaults=True):
    """All that holds in a namespace. `limited`: resources of which a ResourceQuota wants every container's limit."""

    ranges: tuple[Range, ...] = ()
    limited: tuple[str, ...] = ()


class Bound(Struct, frozen=True):
    """What holds for one resource of a container, a pod or a claim."""

    least: Fraction = Fraction(0)
    most: Fraction | None = None
    default: Fraction | None = None
    ratio: Fraction | None = None


class Share(Struct):
    """One resource of one container. `floor`: what it must have. `liked`: the limit of one of ours, None of others.

    `unit`: the least amount of the resource.
    """

    request: Fraction
    limit: Fraction | None
    floor: Fraction
    liked: Fraction | None
    unit: Fraction


def limited(hard: Mapping[str, str], scopes: set[str]) -> set[str]:
    """The resources of which a ResourceQuota with these scopes wants a limit of every container of ours."""
    if not scopes <= OUR_SCOPES:
        return set()
    return {resource.removeprefix("limits.") for resource in hard if resource in ("limits.cpu", "limits.memory")}


def fitted(spec: Manifest, bounds: Bounds, asked: Quantities) -> Manifest:
    """The spec of a pod with requests and limits as the namespace wants them. `asked`: what the task asks for."""
    containers = [each | {"resources": _copy(each["resources"])} for each in spec["containers"]]
    for resource in sorted(_named(bounds)):
        pod = _bound(bounds, "Pod", resource)
        if _concerns(resource, containers, pod):
            one = _bound(bounds, "Container", resource)
            shares = [_share(each, resource, asked) for each in containers]
            must = resource in bounds.limited or any(
                set_ is not None for bound in (one, pod) for set_ in (bound.most, bound.default, bound.ratio)
            )
            for share in shares:
                _fit_container(share, one, pod, must_have_limit=must)
            _fit_pod(shares, pod)
            for container, share in zip(containers, shares, strict=True):
                _write(container["resources"], resource, share)
    return spec | {"containers": containers}


def claim_size(mebibytes: int, bounds: Bounds, *, is_asked: bool) -> str:
    """The size of a claim for which so much is asked, or is the default."""
    bound = _bound(bounds, "PersistentVolumeClaim", "storage")
    size = max(Fraction(mebibytes * 1024**2), bound.least)
    if bound.most is not None and not is_asked:
        size = min(size, bound.most)
    return written("storage", size)


def blamed(words: str, bounds: Bounds) -> str:
    """Which LimitRange the API refuses an object for, if it does so for one; begins with a semicolon."""
    match = NAMED.search(words)
    if match is None:
        return ""
    field = {"maximum": "max", "minimum": "min"}.get((match["bound"] or "").lower(), "max_limit_request_ratio")
    kind, resource = match["type"] or match["of"], match["what"] or match["resource"]
    found = [
        each.name for each in bounds.ranges for item in each.items
        if item.type == kind and resource in getattr(item, field)
    ]  # fmt: skip
    return f"; LimitRange {', '.join(dict.fromkeys(found))}" if found else "; a LimitRange of the namespace says so"


def quantity(text: str) -> Fraction:
    """A Kubernetes quantity. Raises ValueError."""
    match = QUANTITY.fullmatch(text)
    if match is None or (match[3] or "") not in SUFFIXES:
        raise ValueError(f"{text!r} is no quantity")
    return Fraction(match[1] + (match[2] or "")) * SUFFIXES[match[3] or ""]


def written(resource: str, amount: Fraction) -> str:
    """A quantity as Kubernetes reads it; a part of the least unit counts as a whole one."""
    if resource == CPU:
        return f"{math.ceil(amount * 1000)}m"
    whole = math.ceil(amount)
    return f"{whole // 1024**2}Mi" if whole and whole % 1024**2 == 0 else str(whole)


def _fit_container(share: Share, one: Bound, pod: Bound, *, must_have_limit: bool) -> None:
    share.floor = max(share.floor, one.least)
    share.request = max(share.request, share.floor)
    if one.most is not None:
        share.request = max(share.floor, min(share.request, one.most))
    ratio = min((each for each in (one.ratio, pod.ratio) if each is not None), default=None)
    if share.limit is None and must_have_limit:
        share.limit = _limit(share, one, pod, ratio)
    if share.limit is None:
        return
    share.limit = max(share.limit, share.request)
    if one.most is not None:
        share.limit = max(share.request, min(share.limit, one.most))
    if ratio is not None and share.limit > share.request * ratio:
        if share.liked is None:
            share.limit = share.request * ratio // share.unit * share.unit
        else:
            share.request = -(-share.limit / ratio // share.unit) * share.unit


def _limit(share: Share, one: Bound, pod: Bound, ratio: Fraction | None) -> Fraction:
    """The limit of a container that sets none: what the namespace gives; of one of ours, not less than it likes."""
    if share.liked is not None:
        return share.liked if ratio is not None or one.default is None else max(share.liked, one.default)
    given = [each for each in (one.default, one.most, pod.most) if each is not None]
    return min(given) if given else share.request


def _fit_pod(shares: list[Share], pod: Bound) -> None:
    """Makes the containers fit together: the last one, which does the work, has more or less first."""
    last = shares[-1]
    last.request += max(Fraction(0), pod.least - sum(each.request for each in shares))
    if last.limit is not None:
        last.limit = max(last.limit, last.request)
    with_limit = [each for each in shares if each.limit is not None]
    if with_limit:
        first = with_limit[0]
        assert first.limit is not None
        first.limit += max(Fraction(0), pod.least - _sum_of_limits(shares))
    if pod.most is not None:
        for share in reversed(with_limit):
            assert share.limit is not None
            share.limit = max(share.floor, share.limit - max(Fraction(0), _sum_of_limits(shares) - pod.most))
            share.request = min(share.request, share.limit)


def _sum_of_limits(shares: list[Share]) -> Fraction:
    return sum((each.limit for each in shares if each.limit is not None), Fraction(0))


def _share(container: Manifest, resource: str, asked: Quantities) -> Share:
    requests, limits, name = container["resources"]["requests"], container["resources"]["limits"], container["name"]
    is_known = resource in (CPU, MEMORY, EPHEMERAL)
    limit = limits.get(resource, None if is_known else "0")
    request = quantity(requests.get(resource, limits.get(resource, "0")))
    wanted = quantity(asked.get(resource, "0")) if name != names.REPORTER_CONTAINER else Fraction(0)
    least = (OURS if name in LIKED else ASKED_BY_NOBODY).get(resource, Fraction(0))
    return Share(
        request,
        None if limit is None else quantity(limit),
        floor=min(request, max(wanted, least)) if is_known else request,
        liked=LIKED[name].get(resource, request) if name in LIKED else None,
        unit=Fraction(1, 1000) if resource == CPU else Fraction(1),
    )


def _concerns(resource: str, containers: list[Manifest], pod: Bound) -> bool:
    """False for what our containers leave to the namespace's own defaults, such as ephemeral storage. Not so devices:
    a default of these would give them to containers of ours."""
    used = any(resource in each["resources"][of] for each in containers for of in ("requests", "limits"))
    return used or pod != Bound() or resource != EPHEMERAL


def _write(resources: Manifest, resource: str, share: Share) -> None:
    for of, amount in (("requests", share.request), ("limits", share.limit)):
        if amount is not None and amount != quantity(resources[of].get(resource, "-1")):
            resources[of][resource] = written(resource, amount)


def _copy(resources: Manifest) -> Manifest:
    return {"requests": dict(resources["requests"]), "limits": dict(resources["limits"])}


def _named(bounds: Bounds) -> set[str]:
    items = [item for each in bounds.ranges for item in each.items if item.type != "PersistentVolumeClaim"]
    by_item = [item.max | item.min | item.default | item.max_limit_request_ratio for item in items]
    return set(bounds.limited).union(*by_item)


def _bound(bounds: Bounds, kind: str, resource: str) -> Bound:
    """All LimitRanges of a kind in one: the strictest of each, of their defaults the least, as any may come true."""

    def values(field: str) -> Iterator[Fraction]:
        for each in bounds.ranges:
            for item in each.items:
                if item.type == kind and resource in (found := getattr(item, field)):
                    yield quantity(found[resource])

    most, default, ratio = (min(values(field), default=None) for field in ("max", "default", "max_limit_request_ratio"))
    return Bound(max(values("min"), default=Fraction(0)), most, default, ratio)
