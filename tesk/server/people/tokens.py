"""API tokens: a way in for programs, whose users have signed in by another way or were named by the operator.

Access tokens of identity providers last for an hour and workflow engines run for days, so the server gives out tokens
of its own. A token acts for its user with the scopes that it was made with, until its end or until it is revoked. Its
text is shown once; the database has its digest (store/tokens.py). A token works as Bearer, as an API key, and as the
password of Basic with any user name, since the names of some users cannot be written there.

What is known of its user now counts, not what was known when it was made: the token of a user whom the way in does not
know any more lets nobody in, and a later sign-in renews the user's groups.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tesk import clock
from tesk.identity import SCOPES, Identity, Scope
from tesk.server.people.way import OWN_TOKEN, CallerCredential, CannotTell, LetIn, NotLetIn
from tesk.store.base import StoreError
from tesk.store.identifiers import now_ms
from tesk.store.tokens import ApiToken, TokenTable, UserRights

NAME: Final = "token"
DAY_S: Final = 24 * 3600
USUAL_DAYS: Final = 90
OPERATOR: Final = "operator"
"""The way of tokens that an operator made on the server's machine: no way in knows their users."""
GOOD_FOR_S: Final = 5.0
"""An identity is taken from the edge's cache for this long: a revocation by another server holds after that."""
NOTES_S: Final = 60.0
"""Time between two writes of what was noted: last uses and rights."""
CLOSE_LIMIT_S: Final = 5.0

Known = Callable[[str], Identity | None]
"""The user as a way in knows it now, or None."""
log: Final = logging.getLogger(__name__)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def new_text() -> str:
    return OWN_TOKEN + secrets.token_urlsafe(32)


def new_token(
    identity: Identity, name: str, made_ms: int, lasts_s: float, scopes: Sequence[Scope] = SCOPES
) -> ApiToken:
    """A token of the identity's user."""
    return ApiToken(
        id=secrets.token_hex(6),
        user=identity.user,
        name=name,
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        way=identity.way,
        rights=rights_of(identity),
        made_ms=made_ms,
        expires_ms=made_ms + int(lasts_s * 1000),
    )


def check_name(name: str) -> None:
    """Raises ValueError."""
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise ValueError("the name of an API token has 1 to 100 printable characters")


def lasts_s(asked_s: float | None, most_days: int) -> float:
    """How long a new token lasts. Raises ValueError for longer than the setting `token_days` allows."""
    if asked_s is None:
        return min(USUAL_DAYS, most_days) * DAY_S
    if asked_s > most_days * DAY_S:
        raise ValueError(f"an API token lasts at most {most_days} days here (setting token_days)")
    return asked_s


def rights_of(identity: Identity) -> UserRights:
    groups, manages = tuple(sorted(identity.groups)), tuple(sorted(identity.manages))
    return UserRights(identity.shown, groups, manages, identity.default_group)


class ApiTokens:
    """The way in (way.WayIn) by API token. `ways`: the other ways in by name, each with what it knows of users now.

    None in the place of that: the way knows only who signs in, so the user is as at the last sign-in.
    """

    name = NAME
    challenge = 'Bearer realm="tesk"'

    def __init__(
        self, table: TokenTable, ways: Mapping[str, Known | None], clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._table = table
        self._ways = ways
        self._learnt_ways = frozenset(name for name, known in ways.items() if known is None)
        self._now_ms = clock_ms
        self._used: dict[str, int] = {}
        self._rights: dict[tuple[str, str], UserRights] = {}
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._writing = asyncio.create_task(self._keep_writing())

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self.write_notes()

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        if not credential.is_own_token:
            return None
        try:
            token = await self._table.find(digest(credential.secret))
        except StoreError as error:
            raise CannotTell(str(error)) from error
        if token is None:
            raise NotLetIn("this API token is not known: it was never made here, or ended long ago")
        now = self._now_ms()
        if reason := token.ended(now):
            raise NotLetIn(f"the API token {token.name!r} {reason}: make another")
        identity = self._identity(token)
        self._note_use(token, now)
        return LetIn(identity, min(GOOD_FOR_S, (token.expires_ms - now) / 1000))

    def learn(self, identity: Identity) -> None:
        """Notes the rights of a user who signed in by another way, for the tokens that the user made that way."""
        if identity.way not in self._learnt_ways:
            return
        self._rights[identity.user, identity.way] = rights_of(identity)

    async def write_notes(self) -> None:
        """Writes last uses and learnt rights. What cannot be written is logged and tried again."""
        try:
            for token_id, used_ms in [*self._used.items()]:
                await self._table.note_use(token_id, used_ms)
                if self._used.get(token_id) == used_ms:
                    del self._used[token_id]
            for key, rights in [*self._rights.items()]:
                await self._table.note_rights(*key, rights)
                if self._rights.get(key) == rights:
                    del self._rights[key]
        except StoreError as error:
            log.warning("what was noted of API tokens could not be stored, and is tried again: %s", error)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(NOTES_S)
            await self.write_notes()

    def _identity(self, token: ApiToken) -> Identity:
        """The token's user as far as known now. Raises NotLetIn where the way in does not know the user any more."""
        rights = token.rights
        if token.way != OPERATOR:
            if token.way not in self._ways:
                raise NotLetIn(
                    f"the API token {token.name!r} was made by signing in with {token.way}, which is off now"
                )
            known = self._ways[token.way]
            if known is None:
                rights = self._rights.get((token.user, token.way), rights)
            elif (user := known(token.user)) is None:
                raise NotLetIn(f"the user of the API token {token.name!r} was removed")
            else:
                rights = rights_of(user)
        return Identity(
            user=token.user,
            shown=rights.shown,
            groups=frozenset(rights.groups),
            manages=frozenset(rights.manages),
            default_group=rights.default_group,
            scopes=frozenset(token.scopes),
            way=NAME,
            token=token.id,
        )

    def _note_use(self, token: ApiToken, now: int) -> None:
        if token.used_ms is None or now - token.used_ms >= NOTES_S * 1000:
            self._used[token.id] = now


def document(token: ApiToken, text: str = "") -> dict[str, Any]:
    """A token as the API shows it: never its digest, and its text only when it is made."""
    shown: dict[str, Any] = {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "scopes": token.scopes,
        "made": clock.at(token.made_ms),
        "expires": clock.at(token.expires_ms),
    }
    if token.used_ms is not None:
        shown["last_used"] = clock.at(token.used_ms)
    if token.revoked_ms is not None:
        shown["revoked"] = clock.at(token.revoked_ms)
    return {**shown, "token": text} if text else shown
