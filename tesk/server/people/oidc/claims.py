"""What the claims of a token say: user, name, groups (pure).

Groups come as a plain list (`groups`), or as entitlements of AARC-G069, the form of research infrastructures:
`NAMESPACE:group:GROUP[:SUBGROUP]*[:role=ROLE][#AUTHORITY]`, percent-encoded. Providers pass on entitlements of others,
so a namespace is cut off only where it is the one that the issuer's `group_prefix` names.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

from tesk.identity import Identity
from tesk.server.people.oidc.issuers import Issuer
from tesk.server.people.way import NotLetIn

Claims = Mapping[str, Any]
Origin = Literal["token", "userinfo", "introspection", "refused"]

GROUPS: Final = ("eduperson_entitlement", "groups")
"""Where groups are looked for by default; the first that is there counts."""
MOST_GROUPS: Final = 1000
LONGEST: Final = 255

_ENTITLEMENT: Final = re.compile("urn:[^#]+:group:", re.IGNORECASE)


class Groups(NamedTuple):
    """Those that the user is a member of, and of these those that the user manages."""

    member: frozenset[str]
    manages: frozenset[str]


def identity_of(issuer: Issuer, said: Claims, further: Claims = MappingProxyType({})) -> Identity:
    """Who it is, by the claims of a token and by what was asked for beside them. Raises NotLetIn."""
    principal = text(said, issuer.principal_claim) or text(further, issuer.principal_claim)
    if not principal:
        raise NotLetIn(f"issuer {issuer.name} tells no name of the user: there is no claim {issuer.principal_claim}")
    found = groups(_groups_claim(issuer, said, further), issuer.group_prefix)
    if issuer.required_groups and not found.member.intersection(issuer.required_groups):
        raise NotLetIn(f"the user is in none of these groups: {', '.join(issuer.required_groups)}")
    return Identity(
        user=f"{issuer.name}:{principal}",
        shown=text(said, issuer.name_claim) or text(further, issuer.name_claim),
        groups=found.member,
        manages=found.manages,
        default_group=issuer.default_group if issuer.default_group in found.member else "",
        is_admin=bool(found.member.intersection(issuer.admin_groups)),
    )


def must_ask(issuer: Issuer, claims: Claims, origin: Origin) -> bool:
    """Whether the provider has to tell more than these claims, which are of that origin."""
    if issuer.groups_from in ("userinfo", "introspection"):
        return issuer.groups_from != origin
    if origin == "userinfo":
        return False
    has_groups = issuer.groups_from == "token" or _groups_in(issuer, claims) is not None
    return not has_groups or not text(claims, issuer.principal_claim)


def check_scopes(issuer: Issuer, claims: Claims) -> None:
    """Raises NotLetIn where the token has not all scopes that the issuer's table asks for."""
    lacking = set(issuer.required_scopes) - scopes(claims)
    if lacking:
        raise NotLetIn(f"the token lacks scope {', '.join(sorted(lacking))}")


def check_introspected(issuer: Issuer, claims: Claims, now: float) -> None:
    """What JWTs are held to, as far as introspection tells it. Raises NotLetIn."""
    if claims.get("iss", issuer.issuer) != issuer.issuer:
        raise NotLetIn("the token is of another issuer")
    if str(claims.get("token_type", "bearer")).lower() not in ("bearer", "access_token"):
        raise NotLetIn("the token is not an access token that its bearer may use")
    if not is_for(claims, issuer.audience):
        raise NotLetIn("the token is for another audience")
    if (end := _seconds(claims, "exp")) is not None and end <= now - issuer.leeway_s:
        raise NotLetIn("the token has expired")
    if (begin := _seconds(claims, "nbf")) is not None and begin > now + issuer.leeway_s:
        raise NotLetIn("the token is not valid yet; are the clocks right?")
    check_scopes(issuer, claims)


def good_for_s(issuer: Issuer, claims: Claims, now: float) -> float:
    """For how long what was found may be kept."""
    end = _seconds(claims, "exp")
    return issuer.cache_s if end is None else max(0.0, min(issuer.cache_s, end - now))


def claim(claims: Claims, path: str) -> Any:
    """The claim of that name, which may have dots, or else the one that the path leads to; None where there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def text(claims: Claims, path: str) -> str:
    """A claim that is a name: a printable text of bearable length; else the empty text."""
    found = claim(claims, path)
    if isinstance(found, str) and 0 < len(found) <= LONGEST and found.isprintable() and found == found.strip():
        return found
    return ""


def groups(written: Any, prefix: str) -> Groups:
    """The groups that a claim names: a list of texts, or one text. Those without the prefix are left out."""
    values: Iterable[Any] = [written] if isinstance(written, str) else written if isinstance(written, list) else ()
    member: set[str] = set()
    manages: set[str] = set()
    for value in values:
        if not isinstance(value, str) or not value.startswith(prefix):
            continue
        name, role = _entitlement(value, prefix) if _ENTITLEMENT.match(value) else (value[len(prefix) :], "")
        if not name or len(name) > LONGEST or not name.isprintable() or len(member) == MOST_GROUPS:
            continue
        member.add(name)
        if role == "manager":
            manages.add(name)
    return Groups(frozenset(member), frozenset(manages))


def _entitlement(value: str, prefix: str) -> tuple[str, str]:
    """Group and role of an entitlement. A group's own colon stays encoded: it would look like a subgroup's."""
    path, _, _ = value.partition("#")
    parts = path[len(prefix) :].split(":")
    role = ""
    if parts[-1].startswith("role="):
        role = unquote(parts.pop().removeprefix("role="))
    return ":".join(unquote(part).replace(":", "%3A") for part in parts), role


def scopes(claims: Claims) -> frozenset[str]:
    """The scopes of a token: `scope` (RFC 9068), or `scp` as some providers call it; a text or a list."""
    found = claims.get("scope", claims.get("scp"))
    if isinstance(found, str):
        return frozenset(found.split())
    return frozenset(each for each in found if isinstance(each, str)) if isinstance(found, list) else frozenset()


def is_for(claims: Claims, audience: Iterable[str]) -> bool:
    """Whether `aud`, a text or a list, names one of the audience; so it does where no audience is asked for."""
    wanted = frozenset(audience)
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return not wanted or any(isinstance(each, str) and each in wanted for each in named)


def _groups_claim(issuer: Issuer, said: Claims, further: Claims) -> Any:
    if issuer.groups_from in ("userinfo", "introspection") and further:
        return _groups_in(issuer, further)
    found = _groups_in(issuer, said)
    return _groups_in(issuer, further) if found is None and issuer.groups_from != "token" else found


def _groups_in(issuer: Issuer, claims: Claims) -> Any:
    paths = (issuer.groups_claim,) if issuer.groups_claim else GROUPS
    return next((found for path in paths if (found := claim(claims, path)) is not None), None)


def _seconds(claims: Claims, name: str) -> float | None:
    found = claims.get(name)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
