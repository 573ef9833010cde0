"""Of a log that is too long its beginning and its end are read, each with a line that may be cut: what is shown."""

import pytest

from tesk.taskmaster.api import GAP, joined


@pytest.mark.parametrize(
    ("log", "end", "lines"),
    [
        (b"1\n2\n3\n4", b"2\n3\n4\n5\n", [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]),
        (b"1\n2\n3\n4", b"3\n4\n5\n", [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]),
        (b"1\n1\n1\n2", b"1\n1\n2\n", [b"1\n", b"1\n", b"1\n", b"2\n"]),
        (b"1\n2\n3", b"7\n8\n", [b"1\n", b"2\n", GAP, b"7\n", b"8\n"]),
        (b"1", b"7\n8\n", [GAP, b"7\n", b"8\n"]),
    ],
)
def test_the_two_are_joined_where_they_meet_and_show_a_gap_where_they_do_not(
    log: bytes, end: bytes, lines: list[bytes]
) -> None:
    assert joined(log, end) == b"".join(lines)
