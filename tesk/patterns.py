"""What the path of an output may mean beside what it says: a pattern as POSIX has it, or as Java and Nextflow do.

TES knows the wildcards of POSIX 2.13. Nextflow sends its users' globs as they are, in which `{a,b}` stands for either
text and `**` for what may lie in directories of any depth. So a path is first what POSIX says, and then each of the
patterns that it becomes without these two; all of those are POSIX's, but that a component `**` alone in them stands for
directories of any depth, none among them.
"""

import itertools
import re
from typing import Final
from urllib.parse import unquote

WILDCARDS: Final = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]", re.DOTALL)
"""A wildcard that no backslash escapes; it is the last character."""
DEEP: Final = "**"
MAX_PATTERNS: Final = 100
MAX_IN_TASK: Final = 1000
_GROUPS: Final = 20
_TOKEN: Final = re.compile(
    r"\\.|\[[!^]?(?:\]|\[(?![:.=]))?(?>\[:[a-z]{1,10}:\]|\[\..\.\]|\[=.=\]|\\.|[^]\[/\\])*+\]|\*+|.", re.DOTALL
)
"""An escaped character, a bracket expression, a run of stars, or any one character."""
_SPECIAL: Final = re.compile(r"[*?\[{\\]")


class TooManyPatterns(ValueError):
    """A path stands for more patterns than is sensible."""


def is_plain(path: str) -> bool:
    """True for a path that can mean nothing but itself."""
    return _SPECIAL.search(path) is None


def is_several(path: str) -> bool:
    """False for a path that stands for one pattern only."""
    return DEEP in path or ("{" in path and "," in path)


def patterns(path: str) -> list[str]:
    """The patterns that a path stands for, POSIX's own meaning first. Raises TooManyPatterns."""
    if not is_several(path):
        return [path]
    found = ["".join("*" if token.startswith("*") else token for token in _tokens(path))]
    for each in _without_groups(path):
        found += _without_double_stars(each)
    found = list(dict.fromkeys(found))
    if len(found) > MAX_PATTERNS:
        raise TooManyPatterns
    return found


def globs(path: str) -> list[str]:
    """The same for who knows POSIX's patterns only: one of any depth becomes what is directly in its directory."""
    found = (pattern.partition(f"/{DEEP}/")[0] for pattern in patterns(path))
    return list(dict.fromkeys(found))


def literal(path: str) -> str:
    """The path without the backslashes that escape."""
    return re.sub(r"\\(.)", r"\1", path, flags=re.DOTALL)


def plain_directory(path: str) -> str:
    """The directory that a path lies in whichever of its meanings holds."""
    return "/".join(itertools.takewhile(is_plain, path.split("/"))) or "/"


def implied_prefix(path: str, url: str) -> tuple[str, str] | None:
    """Prefix and directory URL of an output whose URL ends with its pattern; None for any other.

    So Nextflow sends patterns without `*` and `?`.
    """
    prefix = plain_directory(path)
    tail = path.removeprefix(prefix).lstrip("/")
    base, *names = url.rsplit("/", tail.count("/") + 1)
    return (prefix, base) if tail and tail in ("/".join(names), unquote("/".join(names))) else None


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _without_groups(path: str) -> list[str]:
    """The texts that `{a,b}` stands for; what is empty or has no comma or no end is no group."""
    done: list[str] = []
    pending = [path]
    if path.count("{") > _GROUPS:
        raise TooManyPatterns
    while pending:
        text = pending.pop()
        if alternatives := _first_group(text):
            pending += reversed(alternatives)
        else:
            done.append(text)
        if len(done) + len(pending) > MAX_PATTERNS:
            raise TooManyPatterns
    return done


def _first_group(text: str) -> list[str]:
    """The text with its first group replaced by each of its alternatives; nothing where it has no group."""
    if "{" not in text:
        return []
    tokens = _tokens(text)
    for begin in (n for n, char in enumerate(tokens) if char == "{"):
        cuts = _cuts(tokens, begin)
        if len(cuts) > 2:
            head, tail = tokens[:begin], tokens[cuts[-1] + 1 :]
            return ["".join([*head, *tokens[a + 1 : b], *tail]) for a, b in itertools.pairwise(cuts)]
    return []


def _cuts(tokens: list[str], begin: int) -> list[int]:
    """Where the brace that opens at `begin`, its own commas, and its end are; nothing where it has no end."""
    depth, cuts = 0, [begin]
    for n in range(begin, len(tokens)):
        depth += (tokens[n] == "{") - (tokens[n] == "}")
        if depth == 0 or (depth == 1 and tokens[n] == ","):
            cuts.append(n)
        if depth == 0:
            return cuts
    return []


def _without_double_stars(text: str) -> list[str]:
    """The patterns that a text with `**` in it stands for: `a**b` is `a*b`, or an `a*` with a `*b` somewhere in it."""
    if DEEP not in text:
        return [text]
    pieces = [""]
    for token in _tokens(text):
        if token.startswith("**"):
            pieces.append("")
        else:
            pieces[-1] += token
    if 2 ** (len(pieces) - 1) > MAX_PATTERNS:
        raise TooManyPatterns
    found = []
    for ways in itertools.product(("*", f"*/{DEEP}/*"), repeat=len(pieces) - 1):
        found.append("".join(piece + way for piece, way in zip(pieces, (*ways, ""), strict=True)))
    return found
