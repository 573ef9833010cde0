"""What a copy keeps of a file besides its bytes: the time of its last change, whether it can be run, and whether it is
private.

Stores say so in many ways, or not at all. A time is judged where it is set: no server can make a transfer fail, or a
file look newer than whatever a task makes of it.
"""

import email.utils
import os
import re
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

SECOND_NS: Final = 1_000_000_000
AHEAD_NS: Final = 24 * 3600 * SECOND_NS
"""How far a server's clock may be ahead; some tell their local time for UTC."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FTP: Final = re.compile(r"(\d{14})(?:\.\d{1,19})?", re.ASCII)
_LONGEST: Final = 64


class Attributes(NamedTuple):
    """None for what the store does not tell."""

    modified_ns: int | None = None
    executable: bool | None = None
    private: bool = False

    @property
    def credible_ns(self) -> int | None:
        """The time, unless it is before 1970 or in the future."""
        is_credible = self.modified_ns is not None and 0 <= self.modified_ns <= time.time_ns() + AHEAD_NS
        return self.modified_ns if is_credible else None

    def set_time(self, fd: int) -> None:
        """Gives a credible time to a file or directory. Raises OSError."""
        if (modified_ns := self.credible_ns) is not None:
            os.utime(fd, ns=(time.time_ns(), modified_ns))


UNKNOWN: Final = Attributes()


def of_status(status: os.stat_result) -> Attributes:
    return of_mode(status.st_mode)._replace(modified_ns=status.st_mtime_ns)


def of_mode(mode: int) -> Attributes:
    """What a mode says: a file is private where nobody but its owner has any right to it."""
    return Attributes(None, bool(mode & 0o111), not mode & (stat.S_IRWXG | stat.S_IRWXO))


def of_time(when: datetime | None) -> Attributes:
    return Attributes(_ns(when))


def from_http(text: str | None, otherwise: Attributes = UNKNOWN) -> Attributes:
    """A date as in Last-Modified (RFC 9110); `otherwise` where it is none."""
    return _read(email.utils.parsedate_to_datetime, text, otherwise)


def from_iso(text: str | None, otherwise: Attributes = UNKNOWN) -> Attributes:
    """A date as in JSON and in S3's XML (RFC 3339); `otherwise` where it is none."""
    return _read(datetime.fromisoformat, text, otherwise)


def from_ftp(text: str | None) -> Attributes:
    """A date as in MDTM and MLSD (RFC 3659), unknown where it is none."""
    match = _FTP.fullmatch(text or "")
    return _read(lambda digits: datetime.strptime(digits, "%Y%m%d%H%M%S"), match and match[1], UNKNOWN)


def _read(read: Callable[[str], datetime], text: str | None, otherwise: Attributes) -> Attributes:
    try:
        return of_time(read(text)) if text and len(text) <= _LONGEST else otherwise
    except (ValueError, TypeError, OverflowError, IndexError):
        return otherwise


def _ns(when: datetime | None) -> int | None:
    if when is None:
        return None
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
