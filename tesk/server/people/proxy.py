"""The way in `proxy`: what a proxy that asks people to sign in says of them (X-Forwarded-User, X-Forwarded-Groups).

The edge makes such a credential only of requests from `trusted_addresses`.
"""

import re
from typing import Final

from tesk.identity import Identity
from tesk.server.people.way import CallerCredential, LetIn, NotLetIn

GOOD_FOR_S: Final = 300.0
_NAME: Final = re.compile(r"[^:,\s\x00-\x1f\x7f]{1,200}")
"""A colon is in names of OpenID Connect issuers' users, for whom nobody else may pass."""


class Proxy:
    name = "proxy"
    challenge = 'Proxy realm="tesk"'
    """No scheme that a client knows: only the proxy can help. But a 401 needs one (RFC 9110 §15.5.2)."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        if credential.kind != "forwarded":
            return None
        if not _NAME.fullmatch(credential.user):
            raise NotLetIn("the proxy gives a name of a user with a space, a comma or a colon, or a long one")
        identity = Identity(
            user=credential.user,
            shown=credential.user,
            groups=frozenset(credential.groups),
            default_group=credential.groups[0] if credential.groups else "",
        )
        return LetIn(identity, GOOD_FOR_S)
