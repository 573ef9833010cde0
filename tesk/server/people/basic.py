"""The way in `basic`: a name and a password, held against a file of users.

The file is read again when it has changed; an unusable one is reported, and the users before it stay. A wrong password
and an unknown name take the same time: for an unknown name some user's hash is checked, and the result dropped.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tesk.identity import Identity
from tesk.server.people import users
from tesk.server.people.passwords import Checks
from tesk.server.people.way import CallerCredential, LetIn, NotLetIn, PeopleError

LOOK_EVERY_S: Final = 2.0
GOOD_FOR_S: Final = 3600.0
log: Final = logging.getLogger(__name__)


class Basic:
    """`forget` is called with the name of each user who has changed or gone."""

    name = "basic"
    challenge = 'Basic realm="tesk", charset="UTF-8"'

    def __init__(self, path: Path, forget: Callable[[str], None]) -> None:
        self._path = path
        self._forget = forget
        self._checks = Checks()
        self._users: users.Users = {}
        self._version: tuple[int, ...] = ()
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises PeopleError."""
        self._version, self._users = await asyncio.to_thread(_read, self._path)
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
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

    async def _watch(self) -> None:
        reported = ""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if await asyncio.to_thread(_version, self._path) == self._version:
                    continue
                version, found = await asyncio.to_thread(_read, self._path)
            except (PeopleError, OSError) as error:
                if str(error) != reported:
                    reported = str(error)
                    log.error(f"{error}; the users are those of before")
                continue
            before, self._users, self._version, reported = self._users, found, version, ""
            for name in before:
                if found.get(name) != before[name]:
                    self._forget(name)


def _identity(name: str, user: users.User) -> Identity:
    return Identity(
        user=name,
        shown=user.shown or name,
        groups=frozenset((*user.groups, *user.manages)),
        manages=frozenset(user.manages),
        default_group=next(iter((*user.groups, *user.manages)), ""),
    )


def _version(path: Path) -> tuple[int, ...]:
    """What is different once the file has been replaced or written."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> tuple[tuple[int, ...], users.Users]:
    """The version is looked at first: a change in between is read again."""
    try:
        version = _version(path)
    except OSError as error:
        raise PeopleError(f"{path}: {error.strerror}; `tesk user add` makes one") from None
    return version, users.read(path)
