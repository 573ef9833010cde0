"""Which tests run one after the other, and what they wait for."""

import pytest

from tests import parts
from tests.parts import Part, part

ENGINES = "tests/engines"


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/unit/test_tes.py::test_a[docker]", Part("unit", "tests/unit/test_tes.py")),
        ("tests/filer/test_s3.py::test_a", Part("filer", "tests/filer/test_s3.py")),
        ("tests/cluster/test_chart.py::test_a[3]", Part("cluster", "tests/cluster/test_chart.py::test_a[3]")),
        (f"{ENGINES}/test_lifecycle.py::test_a[podman]", Part("podman", "podman")),
        (f"{ENGINES}/test_executors.py::test_a[docker-image0]", Part("docker", "docker")),
        (f"{ENGINES}/test_local_outages.py::test_patience", Part("local", "local")),
        (
            f"{ENGINES}/test_x.py::test_a[kubernetes-a]",
            Part("kubernetes", f"{ENGINES}/test_x.py::test_a[kubernetes-a]"),
        ),
        (
            f"{ENGINES}/test_kubernetes_resources.py::test_a[kubernetes]",
            Part("kubernetes", f"{ENGINES}/test_kubernetes_resources.py kubernetes"),
        ),
        (f"{ENGINES}/test_nodes.py::test_a[disrupted-b]", Part("disrupted", "disrupted")),
        (
            f"{ENGINES}/test_kubernetes_outages.py::test_a[disrupted]",
            Part("disrupted", f"{ENGINES}/test_kubernetes_outages.py disrupted"),
        ),
        (f"{ENGINES}/test_lifecycle.py::test_a[oldest]", Part("oldest", "oldest")),
    ],
)
def test_the_part_and_the_group_follow_from_the_node_id(nodeid: str, expected: Part) -> None:
    assert part(nodeid) == expected


def test_the_longest_begin_first_and_what_waits_takes_turns_with_what_works() -> None:
    tests = [
        f"{ENGINES}/test_lifecycle.py::test_a[kubernetes]",
        "tests/unit/test_a.py::test_a",
        "tests/unit/test_b.py::test_a",
        "tests/unit/test_a.py::test_b",
        f"{ENGINES}/test_kubernetes_storm.py::test_a[kubernetes]",
    ]
    ordered = parts.in_turn(sorted(tests, key=parts.rank), part)
    assert ordered == [tests[4], tests[1], tests[3], tests[0], tests[2]]


@pytest.mark.parametrize(
    ("nodeid", "last"),
    [
        ("tests/unit/test_a.py::test_a", None),
        ("tests/filer/test_a.py::test_a", "gcs"),
        (f"{ENGINES}/test_lifecycle.py::test_a[kubernetes]", "image"),
        (f"{ENGINES}/test_lifecycle.py::test_a[oldest]", "oldest"),
    ],
)
def test_while_something_is_built_a_test_waits_for_the_last_thing_that_it_needs(nodeid: str, last: str | None) -> None:
    assert parts.built_by(nodeid) == (parts.BUILT.index(last) + 1 if last else 0)
