"""Credentials by longest matching URL prefix, from files that the settings name.

A file is TOML: one table for each URL prefix, with the fields of its scheme (tesk/schemes.py has them). A folder
stands for every `.toml` file in it, which is how a Kubernetes Secret is mounted. Files are read by the filer alone,
at the first URL that needs them, so an executor never sees one and a changed file counts from the next task on.
"""

import contextlib
import netrc
import os
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tesk import schemes
from tesk.filer.errors import TransferError, redact
from tesk.filer.plan import CredentialsFor
from tesk.filer.prefix import leads_up, matches, plain


class Table(NamedTuple):
    """One table: the prefix as it was written, the file of the table, the fields and their values."""

    prefix: str
    file: Path
    values: Mapping[str, str]

    def read(self, name: str) -> str:
        """The value of `name`, or what is in the file that `name_file` names; "" for neither."""
        if where := self.values.get(f"{name}_file", ""):
            try:
                return (self.file.parent / where).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise TransferError(
                    f'{name}_file of "{redact(self.prefix)}" in {self.file} cannot be read', str(error)
                ) from None
        return self.values.get(name, "")


NOTHING: Final = Table("", Path(), {})


def login(table: Table, host: str) -> tuple[str, str]:
    """User and password of a table, else of the host's entry in ~/.netrc (or NETRC), else two empty texts."""
    if user := table.read("user").strip():
        return user, table.read("password").rstrip("\r\n")
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        user, _, password = netrc.netrc(str(file)).hosts.get(host, ("", "", ""))
    except (FileNotFoundError, RuntimeError):
        return "", ""
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        where = f" in line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else ""
        raise TransferError(
            f"{file} cannot be read ({type(error).__name__}{where})", "check the file", tries=0
        ) from None
    return user or "", password or ""


class Credentials:
    """The tables of all files, read once."""

    def __init__(self, places: Sequence[str | CredentialsFor]) -> None:
        self._places = [each if isinstance(each, CredentialsFor) else CredentialsFor("", each) for each in places]
        self._tables: list[tuple[str, str, Table]] | None = None
        self._lock = threading.Lock()

    def of(self, url: str) -> Table:
        """The table for `url`, or NOTHING. Raises TransferError, also for a table with unknown fields."""
        with self._lock:
            if self._tables is None:
                tables = [(each.prefix, table) for each in self._places for table in read_tables(Path(each.place))]
                self._tables = sorted(
                    ((plain(table.prefix), plain(limit), table) for limit, table in tables),
                    key=lambda found: (len(found[0]), len(found[1])),
                    reverse=True,
                )
        wanted = plain(url)
        for prefix, limit, table in self._tables:
            if matches(prefix, wanted) and (not limit or matches(limit, wanted)):
                if leads_up(max(prefix, limit, key=len), wanted):
                    raise TransferError(
                        f'its path holds "..", so the credentials of "{redact(table.prefix)}" are not used for it',
                        "write the path without it",
                        tries=0,
                    )
                _check(table, url)
                return table
        return NOTHING


def prefixes(places: Sequence[str]) -> list[str]:
    """The URL prefixes that have credentials, as far as the files can be read here: filers may see others."""
    found: list[str] = []
    for place in places:
        with contextlib.suppress(TransferError):
            found += [redact(table.prefix) for table in read_tables(Path(place))]
    return found


def _check(table: Table, url: str) -> None:
    declared = schemes.serving(url)
    known = declared.credentials.split() if declared else ()
    for name in table.values:
        if name not in known and name.removesuffix("_file") not in known:
            words = ", ".join(sorted(known))
            raise TransferError(
                f'{table.file}: {name!r} of "{redact(table.prefix)}" is no word of this kind of store', f"use {words}"
            )


def read_tables(place: Path) -> list[Table]:
    place = place.expanduser()
    files = sorted(place.glob("*.toml")) if place.is_dir() else [place]
    return [table for file in files for table in _read(file)]


def _read(file: Path) -> list[Table]:
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise TransferError(
            f"the credentials {file} cannot be read ({reason})", "check `credentials`", tries=0
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise TransferError(f"the credentials {file} are not TOML", "check the file", tries=0) from None
    tables = []
    for prefix, values in document.items():
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise TransferError(
                f'{file}: "{redact(prefix)}" is no table of texts', 'write ["PREFIX"] NAME = "…"', tries=0
            )
        if not urlsplit(prefix).netloc:
            raise TransferError(f'{file}: "{redact(prefix)}" is no URL prefix', "write scheme://host/path", tries=0)
        tables.append(Table(prefix, file, values))
    return tables
