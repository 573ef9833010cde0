"""Writes the table of docs/kubernetes.md anew from charts/tesk/values.yaml, whose comments are its meanings."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VALUES = ROOT / "charts" / "tesk" / "values.yaml"
PAGE = ROOT / "docs" / "kubernetes.md"
TABLE = re.compile(r"(?m)^\| value \|.*\n(\|.*\n)*")
_LINE = re.compile(r"( *)(\w+):(?: ([^#\n]*?))?(?: +# (.*))?")


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """(path, default, meaning) of each line that has a default or a meaning, in order."""
    above: list[str] = []
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            indent, key, default, meaning = match.groups()
            above[len(indent) // 2 :] = [key]
            if default or meaning:
                yield ".".join(above), default or "", meaning or ""


def table(text: str) -> str:
    """The table in Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, meaning in rows(text):
        lines.append(f"| `{path}` | {f'`{default}`' if default else ''} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(VALUES.read_text()), PAGE.read_text()))
