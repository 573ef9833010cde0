"""What FTP servers say of a directory: MLSD (RFC 3659), or LIST as Unix and Windows servers print it."""

import re
from typing import Final, NamedTuple

from tesk.filer.schemes import Kind

_UNIX: Final = re.compile(r"^([-dlbcps])\S{9,}\s+\d+\s+\S+\s+\S+\s+(\d+)\s+\w{3}\s+\d+\s+[\d:]+ (.+)$")
_WINDOWS: Final = re.compile(r"^\d\d-\d\d-\d\d(?:\d\d)?\s+\d\d:\d\d(?:[AP]M)?\s+(<DIR>|\d+)\s+(.+)$")


class Listed(NamedTuple):
    """One line of a listing: a wire name, its kind (None for a link, which has to be asked for), its size."""

    name: str
    kind: Kind | None
    size: int | None


def parse_mlsd(line: str) -> Listed | None:
    """One line of MLSD (RFC 3659); None for the directory itself and its parent."""
    facts_text, _, name = line.partition(" ")
    facts = {key.lower(): value for key, _, value in (f.partition("=") for f in facts_text.split(";"))}
    what = facts.get("type", "").lower()
    if what in ("cdir", "pdir") or name in ("", ".", ".."):
        return None
    kind = {"file": Kind.FILE, "dir": Kind.DIRECTORY}.get(what)
    size = facts.get("size", "")
    return Listed(name, kind, int(size) if size.isdigit() and kind is Kind.FILE else None)


def parse_list(line: str) -> Listed | None:
    """One line of LIST in Unix or Windows style; None for what is no entry."""
    if match := _UNIX.match(line):
        letter, size, name = match.groups()
        if letter == "l":
            return Listed(name.partition(" -> ")[0], None, None)
        kind = {"d": Kind.DIRECTORY, "-": Kind.FILE}.get(letter)
        if kind is None or name in (".", ".."):
            return None
        return Listed(name, kind, int(size) if kind is Kind.FILE else None)
    if match := _WINDOWS.match(line):
        size, name = match.groups()
        return Listed(name, Kind.DIRECTORY, None) if size == "<DIR>" else Listed(name, Kind.FILE, int(size))
    return None
