"""What the path of an output means: a pattern of POSIX, or one of Java as Nextflow uses it (pure).

TES knows the wildcards of POSIX 2.13. Nextflow sends its users' globs unchanged: in them `{a,b}` means either text, and
`**` means any text across directories of any depth. So a path has several meanings: first the POSIX pattern itself,
then each pattern without `{…}` and without `**`. These are POSIX patterns too, with one exception: a whole component
`**` means directories of any depth, or none.
"""

import itertools
import re
from typing import Final
from urllib.parse import unquote

WILDCARDS: Final = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]", re.DOTALL)
"""A wildcard that no backslash escapes. It is the last character of the match."""
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
    """A path stands for more than MAX_PATTERNS patterns."""


def is_plain(path: str) -> bool:
    """True for a path without any special character: it means itself alone."""
    return _SPECIAL.search(path) is None


def is_several(path: str) -> bool:
    """True for a path that may stand for several patterns."""
    return DEEP in path or ("{" in path and "," in path)


def patterns(path: str) -> list[str]:
    """The patterns that a path stands for, the POSIX meaning first. Raises TooManyPatterns."""
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
    """The same as POSIX patterns alone: a pattern with directories of any depth ends with the directory above them."""
    found = (pattern.partition(f"/{DEEP}/")[0] for pattern in patterns(path))
    return list(dict.fromkeys(found))


def literal(path: str) -> str:
    """The path without its escaping backslashes."""
    return re.sub(r"\\(.)", r"\1", path, flags=re.DOTALL)


def plain_directory(path: str) -> str:
    """The directory that contains what the path names, in each of its meanings."""
    return "/".join(itertools.takewhile(is_plain, path.split("/"))) or "/"


def implied_prefix(path: str, url: str) -> tuple[str, str] | None:
    """The path prefix and the directory's URL of an output whose URL ends with its pattern; None for other outputs.

    Nextflow sends patterns without `*` and `?` in this way.
    """
    prefix = plain_directory(path)
    tail = path.removeprefix(prefix).lstrip("/")
    base, *names = url.rsplit("/", tail.count("/") + 1)
    return (prefix, base) if tail and tail in ("/".join(names), unquote("/".join(names))) else None


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _without_groups(path: str) -> list[str]:
    """The texts with each `{a,b}` replaced by its alternatives. Braces without a comma or without an end stay."""
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
    """The text with its first group replaced, once by each alternative; empty where it has no group."""
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
    """The indexes of the brace at `begin`, of its own commas, and of its end; empty where it has no end."""
    depth, cuts = 0, [begin]
    for n in range(begin, len(tokens)):
        depth += (tokens[n] == "{") - (tokens[n] == "}")
        if depth == 0 or (depth == 1 and tokens[n] == ","):
            cuts.append(n)
        if depth == 0:
            return cuts
    return []


def _without_double_stars(text: str) -> list[str]:
    """The patterns of a text with `**`: `a**b` means `a*b`, or a directory `a*` with a `*b` at any depth below it."""
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
