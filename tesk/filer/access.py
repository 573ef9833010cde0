"""Which URLs a task may use, by the prefixes of the rules (pure).

The server decides so when a task is made, and each filer once more for every URL that it opens: also for those that
nobody knew before, as a DRS server tells them, and for tasks whose rules have changed while they waited.

A prefix and a URL are compared as they are written, and as a server may read them, which decodes escapes and takes `//`
as `/`. In either spelling the longest prefix that covers the URL decides. A URL may be a directory, so what lies below
it has to be open too. On a host of which the rules have a prefix a `..` may lead into any of them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from tesk.filer.prefix import decoded, holds_dot_dot, plain

_ENDS: Final = re.compile(r"[/?#]")
_WITH_QUERY: Final = ("http", "https")
_SAME_FOLDER: Final = re.compile(r"/(?:\.?/)+|/\.$")
_PARAMETERS: Final = re.compile(r";[^/]*")


class Access(Struct, frozen=True, omit_defaults=True):
    """Prefixes of the rules that a task may use, and the others; `unlisted`: it may use what none of them covers."""

    open: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    unlisted: bool = True


class Judge:
    """Decides on URLs, each in the time that its length takes, whatever the number of prefixes."""

    def __init__(self, access: Access) -> None:
        prefixes = *access.open, *access.closed
        self._unlisted = access.unlisted
        self._open = frozenset(access.open)
        self._hosts = {_host(as_written(prefix)) for prefix in prefixes}
        self._views = [_View(spelling, prefixes) for spelling in (as_written, as_read)]

    def refusal(self, url: str) -> str:
        """Why a URL may not be used, in words; empty where it may."""
        written = as_written(url)
        if (host := _host(written)) in self._hosts and holds_dot_dot(written.partition("://")[0], written[len(host) :]):
            return 'its path holds "..": write it without'
        for view in self._views:
            prefix = view.covering(url)
            if prefix is None and not self._unlisted:
                return "this server's rules have no storage in which it lies: ask the operator for that"
            if prefix is not None and prefix not in self._open:
                return f'it lies in "{prefix}", which is not open to you: ask the operator for that'
            for below in view.below(url):
                if below not in self._open:
                    return f'"{below}" lies in it, which is not open to you: name what lies beside that'
        return ""

    def used(self, url: str) -> set[str]:
        """The prefixes that cover a URL, which may be used, and those below it."""
        covering = (view.covering(url) for view in self._views)
        return {each for each in covering if each is not None}.union(*(view.below(url) for view in self._views))


def as_written(url: str) -> str:
    """The URL as credentials are found by it. Each way to name a file of this system is `file:///path`."""
    if url.startswith("/"):
        return f"file://{url}"
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "file":
        return plain(url)
    path = f"/{rest[2:].partition('/')[2]}" if rest.startswith("//") else rest
    return f"file://{unquote(path, errors='surrogateescape')}"


def as_read(url: str) -> str:
    """The URL as the most lenient server reads it."""
    written = as_written(url)
    scheme, host = written.partition("://")[0], _host(written)
    path = written[len(host) :]
    if scheme in _WITH_QUERY:
        path = path.partition("?")[0].partition("#")[0]
    path = (decoded(path) or path).replace("\\", "/")
    if scheme in _WITH_QUERY:
        path = _PARAMETERS.sub("", path)
    return host + _SAME_FOLDER.sub("/", path)


class _View:
    """Prefixes in one spelling."""

    def __init__(self, spelling: Callable[[str], str], prefixes: Iterable[str]) -> None:
        self._spelling = spelling
        self._prefixes: dict[str, str] = {}
        self._below: dict[str, list[str]] = {}
        for prefix in prefixes:
            spelt = _without_end(spelling(prefix))
            self._prefixes[spelt] = prefix
            for above in upwards(spelt):
                self._below.setdefault(above, []).append(prefix)

    def covering(self, url: str) -> str | None:
        """The longest prefix at or below which the URL lies."""
        found = [self._prefixes[above] for above in upwards(self._spelling(url)) if above in self._prefixes]
        return found[-1] if found else None

    def below(self, url: str) -> list[str]:
        """The prefixes at and below the URL."""
        return self._below.get(_without_end(self._spelling(url)), [])


def upwards(url: str) -> Iterator[str]:
    """The URL and all that it lies in, the host first."""
    for end in _ENDS.finditer(url, url.index("://") + 3):
        yield url[: end.start()]
    yield url


def _without_end(url: str) -> str:
    """Without the slashes at its end."""
    host = _host(url)
    return host + url[len(host) :].rstrip("/")


def _host(url: str) -> str:
    found = _ENDS.search(url, url.index("://") + 3)
    return url if found is None else url[: found.start()]
