"""What an HTTP server says is in a directory: a WebDAV answer (RFC 4918), or the index page of a web server.

An index page is an HTML page whose title or first heading begins with "Index of" (nginx, Apache, lighttpd) or with
"Directory listing for" (Python). Its entries are its links to exactly one name below the page, a last slash meaning a
directory. Links with a query (Apache sorts by them), to the page itself, to what is above it and to other hosts are no
entries. Any other link leads outside of what was asked for, and the page is refused.
"""

import os
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit
from xml.etree.ElementTree import Element

from tesk.filer.attributes import from_http
from tesk.filer.bounds import size_of
from tesk.filer.errors import TransferError
from tesk.filer.scheme import Entry
from tesk.filer.schemes.http import html
from tesk.filer.wire.xml import parsed

_INDEX: Final = re.compile(r"\s*(index of|directory listing for)\b", re.IGNORECASE)
_DAV: Final = "{DAV:}"


def from_index(page: str, url: str) -> list[Entry]:
    """The entries of the index page at `url`, which ends with a slash. Raises TransferError."""
    try:
        read = html.read(page)
    except ValueError:
        raise TransferError("the server answers with a page that is no HTML", "name the files") from None
    if not any(_INDEX.match(heading) for heading in read.headings):
        raise TransferError("the server answers with a page that is no index of a directory", "name the files")
    here = urlsplit(url)
    base = _steps(here.path)
    found: dict[str, Entry] = {}
    for link in read.links:
        whole = _joined(url, link)
        if whole.query or whole.netloc != here.netloc:
            continue
        steps = _steps(whole.path)
        if steps == base[: len(steps)]:
            continue
        if steps[:-1] != base:
            raise TransferError(f"the index lists {link[:200]!r}, which is not directly in it", "name the files")
        found[steps[-1]] = Entry(steps[-1], whole.path.endswith("/"))
    return list(found.values())


def from_dav(body: bytes, url: str) -> tuple[Entry, list[Entry]]:
    """What a PROPFIND of `url` found: the resource itself (under the name ""), and what is in it.

    Raises TransferError.
    """
    base = _steps(urlsplit(url).path)
    itself = Entry("", False)
    found = []

    def take(response: Element) -> None:
        nonlocal itself
        if response.tag != f"{_DAV}response":
            return
        path = _joined(url, (response.findtext(f"{_DAV}href") or "").strip()).path
        steps = _steps(path)
        is_directory = response.find(f".//{_DAV}resourcetype/{_DAV}collection") is not None
        size = size_of((response.findtext(f".//{_DAV}getcontentlength") or "").strip())
        known = None if is_directory else size
        changed = from_http(response.findtext(f".//{_DAV}getlastmodified"))
        if steps == base:
            itself = Entry("", is_directory, known, changed)
        elif steps[:-1] == base:
            found.append(Entry(steps[-1], is_directory, known, changed))
        else:
            raise TransferError(f"the server lists {path[:200]!r}, which is not directly in it", "check the server")

    parsed(body, "the server's WebDAV answer", "check the server", "response", take)
    return itself, found


def _joined(url: str, link: str) -> SplitResult:
    """Where a link of the page `url` leads to. Raises TransferError for what is no URL."""
    try:
        return urlsplit(urljoin(url, link))
    except ValueError:
        raise TransferError(f"the server lists {link[:200]!r}, which is no URL", "check the server") from None


def _steps(path: str) -> Sequence[str]:
    return [_name(part) for part in path.split("/") if part]


def _name(escaped: str) -> str:
    name = os.fsdecode(unquote_to_bytes(escaped))
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise TransferError(f"the server lists {name[:200]!r}, which is no file name", "check the server")
    return name
