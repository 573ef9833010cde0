"""Output patterns: which paths of a tree they match.

The rules are those of POSIX 2.13: `*` and `?` match no slash and no leading dot, `[!a-z]` excludes, `[[:digit:]]` is
a class, a backslash takes the next character as it is, and a `[` that nothing closes is itself. What other patterns
mean that clients send, tesk.patterns says in these.
"""

import functools
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from tesk.filer.bounds import Listing, check_depth
from tesk.filer.errors import TransferError
from tesk.filer.jail import Tree, look
from tesk.patterns import DEEP, literal, patterns

MAGIC: Final = re.compile(r"[*?\[]")
_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@functools.lru_cache(maxsize=256)
def component(pattern: str) -> re.Pattern[str]:
    """A regular expression for one component of a pattern (no slash in it).

    The first place that fits what stands between two stars is as good as any later one, so it is kept (an atomic
    group): a match takes at most as many steps as name and pattern have characters, multiplied.
    """
    first, *others = _between_stars(pattern)
    start = "" if pattern.startswith((".", "\\.")) else r"(?!\.)"
    if not others:
        return re.compile(start + first, re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    return re.compile(f"{start}{first}{middle}.*{others[-1]}", re.DOTALL)


def _between_stars(pattern: str) -> list[str]:
    """Expressions for what stands before, between and after the stars; each matches one fixed number of characters."""
    parts = [""]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append("")
        elif char == "?":
            parts[-1] += "."
        elif char == "\\" and at < len(pattern):
            parts[-1] += re.escape(pattern[at])
            at += 1
        elif char == "[" and (found := _bracket(pattern, at)):
            expression, at = found
            parts[-1] += expression
        else:
            parts[-1] += re.escape(char)
    return parts


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """The expression that opened just before `at`, and where it ends; None when nothing closes it."""
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    items: list[str] = []
    first = True
    while at < len(pattern):
        if pattern[at] == "]" and not first:
            body = "".join(items)
            nothing = "." if negated else r"(?!)"
            return f"[{'^' if negated else ''}{body}]" if body else nothing, at + 1
        first = False
        if pattern.startswith("[:", at) and (end := pattern.find(":]", at)) > 0:
            items.append(_CLASSES.get(pattern[at + 2 : end], ""))
            at = end + 2
            continue
        low, at = _element(pattern, at)
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _element(pattern, at + 1)
            items.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
        else:
            items.append(re.escape(low))
    return None


def _element(pattern: str, at: int) -> tuple[str, int]:
    """One character of a bracket expression: itself, escaped, or as [.x.] or [=x=]."""
    for opening, closing in (("[.", ".]"), ("[=", "=]")):
        if pattern.startswith(opening, at) and pattern.startswith(closing, at + 3):
            return pattern[at + 2], at + 5
    if pattern[at] == "\\" and at + 1 < len(pattern):
        return pattern[at + 1], at + 2
    return pattern[at], at + 1


def expand(tree: Tree, path: str, listing: Listing) -> list[str]:
    """The paths that exist and match one of the patterns that `path` stands for, in order; as matched, with the
    symlinks on their way left in.

    A pattern that ends with a slash matches directories only, one of any depth files only. Each name that is looked at
    is counted, for links can make a tree that has no end. Raises TransferError.
    """
    found: set[str] = set()
    for pattern in patterns(path):
        found.update(_expand_one(tree, pattern, listing))
    return sorted(found)


def _expand_one(tree: Tree, pattern: str, listing: Listing) -> Iterator[str]:
    found: Iterable[str] = ["/"]
    parts = posixpath.normpath(pattern).split("/")
    for part in parts:
        if part and part != "..":
            found = dict.fromkeys(path for base in found for path in _step(tree, base, part, listing))
    for path in found:
        if pattern.endswith("/"):
            fits = is_directory(tree, path)
        else:
            fits = exists(tree, path) and not (DEEP in parts and is_directory(tree, path))
        if fits:
            yield path


def _step(tree: Tree, base: str, part: str, listing: Listing) -> Iterable[str]:
    if part == DEEP:
        return _directories(tree, base, listing)
    if not MAGIC.search(part):
        return [posixpath.join(base, literal(part))]
    names = _names(tree, base, listing)
    return [posixpath.join(base, name) for name in names if component(part).fullmatch(name)]


def _directories(tree: Tree, base: str, listing: Listing) -> Iterator[str]:
    """A directory and those in it at any depth, but hidden ones, and what their links lead back to."""
    pending: list[tuple[str, tuple[str, ...]]] = [(base, ())]
    while pending:
        path, above = pending.pop()
        try:
            canonical = tree.resolve(path)
        except (OSError, TransferError):
            continue
        if canonical in above or not is_directory(tree, path):
            continue
        check_depth(len(above), path)
        yield path
        inside = (posixpath.join(path, name) for name in _names(tree, path, listing) if not name.startswith("."))
        pending += [(each, (*above, canonical)) for each in inside]


def _names(tree: Tree, base: str, listing: Listing) -> list[str]:
    """What a directory holds; nothing where it cannot be read."""
    try:
        canonical = tree.resolve(base)
    except (OSError, TransferError):
        return []
    try:
        here = tree.names(canonical)
    except OSError:
        return []
    for name in here:
        listing.add(f"{base}/{name}")
    return here


def exists(tree: Tree, path: str) -> bool:
    try:
        tree.resolve(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def is_directory(tree: Tree, path: str) -> bool:
    try:
        return stat.S_ISDIR(look(tree, path)[1].st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
