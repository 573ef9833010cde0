"""Holds the rules against themselves and the server's settings: what cannot be followed, and what gives away more than
it says.

Whoever may use a prefix reads all that lies below it, as a directory. So an entry below another one has to be open to
everybody to whom the upper one is. The same holds for folders of reference data, and for file_roots, which are open to
all. Symbolic links are followed on the local engine; on a cluster nobody here knows what lies in a claim.
"""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from tesk import schemes
from tesk.errors import RulesError
from tesk.filer.access import as_read, as_written, upwards
from tesk.filer.credentials import read_tables
from tesk.filer.errors import TransferError
from tesk.filer.prefix import holds_dot_dot, matches, plain
from tesk.rules import Names, Rules, StorageRule
from tesk.rules.filing import folder_of, is_folder
from tesk.rules.images import problems as image_problems
from tesk.rules.volumes import problems as volume_problems
from tesk.settings import Settings
from tesk.urls import redact

TOPS_OF_OURS: Final = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib64", "opt", "proc", "root", "run", "sbin", "scratch", "sys", "tesk", "tmp")
)
"""Of the containers that a filer runs in."""


class NamedEntry(Struct, frozen=True):
    """Something that is open to some, or to all: an entry of the rules, or a setting. `name` is for messages."""

    name: str
    users: Names = ()
    groups: Names = ()

    def is_as_open_as(self, other: "NamedEntry") -> bool:
        """Whether this is open to everybody to whom the other is."""
        if self.is_open_to_all or other.is_open_to_all:
            return self.is_open_to_all
        return set(other.users) <= set(self.users) and set(other.groups) <= set(self.groups)

    @property
    def is_open_to_all(self) -> bool:
        return not self.users and not self.groups


def check(rules: Rules, settings: Settings) -> None:
    """Raises RulesError."""
    is_local = settings.engine == "local"
    for problem in (*image_problems(rules.images), *volume_problems(rules.volumes, is_cluster=not is_local)):
        raise RulesError(problem)
    for name, volume in rules.volumes.items() if is_local else ():
        _check_folder(f"volumes.{name}", volume.folder, settings.data)
    for prefix, rule in rules.storage.items():
        name = _name(prefix)
        _check_prefix(name, prefix)
        if is_local:
            _check_local(name, prefix, rule)
            if is_folder(prefix):
                _check_folder(name, folder_of(prefix), settings.data)
        else:
            _check_on_cluster(name, prefix, rule, settings)
    _check_what_lies_below(rules, settings, is_local=is_local)
    if not is_local:
        _check_sources(rules, settings)


def _check_folder(name: str, folder: str, data: str) -> None:
    found, own = (f"{os.path.realpath(os.path.expanduser(each))}/" for each in (folder, data))
    if found.startswith(own) or own.startswith(found):
        raise RulesError(f"{name}: {folder} and the folder of this server's own data ({data}) lie in one another")


def _name(prefix: str) -> str:
    return f'storage."{redact(prefix)}"'


def _check_prefix(name: str, prefix: str) -> None:
    scheme = schemes.name_of(prefix)
    written = as_written(prefix)
    host, slash, path = written.partition("://")[2].partition("/")
    if scheme not in schemes.BY_NAME or prefix.startswith("/"):
        known = ", ".join(sorted(schemes.READABLE))
        raise RulesError(f"{name}: no URL prefix; write scheme://host/path, with one of {known}")
    if scheme == "file" and (not prefix.lower().startswith("file:///") or path.startswith("/") or not path):
        raise RulesError(f"{name}: no folder; write file:///absolute/path")
    if scheme != "file" and not host:
        raise RulesError(f"{name}: no host or bucket; write {scheme}://host/path")
    if redact(prefix) != prefix or "#" in prefix or holds_dot_dot(scheme, f"{slash}{path}"):
        raise RulesError(f'{name}: a prefix has no user, no query and no ".."')


def _check_local(name: str, prefix: str, rule: StorageRule) -> None:
    for key in ("secret", "claim"):
        if getattr(rule, key):
            raise RulesError(f"{name}: {key} is for a cluster; on the local engine write credentials = a file")
    if not rule.credentials:
        return
    if is_folder(prefix):
        raise RulesError(f"{name}: files of this machine need no credentials")
    try:
        tables = read_tables(Path(rule.credentials))
    except TransferError as error:
        raise RulesError(f"{name}: {error.answer}") from None
    wanted = plain(prefix)
    if not any(matches(plain(table.prefix), wanted) or matches(wanted, plain(table.prefix)) for table in tables):
        raise RulesError(f"{name}: {rule.credentials} has no table for it")


def _check_on_cluster(name: str, prefix: str, rule: StorageRule, settings: Settings) -> None:
    if rule.credentials:
        raise RulesError(f"{name}: credentials is for the local engine; on a cluster name a secret")
    if rule.secret and is_folder(prefix):
        raise RulesError(f"{name}: a folder needs no secret; name the claim that is mounted there")
    if rule.claim and not is_folder(prefix):
        raise RulesError(f"{name}: claim is for file:///path; for other storage name a secret")
    if not is_folder(prefix):
        return
    path = folder_of(prefix)
    mounted = [each.partition("=")[0].rstrip("/") for each in settings.filer_mounts]
    if rule.claim and path.split("/")[1] in TOPS_OF_OURS:
        raise RulesError(f"{name}: nothing can be mounted at {path}, where filers have files of their own")
    if rule.claim and path in mounted:
        raise RulesError(f"{name}: filer_mounts has something at {path} already")
    if not rule.claim and not any(f"{path}/".startswith(f"{folder}/") for folder in mounted):
        raise RulesError(f"{name}: filers have nothing at {path}; name the claim that is to be mounted there")


def _check_what_lies_below(rules: Rules, settings: Settings, *, is_local: bool) -> None:
    """Raises RulesError where a directory of one entry holds what another entry closes."""
    places: dict[str, list[NamedEntry]] = defaultdict(list)
    listed: dict[str, NamedEntry] = {}
    for place, entry in _places(rules, settings, is_local=is_local):
        places[place].append(entry)
        if entry.name.startswith("storage.") and (same := listed.setdefault(place, entry)) is not entry:
            raise RulesError(f"{same.name} and {entry.name} are the same place; make one entry of them")
    for place, entries in places.items():
        for above in upwards(place):
            for outer in places.get(above, ()):
                for inner in entries:
                    if inner is not outer and not inner.is_as_open_as(outer):
                        raise RulesError(
                            f"{inner.name} lies in {outer.name}, which is open to others too, who could read it there; "
                            "open it to them, or move it"
                        )


def _places(rules: Rules, settings: Settings, *, is_local: bool) -> Iterator[tuple[str, NamedEntry]]:
    """Where each entry lies, as a URL."""
    for prefix, rule in rules.storage.items():
        folder = _folder(folder_of(prefix), is_local=is_local) if is_folder(prefix) else ""
        yield folder or as_read(prefix).rstrip("/"), NamedEntry(_name(prefix), rule.users, rule.groups)
    for root in settings.file_roots:
        yield _folder(root, is_local=is_local), NamedEntry(f"file_roots {root}")
    for name, volume in rules.volumes.items():
        if is_local and volume.folder:
            yield _folder(volume.folder, is_local=True), NamedEntry(f"volumes.{name}", volume.users, volume.groups)


def _folder(path: str, *, is_local: bool) -> str:
    return f"file://{os.path.realpath(Path(path).expanduser()) if is_local else posixpath.normpath(path)}"


def _check_sources(rules: Rules, settings: Settings) -> None:
    """Raises RulesError where two entries have one claim for different people, or filer_mounts give it to everybody."""
    given: dict[str, list[NamedEntry]] = defaultdict(list)
    for mount in settings.filer_mounts:
        given[mount.partition("=")[2]].append(NamedEntry(f"filer_mounts {mount}"))
    if settings.filer_environment_secret:
        given[f"secret:{settings.filer_environment_secret}"].append(NamedEntry("filer_environment_secret"))
    for prefix, rule in rules.storage.items():
        mine = NamedEntry(_name(prefix), rule.users, rule.groups)
        if rule.claim:
            given[f"claim:{rule.claim}"].append(mine)
        for everybodys in given.get(f"secret:{rule.secret}", ()):
            if not mine.is_as_open_as(everybodys):
                raise RulesError(f"{mine.name}: its secret is everybody's by {everybodys.name}; take it out there")
    for name, volume in rules.volumes.items():
        if volume.claim:
            given[f"claim:{volume.claim}"].append(NamedEntry(f"volumes.{name}", volume.users, volume.groups))
    for source, entries in given.items():
        for entry in entries:
            if not entry.is_as_open_as(entries[0]) or not entries[0].is_as_open_as(entry):
                raise RulesError(
                    f"{entries[0].name} and {entry.name} have the same {source.partition(':')[0]}, and are open to "
                    "different people"
                )
