"""Who the caller is to this server, and how one signs in: what `tesk whoami` and `tesk login` ask for."""

from typing import TYPE_CHECKING

from tesk.identity import SCOPES
from tesk.server.exchange import Call, Reply, encode

if TYPE_CHECKING:
    from tesk.server.people.edge import Edge


async def whoami(call: Call) -> Reply:
    """GET /api/v1/whoami. `user` is empty where nobody is asked to sign in."""
    who = call.identity
    document = {
        "user": who.user,
        "shown": who.shown or who.user,
        "groups": sorted(who.groups),
        "manages": sorted(who.manages),
        "default_group": who.default_group,
        "is_admin": who.is_admin,
        "way": who.way,
        "scopes": [scope for scope in SCOPES if scope in who.scopes],
    }
    return Reply(200, encode(document))


class SignIn:
    """GET /api/v1/sign-in: the ways in, and the issuers that `tesk login` can get a token of."""

    def __init__(self, edge: "Edge | None") -> None:
        self._edge = edge

    async def get(self, _: Call) -> Reply:
        ways = [] if self._edge is None else [way.name for way in self._edge.ways]
        issuers = [] if self._edge is None else self._edge.logins
        return Reply(200, encode({"ways": ways, "issuers": issuers}))
