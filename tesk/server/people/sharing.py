"""The handlers of /api/v1/shares: a user lets colleagues see the user's tasks, all of them, and nothing more.

Who shares is who calls: nobody shares the tasks of another, an admin neither.
"""

from typing import Final

import msgspec
from msgspec import Struct

from tesk.server.body import Bodies
from tesk.server.database_limit import DatabaseLimit
from tesk.server.exchange import Call, Refusal, Reply, encode
from tesk.server.log import Log
from tesk.server.people.audit import note
from tesk.server.query import fields
from tesk.store.base import Store

BODY_BYTES: Final = 16 * 1024
MOST_CHARACTERS: Final = 300
MOST_COLLEAGUES: Final = 100
"""With whom one user may share, and who may share with one: each of these is one more scan for the other's lists."""


class Colleague(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a POST."""

    user: str


_decode: Final = msgspec.json.Decoder(Colleague).decode


class Sharing:
    """Each answers with whom the caller shares (`seen_by`), and who shares with the caller (`sees`)."""

    def __init__(self, store: Store, log: Log | None) -> None:
        self._store = store
        self._log = log
        self._bodies = Bodies(BODY_BYTES)
        self._within = DatabaseLimit().within

    async def list_(self, call: Call) -> Reply:
        shares = await self._within(self._store.shares(_user(call)))
        return Reply(200, encode({"seen_by": shares.seen_by, "sees": shares.sees}))

    async def share(self, call: Call) -> Reply:
        user = _user(call)
        try:
            colleague = _decode(await self._bodies.read_json(call)).user
        except msgspec.MsgspecError as error:
            raise Refusal(400, f"the body does not name a user to share with: {error}", "user") from None
        _check(colleague)
        if colleague == user:
            raise Refusal(400, "you see your own tasks anyway", "user")
        seen_by = (await self._within(self._store.shares(user))).seen_by
        if len(seen_by) >= MOST_COLLEAGUES and colleague not in seen_by:
            raise Refusal(409, f"you share with {MOST_COLLEAGUES} users: take that back from one first")
        if len((await self._within(self._store.shares(colleague))).sees) >= MOST_COLLEAGUES:
            raise Refusal(409, f"{colleague!r} sees the tasks of {MOST_COLLEAGUES} users, and no more can be", "user")
        await self._within(self._store.share(user, colleague))
        note(self._log, "shared", call.identity, colleague=colleague)
        return await self.list_(call)

    async def unshare(self, call: Call) -> Reply:
        user = _user(call)
        colleague = dict(fields(call.query)).get("user", "")
        _check(colleague)
        if colleague not in (await self._within(self._store.shares(user))).seen_by:
            raise Refusal(404, f"you do not share with {colleague!r}", "user")
        await self._within(self._store.unshare(user, colleague))
        note(self._log, "not shared any more", call.identity, colleague=colleague)
        return await self.list_(call)


def _user(call: Call) -> str:
    if not call.identity.user:
        raise Refusal(403, "users share, and nobody is signed in")
    return call.identity.user


def _check(colleague: str) -> None:
    if not colleague.isprintable() or not 0 < len(colleague) <= MOST_CHARACTERS:
        raise Refusal(400, f"name a user, by at most {MOST_CHARACTERS} printable characters", "user")
