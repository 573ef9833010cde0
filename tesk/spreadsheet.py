"""CSV (RFC 4180) that a spreadsheet shows as it is written (pure).

Spreadsheets take a text that begins with `=` and some other characters for a formula, which may send the sheet's other
cells elsewhere. Names of users and groups come from others. So such a text gets an apostrophe before it. Every text is
quoted: what stands between quotes is one cell, also where the separator is another.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

FORMULA: Final = frozenset("=+-@＝＋－＠\t\r\n\0")
"""A text that begins with one of these may be taken for a formula. Source: OWASP, CSV Injection."""


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(headings)
    writer.writerows([_harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return written.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if FORMULA & {text[:1], text.lstrip()[:1]} else text
