"""The handlers of /api/v1/tokens: users make, list and revoke their API tokens.

Whoever comes with an API token makes none: else a token that leaked would outlive its end and its revocation. With a
token, a user may list the tokens and revoke that one alone.
"""

import re
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from tesk import clock
from tesk.identity import SCOPES, Identity, Scope
from tesk.server.body import Bodies
from tesk.server.database_limit import DatabaseLimit
from tesk.server.exchange import Call, Refusal, Reply, encode
from tesk.server.log import Log
from tesk.server.people import tokens
from tesk.server.people.audit import note
from tesk.server.people.tokens import document, lasts_s, new_text, new_token
from tesk.server.query import fields
from tesk.store.identifiers import now_ms
from tesk.store.tokens import ApiToken, TokenTable

BODY_BYTES: Final = 16 * 1024
MOST_TOKENS: Final = 100
"""Tokens of one user that work at once."""


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a POST."""

    name: str
    scopes: tuple[Scope, ...] = SCOPES
    expires_in_s: Annotated[int, Meta(ge=60)] | None = None


_decode: Final = msgspec.json.Decoder(Wanted).decode


class TokenCalls:
    """`most_days`: the longest life of a token. `forget(user)` has the edge ask the ways in about that user again."""

    def __init__(self, table: TokenTable, most_days: int, forget: Callable[[str], None], log: Log | None) -> None:
        self._log = log
        self._table = table
        self._most_days = most_days
        self._forget = forget
        self._bodies = Bodies(BODY_BYTES)
        self._within = DatabaseLimit().within

    async def make(self, call: Call) -> Reply:
        user = _signed_in(call)
        if user.token:
            raise Refusal(403, "an API token cannot make another: sign in, or ask the operator of the server for one")
        wanted = _wanted(await self._bodies.read_json(call))
        if missing := [scope for scope in wanted.scopes if scope not in user.scopes]:
            raise Refusal(403, f"your own credential lacks the scope {missing[0]}", "scopes")
        try:
            life_s = lasts_s(wanted.expires_in_s, self._most_days)
        except ValueError as error:
            raise Refusal(400, str(error), "expires_in_s") from None
        text, token = new_text(), new_token(user, wanted.name, now_ms(), life_s, wanted.scopes)
        await self._within(self._add(token, text))
        facts = {"token": token.id, "scopes": " ".join(token.scopes), "expires": clock.at(token.expires_ms)}
        note(self._log, "token made", user, **facts)
        return Reply(200, encode(document(token, text)), _NOT_KEPT)

    async def _add(self, token: ApiToken, text: str) -> None:
        if await self._table.count(token.user, token.made_ms) >= MOST_TOKENS:
            raise Refusal(409, f"you have {MOST_TOKENS} API tokens that work: revoke one first")
        await self._table.add(token, tokens.digest(text))

    async def list_(self, call: Call) -> Reply:
        """The caller's tokens; for an admin those of the user whom the query names."""
        user = _signed_in(call)
        wanted = dict(fields(call.query)).get("user") or user.user
        if wanted != user.user and not user.is_admin:
            raise Refusal(403, "only an admin sees the API tokens of others", "user")
        found = await self._within(self._table.list(wanted))
        return Reply(200, encode({"tokens": [document(token) for token in found]}))

    async def revoke(self, call: Call) -> Reply:
        """Ends a token of the caller's; for an admin anybody's. A token that was revoked before stays as it is."""
        user = _signed_in(call)
        token_id = call.item
        if user.token and user.token != token_id:
            raise Refusal(403, "an API token can revoke itself alone: sign in to revoke another")
        of_user = None if user.is_admin else user.user
        token = await self._within(self._table.revoke(token_id, of_user, now_ms()))
        if token is None:
            raise Refusal(404, f"there is no API token {token_id[:64]!r}", "id")
        self._forget(token.user)
        note(self._log, "token revoked", user, token=token.id, of=token.user)
        return Reply(200, encode(document(token)))


_NOT_KEPT: Final = ((b"cache-control", b"no-store"),)
_FIELD: Final = re.compile(r" - at `\$\.?([^`]*)`$")


def _signed_in(call: Call) -> Identity:
    if not call.identity.user:
        raise Refusal(403, "API tokens are for users, and nobody is signed in")
    return call.identity


def _wanted(body: bytes) -> Wanted:
    try:
        wanted = _decode(body)
    except msgspec.MsgspecError as error:
        place = _FIELD.search(str(error))
        raise Refusal(
            400, f"the body is no API token to make: {_FIELD.sub('', str(error))}", place[1] if place else ""
        ) from None
    if not wanted.scopes:
        raise Refusal(400, f"a token needs a scope: one of {', '.join(SCOPES)}", "scopes")
    try:
        tokens.check_name(wanted.name)
    except ValueError as error:
        raise Refusal(400, str(error), "name") from None
    return wanted
