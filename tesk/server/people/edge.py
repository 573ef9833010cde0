"""The edge: finds out once for each request who calls.

It reads the credential, asks the ways in, and keeps what they answer for as long as they say, by a keyed digest of the
credential: a server that is read in memory shows no credential that could be used. A credential is checked once, also
when many requests bring it at once. Bad credentials are kept for a moment, too, so that a client which repeats one
costs nothing; different bad ones are limited (tries.py).
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from tesk.identity import NOBODY, Identity, Scope
from tesk.server.exchange import Call, Header, Refusal
from tesk.server.log import Log
from tesk.server.people.audit import note
from tesk.server.people.credentials import NOTHING, Networks, address_of, credentials, is_within, shown
from tesk.server.people.tries import Tries
from tesk.server.people.way import Address, CallerCredential, CannotTell, IssuerLogin, NotLetIn, WayIn

K = TypeVar("K")
V = TypeVar("V")
BAD_FOR_S: Final = 10.0
MOST_GOOD: Final = 50_000
MOST_BAD: Final = 10_000
CHECK_LIMIT_S: Final = 9.0
SEEN_FOR_S: Final = 3600.0
"""A user is in the audit log once in this time and for each way."""
AGAIN_S: Final = 5


class _Kept(NamedTuple):
    """What is known of a credential until a moment: an identity, or why it is no good."""

    until: float
    identity: Identity
    reason: str = ""


class Edge:
    """Owns the ways in. `trusted`: the networks of proxies whose word counts."""

    def __init__(
        self, *, admins: Collection[str], admin_groups: Collection[str], trusted: Networks, log: Log | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.ways: list[WayIn] = []
        self.learn: Callable[[Identity], None] = lambda _: None
        """Is told who was let in, each time that a way was asked."""
        self.logins: list[IssuerLogin] = []
        self._admins = frozenset(admins)
        self._admin_groups = frozenset(admin_groups)
        self._trusted = trusted
        self._log = log
        self._now = now
        self._tries = Tries(now)
        self._key = os.urandom(32)
        self._good: dict[bytes, _Kept] = {}
        self._bad: dict[bytes, _Kept] = {}
        self._checking: dict[bytes, asyncio.Task[_Kept]] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._forgotten = 0

    async def open(self) -> None:
        for way in self.ways:
            await way.open()

    async def close(self) -> None:
        checking = [*self._checking.values()]
        for task in checking:
            task.cancel()
        await asyncio.gather(*checking, return_exceptions=True)
        for way in reversed(self.ways):
            await way.close()

    def forget(self, user: str) -> None:
        """The next request of the user is checked anew: a password, a group or a token has changed."""
        self._forgotten += 1
        for digest in [digest for digest, kept in self._good.items() if kept.identity.user == user]:
            del self._good[digest]

    async def identify(self, call: Call) -> Identity:
        """Raises Refusal (400, 401, 429, 503)."""
        host = call.scope["client"][0] if call.scope.get("client") else ""
        is_proxy = bool(self._trusted) and is_within(address_of(host, {}, is_proxy=False), self._trusted)
        found = shown(call, is_proxy=is_proxy)
        if found == NOTHING:
            raise self._refused("sign in", ())
        digest = blake2b(b"\0".join(found), key=self._key, digest_size=16).digest()
        kept = self._good.get(digest)
        if kept is None or kept.until < self._now():
            kept = self._bad.get(digest)
        if kept is None or kept.until < self._now():
            given = credentials(found, address_of(host, call.headers, is_proxy=is_proxy))
            kept = await self._checked(digest, given)
        if kept.reason:
            raise self._refused(kept.reason, found)
        return kept.identity

    def check_scope(self, identity: Identity, needs: Scope | Literal["signed-in", "open"]) -> None:
        """Raises Refusal (403)."""
        if needs not in ("signed-in", "open") and needs not in identity.scopes:
            challenge = f'Bearer realm="tesk", error="insufficient_scope", scope="{needs}"'.encode()
            reason = f"this credential is good for {', '.join(sorted(identity.scopes)) or 'nothing'}; it needs {needs}"
            raise Refusal(403, reason, headers=((b"www-authenticate", challenge),))

    async def _checked(self, digest: bytes, given: Sequence[CallerCredential]) -> _Kept:
        """Checks a credential, once for all requests that bring it meanwhile."""
        if not given:
            return _Kept(0.0, NOBODY, "sign in")
        task = self._checking.get(digest)
        if task is None:
            task = self._checking[digest] = asyncio.create_task(self._check(digest, given))
            task.add_done_callback(lambda _: self._checking.pop(digest, None))
        try:
            return await asyncio.shield(task)
        except CannotTell as error:
            raise Refusal(503, str(error), headers=((b"retry-after", b"%d" % AGAIN_S),)) from None

    async def _check(self, digest: bytes, given: Sequence[CallerCredential]) -> _Kept:
        """What the first good credential is worth, else why the first one is no good. Raises CannotTell, Refusal."""
        forgotten = self._forgotten
        reason = ""
        try:
            async with asyncio.timeout(CHECK_LIMIT_S):
                for credential in given:
                    try:
                        kept = await self._let_in(credential)
                    except NotLetIn as error:
                        reason = reason or str(error)
                        continue
                    if forgotten == self._forgotten:
                        _keep(self._good, digest, kept, MOST_GOOD)
                    return kept
        except TimeoutError:
            raise CannotTell(f"the credential could not be checked within {CHECK_LIMIT_S:.0f} s; try again") from None
        kept = _Kept(self._now() + BAD_FOR_S, NOBODY, reason)
        _keep(self._bad, digest, kept, MOST_BAD)
        return kept

    async def _let_in(self, credential: CallerCredential) -> _Kept:
        """Raises NotLetIn, CannotTell, and Refusal (429) where there were too many wrong tries."""
        is_limited = credential.kind != "forwarded" and not credential.is_own_token
        if is_limited and (wait := self._tries.take(credential.address, credential.user)):
            reason = "too many wrong tries to sign in; wait as long as Retry-After says"
            raise Refusal(429, reason, headers=((b"retry-after", b"%d" % math.ceil(wait)),))
        is_wrong = False
        try:
            for way in self.ways:
                if found := await way.identify(credential):
                    identity = self._with_rights(msgspec.structs.replace(found.identity, way=way.name))
                    self.learn(identity)
                    self._note_seen(identity, way.name, credential.address)
                    return _Kept(self._now() + found.good_for_s, identity)
            raise NotLetIn("no way into this server takes this credential")
        except NotLetIn as error:
            is_wrong = True
            note(self._log, "not let in", NOBODY, reason=str(error), address=str(credential.address or ""))
            raise
        finally:
            if is_limited and not is_wrong:
                self._tries.give_back(credential.address, credential.user)

    def _with_rights(self, identity: Identity) -> Identity:
        if not identity.user:
            raise NotLetIn("the credential names no user")
        if identity.user in self._admins or identity.groups & self._admin_groups:
            return msgspec.structs.replace(identity, is_admin=True)
        return identity

    def _note_seen(self, identity: Identity, way: str, address: Address | None) -> None:
        now = self._now()
        if self._seen.get((identity.user, way), -math.inf) < now - SEEN_FOR_S:
            _keep(self._seen, (identity.user, way), now, MOST_GOOD)
            note(self._log, "signed in", identity, way=way, address=str(address or ""))

    def _refused(self, reason: str, found: Sequence[bytes]) -> Refusal:
        """401 with a challenge for each way in."""
        names = ", ".join(way.name for way in self.ways)
        challenges: list[Header] = []
        for challenge in dict.fromkeys(way.challenge for way in self.ways if way.challenge):
            is_refused = found and challenge.startswith("Bearer") and found[0][:7].lower() == b"bearer "
            text = f'{challenge}, error="invalid_token"' if is_refused else challenge
            challenges.append((b"www-authenticate", text.encode()))
        return Refusal(401, f"{reason}; ways in: {names}", headers=tuple(challenges))


def _keep(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """Adds an entry, and drops the oldest where there are too many."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
