"""What FTP servers say of a directory: MLSD (RFC 3659), or LIST as Unix and Windows servers print it."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from tesk.filer.attributes import UNKNOWN, Attributes, from_ftp, of_mode
from tesk.filer.bounds import size_of
from tesk.filer.errors import TransferError
from tesk.filer.scheme import Kind

_DAY: Final = r"\d{4}-\d\d-\d\d"
_UNIX_DATE: Final = (
    rf"(?:(?:[^\W\d]\S*\s+\d{{1,2}}|\d{{1,2}}\.?\s+[^\W\d]\S*)\s+(?:\d{{4}}|\d{{1,2}}:\d\d(?::\d\d)?)"
    rf"|{_DAY}\s+\d\d:\d\d(?::\d\d(?:\.\d+)?(?: [+-]\d{{4}})?)?)"
)
_UNIX: Final = re.compile(rf"^([-dlbcps])\S{{9,}}\s+(?:\S.*?\s)??(\d{{1,19}})\s+{_UNIX_DATE} (.+)$")
"""Links, owner and group are whatever stands before the size: some servers leave one out, some names hold spaces."""
_WINDOWS: Final = re.compile(
    rf"^(?:\d\d[-/]\d\d[-/]\d\d(?:\d\d)?|{_DAY})\s+\d\d:\d\d(?:\s?[AP]M)?\s+(<\w+>|\d{{1,19}})\s+(.+)$"
)
_MODE: Final = re.compile(r"[0-7]{3,6}", re.ASCII)
_NO_ENTRY: Final = re.compile(r"\s*(?:total\s.*|\w+:?\s+\d+)?", re.IGNORECASE)
"""Nothing, or the sum of sizes that comes first, in whichever language."""


class FtpEntry(NamedTuple):
    """One line of a listing: a wire name, its kind (None for a link, which has to be asked for), its size."""

    name: str
    kind: Kind | None
    size: int | None
    attributes: Attributes = UNKNOWN


def parse_mlsd(line: str) -> FtpEntry | None:
    """One line of MLSD (RFC 3659); None for the directory itself and its parent."""
    facts_text, _, name = line.partition(" ")
    facts = {key.lower(): value for key, _, value in (f.partition("=") for f in facts_text.split(";"))}
    what = facts.get("type", "").lower()
    if what in ("cdir", "pdir") or name in ("", ".", ".."):
        return None
    kind = {"file": Kind.FILE, "dir": Kind.DIRECTORY}.get(what)
    size = facts.get("size", "")
    return FtpEntry(name, kind, size_of(size) if kind is Kind.FILE else None, _attributes(facts))


def _attributes(facts: Mapping[str, str]) -> Attributes:
    mode = facts.get("unix.mode", "")
    known = of_mode(int(mode, 8)) if _MODE.fullmatch(mode) else UNKNOWN
    return known._replace(modified_ns=from_ftp(facts.get("modify")).modified_ns)


def parse_list(line: str) -> FtpEntry | None:
    """One line of LIST in Unix or Windows style; None for what is no entry. Raises TransferError for any other."""
    if match := _UNIX.match(line):
        letter, size, name = match.groups()
        if letter == "l":
            return FtpEntry(name.partition(" -> ")[0], None, None)
        kind = {"d": Kind.DIRECTORY, "-": Kind.FILE}.get(letter)
        if kind is None or name in (".", ".."):
            return None
        return FtpEntry(name, kind, int(size) if kind is Kind.FILE else None)
    if match := _WINDOWS.match(line):
        size, name = match.groups()
        if name in (".", ".."):
            return None
        if size == "<DIR>":
            return FtpEntry(name, Kind.DIRECTORY, None)
        return FtpEntry(name, Kind.FILE, int(size)) if size.isdigit() else FtpEntry(name.partition(" [")[0], None, None)
    if _NO_ENTRY.fullmatch(line):
        return None
    shown = line.encode("latin-1", "replace").decode("utf-8", "replace")[:200]
    raise TransferError(f"the server lists {shown!r}, which tesk cannot read", "name the files one by one")
