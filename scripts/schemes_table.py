"""Writes the table of URLs in docs/storage.md anew from the registry of storage schemes."""

import re
from pathlib import Path

from tesk.schemes import DECLARATIONS

PAGE = Path(__file__).parents[1] / "docs" / "storage.md"
TABLE = re.compile(r"(?m)^\| URL \|.*\n(\|.*\n)*")
HEAD = """\
| URL | input | output | directory |
|---|---|---|---|
| `content` (no URL) | the text itself | – | – |
"""


def table() -> str:
    """The table in Markdown."""
    rows = [(declared.urls, declared.reads, declared.writes, declared.directories) for declared in DECLARATIONS]
    return HEAD + "".join(f"| {' | '.join(cell or '–' for cell in row)} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
