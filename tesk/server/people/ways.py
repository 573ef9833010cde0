"""Which ways in are configured, and whether a server may start with them.

Whoever imports this module imports nothing of the ways themselves: a server without sign-in starts as fast as ever.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from tesk.server.log import Log
from tesk.server.origins import is_loopback
from tesk.server.people.way import PeopleError
from tesk.settings import Settings
from tesk.store.tokens import TokenTable

if TYPE_CHECKING:
    from tesk.server.people.edge import Edge
    from tesk.server.people.tokens import Known

WAYS = {"users_file": "basic", "issuers": "oidc", "trusted_addresses": "proxy"}
"""The settings that make a way in, and what it is called."""


def ways_in(settings: Settings) -> tuple[str, ...]:
    """The names of the ways in; none where nobody is asked to sign in."""
    found = tuple(name for setting, name in WAYS.items() if getattr(settings, setting))
    has_tokens = settings.tokens == "alone" or (found and settings.tokens == "beside")
    return (*found, "token") if has_tokens else found


def check(settings: Settings, bound_to: str) -> None:
    """Whether a server may listen at this address with these settings. Raises PeopleError."""
    ways = ways_in(settings)
    if settings.anyone and ways:
        given = next((f"people.{setting}" for setting in WAYS if getattr(settings, setting)), "people.tokens")
        raise PeopleError(f"people.anyone lets everybody in, whatever {given} says; leave one of them out")
    if not ways and not settings.anyone and not is_loopback(bound_to):
        wanted = ", ".join(f"people.{setting}" for setting in WAYS)
        raise PeopleError(
            f"whoever reaches {bound_to} could run anything, since nobody is asked to sign in; set a way in "
            f"({wanted}, people.tokens = alone), or people.anyone where that is meant, or listen on 127.0.0.1"
        )
    if not ways and (settings.admins or settings.admin_groups):
        given = "people.admins" if settings.admins else "people.admin_groups"
        raise PeopleError(f"{given} names people, but there is no way in by which they could sign in")
    networks(settings)


def networks(settings: Settings) -> list[IPv4Network | IPv6Network]:
    """The networks of trusted proxies. Raises PeopleError."""
    found = []
    for text in settings.trusted_addresses:
        try:
            network = ip_network(text)
        except ValueError as error:
            raise PeopleError(f"people.trusted_addresses: {error}") from None
        if network.prefixlen == 0:
            raise PeopleError(f"people.trusted_addresses: {text}: everybody could say that they are anybody")
        found.append(network)
    return found


def edge_of(settings: Settings, log: Log | None, table: TokenTable) -> "Edge | None":
    """The edge with the ways in that are configured; None where nobody is asked to sign in."""
    if not ways_in(settings):
        return None
    from tesk.server.people.edge import Edge

    edge = Edge(admins=settings.admins, admin_groups=settings.admin_groups, trusted=networks(settings), log=log)
    known: dict[str, Known | None] = {}
    if settings.trusted_addresses:
        from tesk.server.people.proxy import Proxy

        edge.ways.append(Proxy())
        known["proxy"] = None
    if settings.issuers:
        from tesk.server.people.oidc.issuers import read_issuers
        from tesk.server.people.oidc.way import Oidc

        issuers = read_issuers(Path(settings.issuers))
        edge.ways.append(Oidc(issuers))
        edge.logins = [login for issuer in issuers if (login := issuer.login())]
        known["oidc"] = None
    if settings.users_file:
        from tesk.server.people.basic import Basic

        basic = Basic(Path(settings.users_file), edge.forget, log)
        edge.ways.append(basic)
        known["basic"] = basic.known
    if settings.tokens != "never":
        from tesk.server.people.tokens import ApiTokens

        tokens = ApiTokens(table, known)
        edge.ways.append(tokens)
        edge.learn = tokens.learn
    return edge
