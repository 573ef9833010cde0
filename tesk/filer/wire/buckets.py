"""What a bucket or container may be called: its name goes into the path of requests that carry the operator's key.

A `?` or `#` in it would make another request of them. The stores' own rules are narrower, and theirs to apply.
"""

import re
from typing import Final

from tesk.filer.errors import TransferError

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def checked_bucket(name: str, url_form: str, special: frozenset[str] = frozenset()) -> str:
    """The name, unless it is none; `special` ones are as good. Raises TransferError."""
    if not name:
        raise TransferError("names no bucket", f"such a URL is {url_form}")
    if name not in special and not _NAME.fullmatch(name):
        raise TransferError(
            "the bucket's name has other characters than letters, digits, '.', '_' and '-', or begins with a '.'",
            f"such a URL is {url_form}",
        )
    return name
