"""What a task used, by month: a table, and what holds for every task."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tesk import clock
from tesk.tes import OutputFileLog, TaskLog
from tesk.usage import SKEW_MS, Amounts, Used, month_of, used

NOW = "2026-12-31T12:00:00.000Z"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def log(start: str = "", end: str = "", *sizes: int) -> TaskLog:
    found = TaskLog(outputs=[OutputFileLog("s3://b/o", "/o", str(size)) for size in sizes])
    if start:
        found.start_time = start
    if end:
        found.end_time = end
    return found


NEVER = log()
HOUR = log("2026-11-30T08:00:00.000Z", "2026-11-30T09:00:00.000Z", 5, 7)
OVER_THE_MONTH = log("2026-11-30T23:00:00Z", "2026-12-01T02:00:00Z", 9)
H = 3_600_000


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([NEVER], []),
        ([log("", "2026-11-30T08:00:00Z")], []),
        ([log("soon", "2026-11-30T08:00:00Z")], []),
        ([HOUR], [Used("2026-11", 1, 2 * H, H // 2, 3 * H, 12)]),
        ([log("2026-11-30T09:00:00+01:00", "2026-11-30T08:00:00.001Z")], [Used("2026-11", 1, 2, 0, 3, 0)]),
        ([OVER_THE_MONTH], [Used("2026-11", 0, 2 * H, H // 2, 3 * H, 0), Used("2026-12", 1, 4 * H, H, 6 * H, 9)]),
        (
            [log("2026-11-30T23:00:00Z", "2026-12-01T00:00:00Z")],
            [Used("2026-11", 0, 2 * H, H // 2, 3 * H, 0), Used("2026-12", 1, 0, 0, 0, 0)],
        ),
        # several attempts: from the first start to the last end, with what was between them
        ([log("2026-11-30T07:00:00Z", "2026-11-30T07:10:00Z", 1), HOUR], [Used("2026-11", 1, 4 * H, H, 6 * H, 13)]),
        ([NEVER, HOUR], [Used("2026-11", 1, 2 * H, H // 2, 3 * H, 12)]),
        # without an end: until now
        ([log("2026-12-31T11:00:00Z")], [Used("2026-12", 1, 2 * H, H // 2, 3 * H, 0)]),
        # an end before the start, by two clocks
        ([log("2026-11-30T08:00:00Z", "2026-11-30T07:59:59Z")], [Used("2026-11", 1, 0, 0, 0, 0)]),
        # a year's end
        (
            [log("2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z")],
            [Used("2025-12", 0, 2000, 500, 3000, 0), Used("2026-01", 1, 2000, 500, 3000, 0)],
        ),
    ],
)
def test_a_task_used_what_it_asked_for_from_its_first_start_to_its_end(
    logs: list[TaskLog], expected: list[Used]
) -> None:
    assert used(logs, Amounts(2, 0.5, 3), ms("2025-12-31T00:00:00Z"), ms(NOW)) == expected


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("end", ["0001-01-01T00:00:00+14:00", "", "9999-12-31T23:59:59Z"])
def test_a_clock_that_is_wrong_costs_a_day_or_two_at_most(start: str, end: str) -> None:
    found = used([log(start, end)], Amounts(1, 1, 1), ms(NOW) - H, ms(NOW))
    assert sum(each.core_ms for each in found) <= H + 2 * SKEW_MS
    assert {each.month for each in found} <= {"2026-12", "2027-01"}


@pytest.mark.parametrize("size", ["", "-1", "many", "9" * 400])
def test_a_size_that_is_none_is_not_counted(size: str) -> None:
    one = log("2026-12-31T11:00:00Z")
    one.outputs = [OutputFileLog("s3://b/o", "/o", size)]
    assert [each.bytes_out for each in used([one], Amounts(), 0, ms(NOW))] == [0]


TIMES = st.integers(ms("2020-01-01T00:00:00Z"), ms("2030-01-01T00:00:00Z"))


@given(TIMES, st.integers(0, 400 * 24 * H), st.integers(0, 10_000))
def test_the_months_of_a_task_are_all_of_it(start_ms: int, length_ms: int, cores: int) -> None:
    logs = [log(clock.at(start_ms), clock.at(start_ms + length_ms))]
    found = used(logs, Amounts(cores, 0, 0), start_ms, start_ms + length_ms)
    assert sum(each.core_ms for each in found) == cores * length_ms
    assert [each.tasks for each in found] == [0] * (len(found) - 1) + [1]
    months = [each.month for each in found]
    assert months == sorted(set(months))
    assert (months[0], months[-1]) == (month_of(start_ms), month_of(start_ms + length_ms))
    assert months[0] == f"{datetime.fromtimestamp(start_ms / 1000, UTC):%Y-%m}"
