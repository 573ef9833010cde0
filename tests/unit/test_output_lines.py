"""What a reporter or runner writes to its log is told apart again by whoever reads the log."""

import pytest

from tesk.kubernetes.names import executor_container, is_ours, task_pod
from tesk.kubernetes.output import executor_line, last_record, line, record_line, tails_from_log

PACKED = bytes(range(256))


def lines(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def test_tails_are_those_of_the_last_executor_in_the_log() -> None:
    first = [executor_line(0), line("stdout", "a"), line("stderr", "b"), record_line(PACKED)]
    second = [executor_line(1), line("stdout", "c"), "no JSON", "[]", "1", line("stdout", '{"executor": 2}')]
    assert tails_from_log(lines(*first), 10) == ("a", "b")
    assert tails_from_log(lines(*first, *second), 20) == ('c{"executor": 2}', "")


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ([], None),
        ([line("stdout", record_line(b"of a program"))], None),
        ([record_line(b""), record_line(PACKED), executor_line(1)], PACKED),
        ([record_line(PACKED), record_line(b"cut off in its midst")[:-5]], PACKED),
        ([record_line(PACKED), '{"record": "?"}', '{"record": 1}'], PACKED),
    ],
)
def test_the_last_record_in_a_log_is_found(log: list[str], found: bytes | None) -> None:
    assert last_record(lines(*log)) == found


def test_the_containers_of_a_whole_task_are_ours() -> None:
    assert all(map(is_ours, ("runner", executor_container(0), executor_container(1000), "look-1", "executor")))
    assert not any(map(is_ours, ("executor-", "executor-proxy", "istio-proxy", "look", "runner-1")))


def test_the_pod_of_a_further_attempt_has_its_number() -> None:
    assert [task_pod("x"), task_pod("x", 2)] == ["tesk-x", "tesk-x-2"]
