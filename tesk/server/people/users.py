"""The file of users: TOML, a table for each, written by `tesk user`. It holds hashes, never a password.

The file is replaced as a whole, so that a server which reads it sees the old or the new one.
"""

import fcntl
import json
import os
import re
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tesk.server.people.passwords import is_hash
from tesk.server.people.way import PeopleError

LOCK_LIMIT_S: Final = 20.0
HEAD: Final = "# The users of a tesk server. `tesk user` writes this file.\n"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
_GROUP: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+:-]{0,255}")


class User(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`password`: the hash. `shown`: the name for people. Who manages a group is a member of it, too."""

    password: str
    shown: str = ""
    groups: tuple[str, ...] = ()
    manages: tuple[str, ...] = ()


Users = dict[str, User]


def check_name(name: str) -> None:
    """Raises PeopleError. A name has no colon: those of OpenID Connect have one, and nobody may pass for them."""
    if not _NAME.fullmatch(name):
        raise PeopleError(f"{name[:100]!r} is no name of a user: letters, digits and . _ @ + - are possible")


def read(path: Path) -> Users:
    """Raises PeopleError."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise PeopleError(f"{path}: cannot be read: {error.strerror}; `tesk user add` makes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeopleError(f"{path}: not TOML: {error}") from None
    users = {name: _user(path, name, table) for name, table in tables.items()}
    for name, user in users.items():
        _check(path, name, user)
    return users


def _user(path: Path, name: str, table: object) -> User:
    try:
        return msgspec.convert(table, User)
    except msgspec.ValidationError as error:
        reason = f"{error}; a table has password, and may have shown, groups, manages"
        raise PeopleError(f"{path}: {name}: {reason}") from None


def _check(path: Path, name: str, user: User) -> None:
    try:
        check_name(name)
    except PeopleError as error:
        raise PeopleError(f"{path}: {error}") from None
    if not is_hash(user.password):
        raise PeopleError(f"{path}: {name}: password is no argon2 hash; `tesk user password {name}` makes one")
    for group in (*user.groups, *user.manages):
        if not _GROUP.fullmatch(group):
            raise PeopleError(f"{path}: {name}: {group[:100]!r} is no name of a group")


@contextmanager
def changing(path: Path) -> Iterator[Users]:
    """The users of the file, none where there is no file; writes them back. Others who change it wait meanwhile."""
    path = path.expanduser().resolve()
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PeopleError(f"{path.parent}: {error.strerror}") from None
    try:
        _lock(folder, path)
        users = read(path) if path.exists() else {}
        yield users
        for name, user in users.items():
            _check(path, name, user)
        try:
            _replace(path, _as_toml(users))
        except OSError as error:
            raise PeopleError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        os.close(folder)


def _lock(folder: int, path: Path) -> None:
    limit = time.monotonic() + LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                raise PeopleError(f"{path}: another process has been changing it for {LOCK_LIMIT_S:.0f} s") from None
            time.sleep(0.05)
        else:
            return


def _replace(path: Path, text: str) -> None:
    """Readable by its owner alone, or by whom it was readable before."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(number, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(number, mode)
            os.fsync(number)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _as_toml(users: Users) -> str:
    """A JSON string, or list of them, is one of TOML, too, but for DEL."""
    lines = [HEAD]
    for name, user in sorted(users.items()):
        lines.append(f"\n[{json.dumps(name)}]\n")
        for key, value in msgspec.to_builtins(user).items():
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{key} = {text}\n")
    return "".join(lines)
