"""Errors of transfers, as data: what was answered, whether a further try may work, what to check.

Schemes raise TransferError with the facts; `sentence` alone turns facts into the line a user reads. URLs are shown
without credentials: no user and password, and no query (where signatures and keys travel).
"""

import errno
from typing import Final

from tesk.urls import printable, redact

__all__ = [
    "NO_HOST",
    "Changed",
    "Damaged",
    "NotFound",
    "Stopped",
    "TransferError",
    "from_file",
    "printable",
    "redact",
    "sentence",
]

NO_HOST: Final = "check the URL: in a user or password, / ? # and @ are written %2F %3F %23 and %40"


MAX_ANSWER: Final = 32 * 1024
"""Characters of an error; what servers say, names among it, may be as long as they like."""


class Stopped(Exception):
    """The step was told to stop."""


class TransferError(Exception):
    """A transfer that failed. `passing`: the same call may work later; `tries`: how many were made.

    `pushed_back`: the store said, or showed, that it is asked for too much at once.
    """

    def __init__(
        self,
        answer: str,
        advice: str = "",
        *,
        passing: bool = False,
        retry_after_s: float = 0,
        tries: int = 1,
        pushed_back: bool = False,
    ) -> None:
        super().__init__(answer[:MAX_ANSWER])
        self.answer = answer[:MAX_ANSWER]
        self.advice = advice
        self.passing = passing
        self.retry_after_s = retry_after_s
        self.tries = tries
        self.pushed_back = pushed_back


class NotFound(TransferError):
    """Nothing is there."""


class Changed(TransferError):
    """The store has other bytes now than when the transfer began."""


class Damaged(TransferError):
    """What arrived is not what was sent."""


def sentence(what: str, url: str, error: TransferError) -> str:
    """`input s3://lab/a: access denied (403) by http://minio:9000 after 1 try; check …`."""
    tries = "1 try" if error.tries == 1 else f"{error.tries} tries"
    advice = f"; {error.advice}" if error.advice else ""
    return f"{what} {redact(url)}: {error.answer} after {tries}{advice}"


def from_file(error: OSError, place: str) -> TransferError:
    """The TransferError for an error of the file system at `place`. It is never a passing one."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{place}: {reason.lower()}")
    advice = {
        errno.ENOSPC: "free some space or ask for more disk_gb",
        errno.EDQUOT: "raise the quota",
        errno.EACCES: "open it to the user that tesk runs as",
    }
    return TransferError(f"{place}: {reason.lower()}", advice.get(error.errno or 0, ""))
