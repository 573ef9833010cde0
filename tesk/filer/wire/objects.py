"""What object stores share: bucket names, keys that stand for paths, and tokens that last for a while.

Such a store knows no directories. One is the keys below its name and a slash; an empty one is kept as an empty object
whose key ends with the slash, as the stores' own consoles make them.
"""

import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from tesk.filer import bounds
from tesk.filer.attributes import UNKNOWN, Attributes
from tesk.filer.bounds import Listing
from tesk.filer.errors import NotFound, TransferError
from tesk.filer.scheme import Entry, FileInfo, Kind

_BUCKET: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
TOKEN_TIMEOUT_S: Final = 30.0
PROBE_TIMEOUT_S: Final = 1.0
RENEW_BEFORE_S: Final = 300.0


def checked_bucket(name: str, url_form: str, special: frozenset[str] = frozenset()) -> str:
    """The name of a bucket, if it is a legal one or one of `special`. Raises TransferError.

    The name goes into the path of requests that carry the operator's key: a `?` or `#` would make another request of
    them. The stores' own rules are narrower, and theirs to apply.
    """
    if not name:
        raise TransferError("names no bucket", f"such a URL is {url_form}")
    if name not in special and not _BUCKET.fullmatch(name):
        raise TransferError(
            "the bucket's name has other characters than letters, digits, '.', '_' and '-', or begins with a '.'",
            f"such a URL is {url_form}",
        )
    return name


def checked_key(key: str, store: str) -> str:
    """The key of a file or directory, without a last slash. Raises TransferError for what is no path."""
    key = key.rstrip("/")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise TransferError(f"a name in {store} is UTF-8 text, this is not", "rename the file") from None
    if size > 1024:
        raise TransferError(f"a name in {store} has at most 1,024 bytes", "rename the file")
    if any(c < " " or c == "\x7f" for c in key):
        raise TransferError("the name holds a control character, such as a line break", "rename the file")
    if key and any(part in ("", ".", "..") for part in key.split("/")):
        raise TransferError("the name holds an empty component, '.' or '..'", "rename the object")
    return key


def document(text: bytes | str) -> Any:
    """Decodes JSON. Raises ValueError, also for a document that is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


class Object(NamedTuple):
    """What a listing tells of one object; the key of an empty directory ends with a slash."""

    key: str
    size: int
    attributes: Attributes = UNKNOWN


def found_at(key: str, declared: Kind | None, holds: Callable[[], bool], ask: Callable[[], FileInfo]) -> FileInfo:
    """What a key stands for: the object that `ask` tells of, or the directory that `holds` keys below it.

    Where there is both, it is what it was `declared` as; a file, if that is not known.
    """
    if not key or (declared is Kind.DIRECTORY and holds()):
        return FileInfo(Kind.DIRECTORY)
    try:
        return ask()
    except NotFound:
        if declared is not Kind.DIRECTORY and holds():
            return FileInfo(Kind.DIRECTORY)
        raise


def entries_of(objects: Iterable[Object], prefix: str, listing: Listing) -> list[Entry]:
    """The tree that the keys below `prefix` form. Raises TransferError where they form none."""
    files: dict[str, Object] = {}
    directories: set[str] = set()
    for each in objects:
        key = each.key
        listing.add(key)
        relative = key.removeprefix(prefix)
        path = relative.rstrip("/")
        if not path and not relative.strip("/"):
            continue
        if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path or len(relative) - len(path) > 1:
            raise TransferError(f"the store lists the key {key!r}, which is no path", "rename the object")
        if relative.endswith("/"):
            directories.add(path)
        else:
            files[path] = each
    for path in (*files, *directories):
        above = os.path.dirname(path)
        if path in files and path in directories:
            raise _collision(path, path + "/")
        while above:
            if above in files:
                raise _collision(above, path)
            above = os.path.dirname(above)
    found = [Entry(path, True) for path in sorted(directories)]
    return found + [Entry(path, False, each.size, each.attributes) for path, each in files.items()]


def _collision(one: str, other: str) -> TransferError:
    return TransferError(
        f"the keys {one!r} and {other!r} collide: one name cannot be both a file and a directory",
        "rename one of them or stage them one by one",
    )


class Token(NamedTuple):
    """A bearer token, and the monotonic second up to which it may be used."""

    value: str
    until_s: float


class Tokens:
    """Keeps one token for each purpose, and renews it before it expires."""

    def __init__(self) -> None:
        self._known: dict[str, Token] = {}
        self._lock = threading.Lock()

    def of(self, purpose: str, ask: Callable[[], Mapping[str, Any]]) -> str:
        """`ask` gives the answer of a token endpoint. Raises TransferError."""
        with self._lock:
            known = self._known.get(purpose)
            if known is None or time.monotonic() > known.until_s:
                answer = ask()
                lasts_s = float(answer.get("expires_in") or 3600)
                known = Token(str(answer["access_token"]), time.monotonic() + max(lasts_s - RENEW_BEFORE_S, 30))
                self._known[purpose] = known
            return known.value


def ask_json(
    url: str, *, form: Mapping[str, str] | None = None, body: Any = None, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON that a token endpoint answers. Raises TransferError, which never shows what was sent."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    more = dict(headers or {})
    if body is not None:
        data, more["Content-Type"] = json.dumps(body).encode(), "application/json"
    place = urllib.parse.urlsplit(url)
    peer = f"{place.scheme}://{place.hostname}"
    request = urllib.request.Request(url, data, more)  # noqa: S310 - an operator's URL
    try:
        with urllib.request.urlopen(request, timeout=TOKEN_TIMEOUT_S) as answer:  # noqa: S310
            text = answer.read(bounds.MAX_TOKEN_BYTES + 1)
        if len(text) > bounds.MAX_TOKEN_BYTES:
            raise ValueError(f"more than {bounds.MAX_TOKEN_BYTES:,} bytes")
        found = document(text)
    except urllib.error.HTTPError as error:
        passing = error.code in (408, 429) or error.code >= 500
        said = _said(error)
        raise TransferError(
            f"no token from {peer} ({error.code}{said})", "check the configured identity", passing=passing
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise TransferError(f"no token from {peer} ({reason})", "check that it can be reached", passing=True) from None
    if not isinstance(found, dict):
        raise TransferError(f"no token from {peer} (no JSON object)", "check the configured identity")
    return found


def _said(error: urllib.error.HTTPError) -> str:
    """The error's short name in the answer, which is all of it that is sure to hold no secret."""
    try:
        name = document(error.read(65536)).get("error")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(name, dict):
        name = name.get("status")
    return f" {name}" if isinstance(name, str) and name.replace("_", "").isalnum() and len(name) < 60 else ""


def answers(url: str, headers: Mapping[str, str]) -> bool:
    """Whether a metadata service answers here within a moment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=PROBE_TIMEOUT_S) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False
