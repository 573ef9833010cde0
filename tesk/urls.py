"""URLs of inputs and outputs: which are none, and what is shown of one that may hold a secret (pure).

Documents hold every URL as it was asked for: a client compares them, and whoever may read a task may read what is in
it. Every sentence (system logs, errors, logs of ours, tables and words of the command line) shows `redact(url)`.
"""

import os
import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

from tesk.schemes import BUCKETS, BY_NAME

_AUTHORITY: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@")
_SECRET: Final = re.compile(
    rf"^((?:{'|'.join(BUCKETS)})://(?=[^/?#@]*:)|[a-z][a-z0-9+.-]*://(?!\[)[^/?#@]*:(?![0-9]*[/?#]))[^/?#@]*[/?#].*@",
    re.IGNORECASE | re.DOTALL,
)
"""A user and what follows the colon where that is no port: a secret whose `/`, `?` or `#` was not escaped."""
_QUERY: Final = re.compile(r"^(https?://[^?#]*)[?#].*$", re.IGNORECASE | re.DOTALL)
_NO_HOST: Final = re.compile(r"[\s\x00-\x20\x7f-\x9f\"<>\\^`{|}]")
"""What no authority holds (RFC 3986 §3.2; letters of any language are fine)."""


def redact(url: str) -> str:
    """The URL as it may be shown: `ftp://me:secret@host/a` is `ftp://host/a`, `http://host/a?key=1` is `http://host/a?…`."""
    return _QUERY.sub(r"\1?…", _AUTHORITY.sub(r"\1", _SECRET.sub(_scheme, printable(url))))


def _scheme(match: re.Match[str]) -> str:
    return match.group().partition("://")[0] + "://"


def printable(name: str) -> str:
    """A file name as text that any log and JSON can carry: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace") if any("\ud800" <= c <= "\udfff" for c in name) else name


def problems(field: str, url: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """`field` and what is wrong with its URL, whose scheme has to be one of `names`, in words that quote no secret."""
    if "\0" in url:
        yield field, "a URL cannot hold a NUL character"
        return
    if url.startswith("/"):
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        yield field, "not a URL: its host or port cannot be read"
        return
    authority, slash, path = url.partition("://")[2].partition("/")
    declared = BY_NAME.get(parts.scheme)
    if declared is None or parts.scheme not in names:
        known = ", ".join(sorted(names))
        yield field, f"unsupported URL scheme {parts.scheme!r}; supported: {known}, or an absolute path"
    elif parts.scheme == "file":
        if host not in (None, "", "localhost") or not parts.path.startswith("/"):
            yield field, "a file URL is file:///absolute/path"
        elif "\0" in unquote(parts.path):
            yield field, "a path cannot hold a NUL character"
    elif not host:
        yield field, f"a {parts.scheme} URL needs a host or bucket"
    elif declared.bucket:
        if not re.fullmatch(declared.bucket, authority):
            yield field, f"a bucket's name has letters, digits, '.', '_' and '-'; write {parts.scheme}://bucket/key"
    elif _NO_HOST.search(re.split(r"[?#]", authority)[0]):
        yield field, "its user, password or host holds a character that must be percent-encoded"
    elif declared.needs and not (slash and (path or declared.needs == "path")):
        yield field, f"a {parts.scheme} URL needs a path: {parts.scheme}://host/{declared.needs}"
