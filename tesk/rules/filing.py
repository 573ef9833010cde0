"""What filers get for the entries of storage that a task was given (pure)."""

import posixpath
from collections.abc import Mapping

from msgspec.structs import replace

from tesk.filer.access import as_written
from tesk.filer.plan import CredentialsFor, FilerSettings
from tesk.rules import Granted
from tesk.schemes import name_of


def is_folder(prefix: str) -> bool:
    return name_of(prefix) == "file"


def folder_of(prefix: str) -> str:
    """The path of a `file:` prefix."""
    return posixpath.normpath(as_written(prefix).partition("://")[2])


def filer_settings(settings: FilerSettings, granted: Granted, credentials: Mapping[str, str]) -> FilerSettings:
    """What everybody's filers have, and what the task was given beside that.

    `credentials`: where filers find those of a prefix: a file, or a folder of files.
    """
    return replace(
        settings,
        file_roots=(*settings.file_roots, *(folder_of(prefix) for prefix in granted.storage if is_folder(prefix))),
        credentials=(*settings.credentials, *(CredentialsFor(*each) for each in credentials.items())),
        access=granted.access,
    )
