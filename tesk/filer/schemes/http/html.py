"""The links and headings of an HTML page, which may hold anything: read from left to right, each character once.

Python's own parser looks for the end of each tag that does not end from its beginning on, which takes the square of
the page's length.
"""

import html
import re
from typing import Final, NamedTuple

_TAG: Final = re.compile(r"[a-zA-Z][^\s/>]*+")
_ATTRIBUTE: Final = re.compile(
    r"""[\s/]*+(?P<name>[^\s/>=][^\s/>=]*+)(?:\s*+=\s*+(?:"(?P<double>[^"]*+)"|'(?P<single>[^']*+)'|(?P<bare>[^\s>]*+)))?+"""
)
_REST: Final = re.compile(r"[\s/=]*+")
_HEADINGS: Final = ("title", "h1")
_OPAQUE: Final = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}
"""What is in these is no HTML."""


class Page(NamedTuple):
    """The `href` of each link, and the texts of the title and of the first level's headings."""

    links: list[str]
    headings: list[str]


def read(text: str) -> Page:
    """Whatever has no end reaches to the end of the page, and is left out. Raises ValueError for what is no text."""
    page = Page([], [])
    in_heading = False
    at = 0
    while (found := text.find("<", at)) >= 0:
        if in_heading:
            page.headings.append(html.unescape(text[at:found]))
        tag = _TAG.match(text, found + 1)
        if tag is None:
            in_heading &= text[found + 1 : found + 2] not in "/!?"
            at = _behind_other(text, found)
            continue
        name = tag.group().lower()
        href, at = _attributes(text, tag.end())
        in_heading = name in _HEADINGS
        if at < 0:
            break
        if name == "a" and href:
            page.links.append(html.unescape(href).strip())
        if name in _OPAQUE:
            end = _OPAQUE[name].search(text, at)
            at = end.start() if end else len(text)
    return page


def _behind_other(text: str, at: int) -> int:
    """Where what begins with the `<` at `at` and is no start tag ends: an end tag, a comment, or mere text."""
    if text.startswith("<!--", at):
        opening, closing = at + 4, "-->"
    elif text[at + 1 : at + 2] in ("/", "!", "?"):
        opening, closing = at + 2, ">"
    else:
        return at + 1
    end = text.find(closing, opening)
    return len(text) if end < 0 else end + len(closing)


def _attributes(text: str, at: int) -> tuple[str, int]:
    """The `href` of the tag whose name ends at `at`, and where the tag ends; -1 where it does not."""
    href = ""
    while found := _ATTRIBUTE.match(text, at):
        at = found.end()
        if found["name"].lower() == "href" and not href:
            href = found["double"] or found["single"] or found["bare"] or ""
        at = _REST.match(text, at).end()  # type: ignore[union-attr]
    return href, at + 1 if text.startswith(">", at) else -1
