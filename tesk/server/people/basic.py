"""The way in `basic`: a name and a password, held against a file of users.

The file is read again when it has changed; an unusable one is reported, and the users before it stay. A wrong password
and an unknown name take the same time: for an unknown name some user's hash is checked, and the result dropped.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tesk.identity import NOBODY, Identity
from tesk.server.log import Log
from tesk.server.people import users
from tesk.server.people.audit import note
from tesk.server.people.passwords import Checks
from tesk.server.people.way import CallerCredential, LetIn, NotLetIn, PeopleError
from tesk.watched_file import WatchedFile

GOOD_FOR_S: Final = 3600.0


class Basic:
    """`forget` is called with the name of each user who has changed or gone."""

    name = "basic"
    challenge = 'Basic realm="tesk", charset="UTF-8"'

    def __init__(self, path: Path, forget: Callable[[str], None], log: Log | None = None) -> None:
        self._forget = forget
        self._log = log
        self._is_read = False
        self._checks = Checks()
        self._users: users.Users = {}
        self._file = WatchedFile(path, users.read, self._use, PeopleError, "the users are those of before")

    async def open(self) -> None:
        """Raises PeopleError."""
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()
        self._checks.close()

    async def identify(self, credential: CallerCredential) -> LetIn | None:
        if credential.kind != "basic" or credential.is_own_token:
            return None
        user = self._users.get(credential.user)
        hashed = user.password if user else self._some_hash(credential.user)
        is_right = await self._checks.is_right(hashed, credential.secret) if hashed else False
        if user is None or not is_right:
            raise NotLetIn("there is no user with this name and password")
        return LetIn(_identity(credential.user, user), GOOD_FOR_S)

    def known(self, name: str) -> Identity | None:
        """The user of that name as the file has it now."""
        user = self._users.get(name)
        return None if user is None else _identity(name, user)

    def _some_hash(self, name: str) -> str:
        """One of the hashes, the same for a name each time: hashes of different cost tell nothing either."""
        hashes = [user.password for user in self._users.values()]
        return hashes[zlib.crc32(name.encode()) % len(hashes)] if hashes else ""

    def _use(self, found: users.Users) -> None:
        before, self._users = self._users, found
        for name in {**before, **found}:
            if found.get(name) == before.get(name):
                continue
            if name in before:
                self._forget(name)
            if self._is_read:
                verb = "added" if name not in before else "changed" if name in found else "removed"
                note(self._log, f"user {verb}", NOBODY, of=name)
        self._is_read = True


def _identity(name: str, user: users.User) -> Identity:
    return Identity(
        user=name,
        shown=user.shown or name,
        groups=frozenset((*user.groups, *user.manages)),
        manages=frozenset(user.manages),
        default_group=next(iter((*user.groups, *user.manages)), ""),
    )
