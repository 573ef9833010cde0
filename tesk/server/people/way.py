"""A way in: what makes an identity of a credential.

The edge (edge.py) reads the credential of a request once and asks each way in turn. A way knows nothing of HTTP but the
challenge that names it.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from tesk.identity import Identity

Address = IPv4Address | IPv6Address
OWN_TOKEN: Final = "tesk_"  # noqa: S105 - how one begins
"""API tokens of this server begin so. They have 256 random bits, so that nobody guesses one."""


class CallerCredential(NamedTuple):
    """What a request shows.

    `basic`: a user and a password; `bearer` and `key`: a token; `forwarded`: what a proxy says.
    `secret` never stands in a log, an answer or an error.
    """

    kind: Literal["basic", "bearer", "key", "forwarded"]
    user: str
    secret: str
    address: Address | None = None
    """Where the request comes from."""
    groups: tuple[str, ...] = ()
    """What a proxy says (X-Forwarded-Groups)."""

    @property
    def is_own_token(self) -> bool:
        """Whether it is an API token of this server, also as the password of Basic: other ways leave it alone."""
        return self.secret.startswith(OWN_TOKEN)


class LetIn(Struct, frozen=True):
    """An identity and for how many seconds it may be taken from a cache; 0: ask again at the next request."""

    identity: Identity
    good_for_s: float = 0.0


class IssuerLogin(Struct, frozen=True):
    """What `tesk login` has to know of an issuer, to get a token of it as the public client `client_id`."""

    name: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    resource: str
    """For which the token is to be (RFC 8707); empty: for none in particular."""


class PeopleError(ValueError):
    """What is configured of a way in cannot be used, or lets the world in: the server does not start.

    The message names the setting or the file, and the place in it.
    """


class NotLetIn(Exception):
    """The credential is this way's, and no good: 401. The message says why, without the secret."""


class CannotTell(Exception):
    """Whether the credential is good cannot be known now (the provider is away): 503."""


class WayIn(Protocol):
    """Ways are asked in turn until one gives an identity or raises."""

    name: str
    """As service-info, the audit log and messages name it: basic, token, oidc, proxy."""
    challenge: str
    """For WWW-Authenticate; empty where there is none."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        """None where the credential is none of this way's. Raises NotLetIn, CannotTell."""
