"""API tokens in the database: a row for each, which has the digest of the token's text and never the text.

A token is found by its digest, so a copy of the database lets nobody in: the text has 256 random bits, which nobody
guesses, and so needs no slow hash. Rows of tokens that have ended stay for a month, so that their owner sees why.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from tesk.identity import Scope

KEPT_MS: Final = 30 * 24 * 3600 * 1000
"""A row is kept for this long after its token has ended."""
MOST: Final = 1000
"""Rows of an answer at most."""

Run = Callable[[str, Sequence[Any]], Awaitable[Sequence[Sequence[Any]]]]
"""Runs one statement, whose parameters are written as `?`, and gives its rows."""


class UserRights(Struct, frozen=True, omit_defaults=True):
    """What the user of a token was when the token was made, or at the last sign-in since."""

    shown: str = ""
    groups: tuple[str, ...] = ()
    manages: tuple[str, ...] = ()
    default_group: str = ""


class ApiToken(Struct, frozen=True, kw_only=True):
    id: str
    user: str
    name: str
    """What the user calls it."""
    scopes: tuple[Scope, ...]
    way: str
    """The way in by which the user had signed in when the token was made; `operator`: made on the server's machine."""
    rights: UserRights
    made_ms: int
    expires_ms: int
    used_ms: int | None = None
    """When it was last used, to within about a minute."""
    revoked_ms: int | None = None

    def ended(self, now_ms: int) -> str | None:
        """Why it lets nobody in any more, or None."""
        if self.revoked_ms is not None:
            return "was revoked"
        return "has expired" if self.expires_ms <= now_ms else None


_COLUMNS: Final = "id, username, name, scopes, way, rights, made, expires, used, revoked"
_INSERT: Final = f"INSERT INTO api_token ({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND: Final = f"SELECT {_COLUMNS} FROM api_token WHERE digest = ?"
_OF_USER: Final = f"SELECT {_COLUMNS} FROM api_token WHERE username = ? ORDER BY made DESC, id LIMIT {MOST}"
_COUNT: Final = "SELECT count(*) FROM api_token WHERE username = ? AND revoked IS NULL AND expires > ?"
_ALL: Final = f"SELECT {_COLUMNS} FROM api_token ORDER BY made DESC, id LIMIT {MOST}"
_REVOKE: Final = f"UPDATE api_token SET revoked = coalesce(revoked, ?) WHERE id = ? RETURNING {_COLUMNS}"
_REVOKE_OF_USER: Final = (
    f"UPDATE api_token SET revoked = coalesce(revoked, ?) WHERE id = ? AND username = ? RETURNING {_COLUMNS}"
)
_USED: Final = "UPDATE api_token SET used = ? WHERE id = ? AND (used IS NULL OR used < ?)"
_RIGHTS: Final = "UPDATE api_token SET rights = ? WHERE username = ? AND way = ? AND rights <> ?"
_FORGET: Final = "DELETE FROM api_token WHERE username = ? AND coalesce(revoked, expires) < ?"
_decode: Final = msgspec.json.Decoder(UserRights).decode


class TokenTable:
    """The table of API tokens. `read` and `write` run a statement in the database."""

    def __init__(self, read: Run, write: Run) -> None:
        self._read = read
        self._write = write

    async def add(self, token: ApiToken, digest: bytes) -> None:
        """Stores a new token. Removes those of its user that ended long ago."""
        await self._write(_FORGET, (token.user, token.made_ms - KEPT_MS))
        scopes, rights = " ".join(token.scopes), msgspec.json.encode(token.rights)
        times = (token.made_ms, token.expires_ms, token.used_ms, token.revoked_ms)
        await self._write(_INSERT, (token.id, token.user, token.name, scopes, token.way, rights, *times, digest))

    async def find(self, digest: bytes) -> ApiToken | None:
        return _first(await self._read(_FIND, (digest,)))

    async def list(self, user: str | None) -> list[ApiToken]:
        """The newest tokens of a user, or with None of everybody, newest first."""
        rows = await (self._read(_ALL, ()) if user is None else self._read(_OF_USER, (user,)))
        return [_token(row) for row in rows]

    async def count(self, user: str, now_ms: int) -> int:
        """How many tokens of a user have not ended."""
        found: int = (await self._read(_COUNT, (user, now_ms)))[0][0]
        return found

    async def revoke(self, token_id: str, user: str | None, now_ms: int) -> ApiToken | None:
        """Ends a token, of that user if one is given. The token as it is now; None if there is none."""
        if user is None:
            return _first(await self._write(_REVOKE, (now_ms, token_id)))
        return _first(await self._write(_REVOKE_OF_USER, (now_ms, token_id, user)))

    async def note_use(self, token_id: str, used_ms: int) -> None:
        await self._write(_USED, (used_ms, token_id, used_ms))

    async def note_rights(self, user: str, way: str, rights: UserRights) -> None:
        """Gives the user's tokens that were made after signing in by `way` the rights of a later sign-in."""
        written = msgspec.json.encode(rights)
        await self._write(_RIGHTS, (written, user, way, written))


def _first(rows: Sequence[Sequence[Any]]) -> ApiToken | None:
    return _token(rows[0]) if rows else None


def _token(row: Sequence[Any]) -> ApiToken:
    token_id, user, name, scopes, way, rights, made, expires, used, revoked = row
    return ApiToken(
        id=token_id,
        user=user,
        name=name,
        scopes=tuple(scopes.split()),
        way=way,
        rights=_decode(rights),
        made_ms=made,
        expires_ms=expires,
        used_ms=used,
        revoked_ms=revoked,
    )
