"""Which URLs a task may use, by the prefixes of the rules (pure).

The server decides so when a task is made, and each filer once more for every URL that it opens: also for those that
nobody knew before, as a DRS server tells them, and for tasks whose rules have changed while they waited.

A prefix and a URL are compared as they are written, and as a server may read them, which decodes escapes and takes `//`
as `/`. In either spelling the longest prefix that covers the URL decides. A URL may be a directory, so what lies below
it has to be open too. On a host of which the rules have a prefix a `..` may lead into any of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from msgspec import Struct

from tesk.filer.prefix import decoded, holds_dot_dot, plain

_ENDS: Final = re.compile(r"[/?#]")
_WITH_QUERY: Final = ("http", "https")
_SAME_FOLDER: Final = re.compile(r"/(?:\.?/)+|/\.$")
_PARAMETERS: Final = re.compile(r";[^/]*")


class StorageAccess(Struct, frozen=True, omit_defaults=True):
    """Prefixes of the rules that a task may use, and the others; `unlisted`: it may use what none of them covers."""

    open: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    unlisted: bool = True


class Decision(NamedTuple):
    """`refusal`: why a URL may not be used, in words; empty where it may. `used`: the prefixes that it takes then."""

    refusal: str
    used: frozenset[str] = frozenset()


class Judge:
    """Decides on URLs, each in the time that its length takes, whatever the number of prefixes."""

    def __init__(self, access: StorageAccess) -> None:
        prefixes = *access.open, *access.closed
        self._unlisted = access.unlisted
        self._open = frozenset(access.open)
        self._hosts = {_host(as_written(prefix)) for prefix in prefixes}
        self._as_written = _View((as_written(prefix), prefix) for prefix in prefixes)
        self._as_read = _View((as_read(prefix), prefix) for prefix in prefixes)

    def decide(self, url: str) -> Decision:
        """What covers the URL and all that lies below it has to be open."""
        written = as_written(url)
        if (host := _host(written)) in self._hosts and holds_dot_dot(written.partition("://")[0], written[len(host) :]):
            return Decision('its path holds "..": write it without')
        used: list[str] = []
        for view, spelt in ((self._as_written, written), (self._as_read, as_read(url))):
            prefix = view.covering(spelt)
            if prefix is None and not self._unlisted:
                return Decision("this server's rules have no storage in which it lies: ask the operator for that")
            if prefix is not None and prefix not in self._open:
                return Decision(f'it lies in "{prefix}", which is not open to you: ask the operator for that')
            below = view.below(spelt)
            if closed := next((each for each in below if each not in self._open), ""):
                return Decision(f'"{closed}" lies in it, which is not open to you: name what lies beside that')
            used += below if prefix is None else (prefix, *below)
        return Decision("", frozenset(used))


@lru_cache(256)
def judge(access: StorageAccess) -> Judge:
    return Judge(access)


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

    def __init__(self, prefixes: Iterable[tuple[str, str]]) -> None:
        """Of each the spelling, and the prefix as the rules have it."""
        self._prefixes: dict[str, str] = {}
        self._below: dict[str, list[str]] = {}
        for spelt, prefix in prefixes:
            place = _without_end(spelt)
            self._prefixes[place] = prefix
            for above in upwards(place):
                self._below.setdefault(above, []).append(prefix)

    def covering(self, url: str) -> str | None:
        """The longest prefix at or below which the URL lies."""
        found = [self._prefixes[above] for above in upwards(url) if above in self._prefixes]
        return found[-1] if found else None

    def below(self, url: str) -> Sequence[str]:
        """The prefixes at and below the URL."""
        return self._below.get(_without_end(url), ())


def upwards(url: str) -> Iterator[str]:
    """The URL and all that it lies in, the host first."""
    for end in _ENDS.finditer(url, url.find("://") + 3):
        yield url[: end.start()]
    yield url


def _without_end(url: str) -> str:
    """Without the slashes at its end."""
    host = _host(url)
    return host + url[len(host) :].rstrip("/")


def _host(url: str) -> str:
    found = _ENDS.search(url, url.find("://") + 3)
    return url if found is None else url[: found.start()]
