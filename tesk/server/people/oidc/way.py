"""The way in for access tokens of OpenID Connect providers: JWTs and, of one provider, opaque tokens.

A JWT is verified here, by the provider's keys. What only the provider can tell (groups, what an opaque token says) it
is asked once for each token and `cache_s`, however many requests come at once. What it told holds for that long, also
while the provider is away; whoever comes anew then cannot be told from a stranger (503).
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tesk.identity import Identity
from tesk.server.people.oidc.claims import (
    Claims,
    check_introspected,
    check_scopes,
    good_for_s,
    identity_of,
    must_ask,
)
from tesk.server.people.oidc.issuers import Issuer
from tesk.server.people.oidc.provider import JWTS, Provider
from tesk.server.people.way import CallerCredential, CannotTell, LetIn, NotLetIn

if TYPE_CHECKING:
    from tesk.server.people.oidc.jwts import JwtHead

MOST_ANSWERS: Final = 8192


class Answer(Struct, frozen=True):
    """What came of asking about a token: an identity, or why it is not let in. Holds until `until`."""

    until: float
    identity: Identity | None
    reason: str = ""


class Oidc:
    """The way in through these issuers. `clock` gives seconds that only grow."""

    name = "oidc"
    challenge = 'Bearer realm="tesk"'

    def __init__(self, issuers: Sequence[Issuer], clock: Callable[[], float] = time.monotonic) -> None:
        self.providers = {issuer.issuer: Provider(issuer, clock) for issuer in issuers}
        self._opaque = next((each for each in self.providers.values() if each.issuer.opaque_tokens != "refused"), None)
        self._clock = clock
        self._answers: dict[bytes, Answer] = {}
        self._digest_key = os.urandom(16)
        self._jwts: ModuleType | None = None

    async def open(self) -> None:
        """Asks no provider yet, so that one that is away stops no start."""

    async def close(self) -> None:
        await asyncio.gather(*(provider.close() for provider in self.providers.values()))

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        token = credential.secret
        if credential.kind != "bearer" or credential.is_own_token:
            return None
        key = hashlib.blake2b(token.encode(), key=self._digest_key).digest()
        answer = self._answers.get(key)
        if answer is None or answer.until <= self._clock():
            if self._jwts is None:
                self._jwts = await asyncio.to_thread(import_module, JWTS)
            head = self._jwts.head(token)
            provider = self._opaque if head is None else self._issuing(head.issuer)
            if provider is None:
                return None
            claims = None if head is None else await _verified(self._jwts, token, head, provider)
            if claims is not None and not must_ask(provider.issuer, claims, "token"):
                return LetIn(identity_of(provider.issuer, claims), good_for_s(provider.issuer, claims, time.time()))
            answer = await provider.shared(key.hex(), partial(self._ask, provider, key, token, claims))
        if answer.identity is None:
            raise NotLetIn(answer.reason)
        return LetIn(answer.identity, max(0.0, answer.until - self._clock()))

    def _issuing(self, issuer: str) -> Provider:
        provider = self.providers.get(issuer)
        if provider is None:
            raise NotLetIn("the token is of an issuer that this server does not trust")
        return provider

    async def _ask(self, provider: Provider, key: bytes, token: str, claims: Claims | None) -> Answer:
        """What the provider says of the token, remembered. `claims` are those of a JWT. Raises CannotTell."""
        said: Claims = claims or {}
        identity, reason = None, ""
        try:
            said = claims if claims is not None else await _opened(provider, token)
            further = await _further(provider, token, said, is_jwt=claims is not None)
            identity = identity_of(provider.issuer, said, further)
        except NotLetIn as refusal:
            reason = str(refusal)
        answer = Answer(self._clock() + good_for_s(provider.issuer, said, time.time()), identity, reason)
        if len(self._answers) >= MOST_ANSWERS:
            self._make_room()
        self._answers[key] = answer
        return answer

    def _make_room(self) -> None:
        """Forgets the answers that hold no longer, or else the oldest."""
        now = self._clock()
        self._answers = {key: answer for key, answer in self._answers.items() if answer.until > now}
        for key in list(self._answers)[: len(self._answers) - MOST_ANSWERS + 1]:
            del self._answers[key]


async def _verified(jwts: ModuleType, token: str, head: "JwtHead", provider: Provider) -> Claims:
    """The claims of a JWT. Raises NotLetIn, CannotTell."""
    keys = await provider.keys()
    try:
        claims: Claims = jwts.verified(token, head, keys.keys, provider.issuer)
    except jwts.UnknownKey:
        newer = await provider.keys_after(keys)
        try:
            claims = jwts.verified(token, head, newer.keys if newer else (), provider.issuer)
        except jwts.UnknownKey:
            raise NotLetIn("the token is signed by a key that its issuer does not have") from None
    check_scopes(provider.issuer, claims)
    return claims


async def _opened(provider: Provider, token: str) -> Claims:
    """What the provider says of an opaque token. Raises NotLetIn, CannotTell."""
    provider.take_from_budget()
    try:
        if provider.issuer.opaque_tokens == "userinfo":
            claims = await provider.userinfo(token)
        else:
            claims = await provider.introspection(token)
            check_introspected(provider.issuer, claims, time.time())
    except CannotTell:
        provider.give_back_to_budget()
        raise
    provider.give_back_to_budget()
    return claims


async def _further(provider: Provider, token: str, claims: Claims, *, is_jwt: bool) -> Claims:
    """What is to be known beside the claims of the token. Raises NotLetIn, CannotTell."""
    issuer = provider.issuer
    if not must_ask(issuer, claims, "token" if is_jwt else issuer.opaque_tokens):
        return {}
    if issuer.groups_from == "introspection":
        further = await provider.introspection(token)
    elif issuer.groups_from == "userinfo" or await provider.has_userinfo():
        further = await provider.userinfo(token)
    else:
        return {}
    if not claims.get("sub") or further.get("sub") != claims["sub"]:
        raise NotLetIn(f"issuer {issuer.name} told of another user than the token's")
    return further
