"""Who may call: checks Host names (against DNS rebinding) and the origins of web pages (CORS). Pure.

A server without sign-in trusts everybody who reaches it, but not a web page in that person's browser. Such a page sends
a Host name of its own, or its Origin; both are refused unless they are configured. On loopback the Host name of every
request is checked. Elsewhere only that of browsers: other clients send the name by which they reached the server, and
their name proves nothing. Sources: RFC 9110 §7.2 and §15.5.20, the Fetch standard, CORS protocol.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

from tesk.server.exchange import Header, Refusal, Reply

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")
_BROWSERS_OWN: Final = (
    b"origin",
    b"sec-fetch-site",
    b"sec-fetch-mode",
    b"sec-fetch-dest",
    b"accept-language",
    b"referer",
)
"""Headers that only browsers send. A page under plain HTTP that reads from its own origin sends neither Origin nor
Sec-Fetch. But every browser sends the languages of its user, and no page can prevent that."""
_METHODS: Final = b"GET, HEAD, POST, DELETE"
_HEADER_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1024}")
_EXPOSED: Final = (b"access-control-expose-headers", b"x-request-id")


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_from_browser(headers: Mapping[bytes, bytes]) -> bool:
    return any(name in headers for name in _BROWSERS_OWN) or headers.get(b"user-agent", b"").startswith(b"Mozilla/")


class Hosts:
    """The Host names that are answered: those of this machine, `bound_to`, and the allowed names.

    `*.example.org` allows every name below example.org, `*` every name. A server that listens beyond loopback, without
    configured names, answers to every name: nobody has said what its name is. Beyond loopback an address is as good as
    an allowed name, since nobody can make an address point elsewhere.
    """

    def __init__(self, bound_to: str, allowed: Iterable[str]) -> None:
        names = {name.strip("[]").rstrip(".").lower() for name in allowed}
        self._on_loopback = is_loopback(bound_to)
        self._any = "*" in names or (not names and not self._on_loopback)
        self._above = tuple(name[1:] for name in names if name.startswith("*."))
        self._names = names | {bound_to.strip("[]").lower()}
        self._seen: set[bytes | None] = set()

    def check(self, headers: Mapping[bytes, bytes], http_version: str) -> None:
        """Raises Refusal (400, 421)."""
        host = headers.get(b"host")
        if self._any or host in self._seen:
            return
        if host is None and http_version == "1.0":
            return
        match = _HOST.fullmatch((host or b"").decode("latin-1"))
        if match is None:
            raise Refusal(400, "the request needs one valid Host header", "Host")
        name = match[1].strip("[]").rstrip(".").lower()
        if self._is_ours(name):
            if len(self._seen) < 1000:
                self._seen.add(host)
        elif self._on_loopback or is_from_browser(headers):
            raise Refusal(
                421, f"this server does not answer to the name {name[:100]!r}; see the setting allowed_hosts", "Host"
            )

    def _is_ours(self, name: str) -> bool:
        if name in self._names or is_loopback(name) or (self._above and name.endswith(self._above)):
            return True
        return not self._on_loopback and is_address(name)


class Cors:
    """Which web pages may call. `*` allows every page; the default is none."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = {origin.rstrip("/").lower().encode() for origin in origins}
        self._any = b"*" in self._origins

    def allows(self, origin: bytes) -> bool:
        return self._any or origin.lower() in self._origins

    def headers(self, origin: bytes | None) -> tuple[Header, ...]:
        """Headers of an answer that let the page read it."""
        if self._any:
            return ((b"access-control-allow-origin", b"*"), _EXPOSED) if origin else ()
        if not self._origins:
            return ()
        vary = (b"vary", b"origin")
        if origin is None or not self.allows(origin):
            return (vary,)
        return (b"access-control-allow-origin", origin), vary, _EXPOSED

    def check_write(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuses (403) a write that a foreign page sends, even one that the browser let through."""
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is None and not self._any and site in (b"cross-site", b"same-site"):
            raise Refusal(
                403, "web pages of other origins may not call this server; see cors_origins", "Sec-Fetch-Site"
            )
        if origin is None or self.allows(origin) or site == b"same-origin":
            return
        if origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
            raise _not_allowed(origin)

    def preflight(self, headers: Mapping[bytes, bytes]) -> Reply | None:
        """The answer to OPTIONS if it is a preflight. Raises Refusal (403) for origins that are not configured."""
        origin = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers:
            return None
        if not self.allows(origin):
            raise _not_allowed(origin)
        wanted = headers.get(b"access-control-request-headers", b"")
        allowed = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", b"600"),
        ]
        if _HEADER_NAMES.fullmatch(wanted):
            allowed.append((b"access-control-allow-headers", wanted))
        if headers.get(b"access-control-request-private-network") == b"true":
            allowed.append((b"access-control-allow-private-network", b"true"))
        return Reply(204, b"", tuple(allowed))


def _not_allowed(origin: bytes) -> Refusal:
    name = origin[:200].decode("latin-1")
    return Refusal(
        403, f"web pages of {name!r} may not call this server; allow them with --cors-origin {name}", "Origin"
    )
