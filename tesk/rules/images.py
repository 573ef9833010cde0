"""Which images a caller's executors may have (pure).

A pattern is held against the reference with all that engines add to it (tesk.images.full), so that each image has one
name here, however it is written. `*` stands for any characters; before the first slash, where the registry is, for none
that is a slash: whoever controls a path of some other registry must not be able to end it in this one's name.
"""

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from tesk import images
from tesk.identity import Identity
from tesk.rules import ImageRules

USER: Final = "{user}"
GROUP: Final = "{group}"
FILLS: Final = re.compile(r"[a-z0-9._-]+")
"""Names that may stand in a pattern: with another character one user's name could lead to another's images."""
_PATTERN: Final = re.compile(r"[A-Za-z0-9._:/@*\[\]-]+")


def problems(rules: ImageRules) -> Iterator[str]:
    """What is wrong with the patterns, in words."""
    for pattern in rules.allow:
        plain = pattern.replace(USER, "u").replace(GROUP, "g")
        registry, slash, _ = plain.partition("/")
        if "{" in plain or "}" in plain:
            yield f"images.allow: {pattern!r}: what may be filled in is {USER} and {GROUP}"
        elif not _PATTERN.fullmatch(plain) or "//" in plain:
            yield f"images.allow: {pattern!r} matches no image: [host[:port]/]path[:tag][@digest], with * for the rest"
        elif plain != "*" and not (slash and ("*" in registry or images.names_registry(registry))):
            meant = f"{images.HUB}/{'' if slash else 'library/'}{pattern}"
            yield f"images.allow: {pattern!r} names no registry before its first slash; write {meant!r}, or another"
        elif registry != registry.lower() or registry == images.OLD_HUB:
            yield f"images.allow: {pattern!r}: the registry is in small letters, and Docker Hub is {images.HUB}"


def patterns(rules: ImageRules, identity: Identity) -> list[str]:
    """The patterns with the caller's names filled in; those for which the caller has no name are left out."""
    users = [identity.user] if FILLS.fullmatch(identity.user) else []
    groups = sorted(group for group in identity.groups if FILLS.fullmatch(group))
    found = []
    for pattern in rules.allow:
        names = itertools.product(users if USER in pattern else [""], groups if GROUP in pattern else [""])
        found += [pattern.replace(USER, user).replace(GROUP, group) for user, group in names]
    return found or ([] if rules.allow else ["*"])


def refusal(image: str, rules: ImageRules, identity: Identity) -> str:
    """Why the caller may not run the image; empty where the caller may."""
    if rules.digests_only and "@" not in image:
        return f"{image!r} is not named by its digest, and this server runs no other images; write NAME@sha256:…"
    if not rules.allow:
        return ""
    if images.may_be_id(image):
        return f"{image!r} may be the id of an image that is here; write the image with its registry"
    allowed = patterns(rules, identity)
    if any(_compiled(pattern).fullmatch(images.full(image)) for pattern in allowed):
        return ""
    return f"you may not run {images.full(image)!r} here; you may run: {', '.join(allowed) or 'no image'}"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    registry, slash, path = pattern.partition("/")
    any_ = ("[^/]*", ".*") if slash else (".*", "")
    parts = [each.join(map(re.escape, text.split("*"))) for each, text in zip(any_, (registry, path), strict=True)]
    return re.compile(slash.join(parts))
