"""URL prefixes: which URLs lie at and below one, in any spelling (pure)."""

import re
from typing import Final
from urllib.parse import unquote

from tesk import schemes

_ENDS: Final = ("", "/", "?", "#")
_SLASHES: Final = re.compile(r"[/\\?#]")
"""`?` and `#` among them: where they were escaped, and are no more."""
_ESCAPED_AT_MOST: Final = 5
_WITH_QUERY: Final = ("http", "https")


def matches(prefix: str, url: str) -> bool:
    """Whether a plain URL lies at or below a plain prefix: whole path segments only, so no other host or folder."""
    if not url.startswith(prefix):
        return False
    return prefix.endswith("/") or url[len(prefix) : len(prefix) + 1] in _ENDS


def leads_up(prefix: str, url: str) -> bool:
    """Whether a plain URL may lead out of the plain prefix that it begins with, in any spelling that a server may read.

    A prefix without a path has all of its host, which no path leads out of.
    """
    scheme, _, rest = prefix.partition("://")
    return bool(rest.partition("/")[2]) and holds_dot_dot(scheme, url[len(prefix) :])


def holds_dot_dot(scheme: str, path: str) -> bool:
    """Whether the path may hold a `..`. Escapes count however often they are escaped, a backslash counts as a slash,
    and what follows a `;` is cut off."""
    if scheme in _WITH_QUERY:
        path = path.partition("?")[0].partition("#")[0]
    found = decoded(path)
    return found is None or any(part.partition(";")[0].strip() == ".." for part in _SLASHES.split(found))


def decoded(path: str) -> str | None:
    """The path without any escapes; None where they were escaped too often to be looked at."""
    for _ in range(_ESCAPED_AT_MOST):
        found = unquote(path, errors="surrogateescape")
        if found == path:
            return path
        path = found
    return None


def plain(url: str) -> str:
    """The URL as it is compared: scheme and host in small letters, without user, password and the usual port."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    end = min((at for at in (rest.find(c) for c in "/?#") if at >= 0), default=len(rest))
    declared = schemes.BY_NAME.get(scheme.lower())
    usual = declared.ports[scheme.lower()] if declared else 0
    host = rest[:end].rpartition("@")[2].lower().removesuffix(f":{usual or ''}")
    return f"{scheme.lower()}://{host}{rest[end:]}"
