"""What users and groups may have at once: what is active, and what is beyond a quota (pure)."""

from typing import Any

import pytest

from tesk.dispatch.active import Active, asked_by
from tesk.places.base import Demand
from tesk.rules import Quota, Quotas
from tesk.rules.quotas import QuotaLimit, group_limit, limits, user_limit

ANN, BEN, LAB = 1, 2, 3
TASK = Demand(0.1, 1)
QUOTAS = Quotas(
    users={"ann": Quota(gpus=2), "*": Quota(running_tasks=3)},
    groups={"lab": Quota(cpu_cores=4, ram_gb=16.5), "free": Quota()},
)


def limit(**quota: Any) -> QuotaLimit:
    found = group_limit(Quotas(groups={"lab": Quota(**quota)}), "lab")
    assert found is not None
    return found


def active(*tasks: tuple[int, int, Demand]) -> Active:
    made = Active()
    for n, (owner, group, demand) in enumerate(tasks):
        made.add(f"task-{n}", (owner, group), demand)
    return made


@pytest.mark.parametrize(
    ("quota", "taken", "asked", "reason"),
    [
        ({}, [TASK] * 99, TASK, None),
        ({"running_tasks": 2}, [TASK], TASK, None),
        ({"running_tasks": 2}, [TASK] * 2, TASK, "2 tasks at once"),
        ({"cpu_cores": 2}, [TASK] * 19, TASK, None),
        ({"cpu_cores": 2}, [TASK] * 20, TASK, "2 cores at once; it asks for 0.1, and tasks that run have 2"),
        ({"cpu_cores": 2}, [], Demand(2.5, 1), "2 cores at once; it asks for 2.5, and tasks that run have 0"),
        ({"ram_gb": 1.5}, [TASK], TASK, "1.5 GiB of memory at once; it asks for 1, and tasks that run have 1"),
        ({"ram_gb": 1.5, "running_tasks": 1}, [TASK], TASK, "1 task at once"),
        ({"gpus": 4}, [Demand(1, 1, gpus=2)], Demand(1, 1, gpus=2), None),
        ({"gpus": 4}, [Demand(1, 1, gpus=3)], TASK, None),
        ({"gpus": 4}, [Demand(1, 1, gpus=3)], Demand(1, 1, gpus=2),
         "4 GPUs at once; it asks for 2, and tasks that run have 3"),
        ({"ram_gb": 1}, [Demand(1, 1e300)] * 2, TASK,
         "1 GiB of memory at once; it asks for 1, and tasks that run have 2000000000000"),
    ],
)  # fmt: skip
def test_what_is_beyond_a_quota_waits(
    quota: dict[str, float], taken: list[Demand], asked: Demand, reason: str | None
) -> None:
    found = active(*((ANN, LAB, each) for each in taken))
    words = None if reason is None else f"the quota of group lab: {reason}"
    assert limit(**quota).reached(asked_by(asked), found.taken(LAB)) == words


@pytest.mark.parametrize(
    ("quota", "asked", "exceeded"),
    [
        ({}, Demand(1000, 1000, gpus=1000), None),
        ({"running_tasks": 1, "cpu_cores": 2, "ram_gb": 1, "gpus": 1}, Demand(2, 1, gpus=1), None),
        ({"cpu_cores": 2}, Demand(2.001, 1), 1),
        ({"ram_gb": 1}, Demand(1, 1.5), 2),
        ({"gpus": 1}, Demand(1, 1, gpus=2), 3),
    ],
)
def test_a_task_that_alone_is_beyond_a_quota(quota: dict[str, float], asked: Demand, exceeded: int | None) -> None:
    found = limit(**quota).exceeded(asked_by(asked))
    assert (found and found[0]) == exceeded


def test_each_who_has_no_quota_has_that_of_the_others() -> None:
    assert [each.whose for each in limits(QUOTAS, "ann", "lab")] == ["user ann", "group lab"]
    ann, ben, lab = user_limit(QUOTAS, "ann"), user_limit(QUOTAS, "ben"), group_limit(QUOTAS, "lab")
    assert [each and each.quota for each in (ann, ben, lab)] == [
        Quota(gpus=2), Quota(running_tasks=3), Quota(cpu_cores=4, ram_gb=16.5),
    ]  # fmt: skip
    assert group_limit(QUOTAS, "ann") is None
    assert list(limits(QUOTAS, "", "")) == [], "nobody has no quota"
    assert [each.most for each in limits(QUOTAS, "", "free")] == [(0, 0, 0, 0)]


def test_what_is_active_counts_for_the_user_and_for_the_group() -> None:
    found = active((ANN, LAB, TASK), (BEN, LAB, Demand(2, 0.5, gpus=1)), (ANN, 0, TASK), (0, 0, TASK))
    assert found.counts == {ANN: 2, BEN: 1, LAB: 2, 0: 1}
    assert found.taken(LAB) == (2_000_000, 2_100_000, 1_500_000, 1_000_000)
    assert found.taken(ANN) == (2_000_000, 200_000, 2_000_000, 0)


def test_what_has_ended_counts_no_more() -> None:
    found = active(*[(ANN, LAB, Demand(0.1, 0.3))] * 1000, (BEN, LAB, TASK))
    found.add("task-0", (ANN, LAB), Demand(0.1, 0.3))
    assert found.counts == {ANN: 1000, BEN: 1, LAB: 1001}, "the same task counts once"
    for n in range(1000):
        found.pop(f"task-{n}")
        found.pop(f"task-{n}")
    assert (found.counts, len(found)) == ({BEN: 1, LAB: 1}, 1)
    assert found.taken(ANN) == (0, 0, 0, 0)
    assert found.taken(LAB) == asked_by(TASK)
