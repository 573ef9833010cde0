"""Makes text of others safe for a terminal: names, system logs, ids and errors that a user or a server has written.

An escape sequence in such a text could change what is on the screen, and a line break or a change of the writing
direction could fake a line of tesk. So control characters are shown as escapes. What a task's program wrote is sent
unchanged: it is the user's own, as with `docker logs`.
"""

import json
import re
from typing import Final

import click

_HIDDEN: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""DEL, C1, characters that change the writing direction (UAX 9) or break lines, and lone surrogates."""
_CONTROL: Final = re.compile(f"[\x00-\x1f{_HIDDEN}]")
_IN_JSON: Final = re.compile(f"[{_HIDDEN}]")


def escaped(text: object) -> str:
    r"""The text with `\x1b` for ESC, `\n` for a line break, `\u202e` for a right-to-left override …"""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), str(text))


def json_text(document: object, *, indent: int | None = None) -> str:
    """The document as JSON that means the same and holds no control character but the line breaks of `indent`."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return _IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def echo_output(text: object, *, err: bool) -> None:
    """Writes a program's output unchanged, also to a pipe. Lone surrogates, which have no UTF-8, are replaced."""
    click.echo(str(text or "").encode("utf-8", "replace").decode(), nl=False, err=err, color=True)
