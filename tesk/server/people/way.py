"""A way in: what makes an identity of a credential.

The edge (edge.py) reads the credential of a request once and asks each way in turn. A way knows nothing of HTTP but the
challenge that names it.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from tesk.identity import Identity


class Credential(NamedTuple):
    """What a request shows. `basic`: a user and a password; `bearer` and `key`: a token; `forwarded`: what a proxy says.

    `secret` never stands in a log, an answer or an error.
    """

    kind: Literal["basic", "bearer", "key", "forwarded"]
    user: str
    secret: str
    address: IPv4Address | IPv6Address | None = None
    """Where the request comes from."""
    groups: tuple[str, ...] = ()
    """What a proxy says (X-Forwarded-Groups)."""


class Found(Struct, frozen=True):
    """An identity and for how many seconds it may be taken from a cache; 0: ask again at the next request."""

    identity: Identity
    good_for_s: float = 0.0


class NotLetIn(Exception):
    """The credential is this way's, and no good: 401. The message says why, without the secret."""


class CannotTell(Exception):
    """Whether the credential is good cannot be known now (the provider is away): 503."""


class Way(Protocol):
    """Ways are asked in turn until one gives an identity or raises."""

    name: str
    """As service-info, the audit log and messages name it: basic, token, oidc, proxy."""
    challenge: str
    """For WWW-Authenticate; empty where there is none."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def identify(self, credential: Credential) -> Found | None:
        """None where the credential is none of this way's. Raises NotLetIn, CannotTell."""
