"""What users and groups used: exact, once for each task, whatever becomes of the tasks; on both databases."""

import asyncio
import itertools
import time

import pytest

from tesk.identity import SERVER, Identity, Owner
from tesk.store.base import NewTask, Store, StoreError
from tesk.tes import TERMINAL, State, TaskLog
from tesk.usage import MonthlyUsage, Used

ANN, LAB = Owner("ann", "lab"), "lab"
NOVEMBER = Used("2026-11", 1, 8000, 500, 0, 12)
DIVIDED = [Used("2026-11", 0, 100, 10, 1, 0), Used("2026-12", 1, 200, 20, 2, 7)]
ALL = ("0000-00", "9999-99")
PEOPLE = {
    "ann": Identity(user="ann", groups=frozenset({LAB})),
    "bob": Identity(user="bob", groups=frozenset({LAB}), sharers=frozenset({"ann"})),
    "manager": Identity(user="max", groups=frozenset({LAB}), manages=frozenset({LAB})),
    "stranger": Identity(user="lab", groups=frozenset({"ann"}), manages=frozenset({"ann"})),
    "admin": Identity(user="root", is_admin=True),
    "nobody": Identity(user=""),
}
OWNERS = [Owner("ann"), ANN, Owner("bob", LAB), Owner("bob", "other"), Owner()]


async def ended(store: Store, owner: Owner, *used: Used, state: State = State.COMPLETE) -> str:
    task_id = await store.create(NewTask(basic=b"{}", owner=owner))
    assert await store.advance(task_id, State.RUNNING, TaskLog())
    assert await store.advance(task_id, state, TaskLog(), used=used)
    return task_id


async def test_what_tasks_used_is_added_up_by_month_user_and_group(store: Store) -> None:
    for owner in (ANN, ANN, Owner("ann"), Owner("bob", LAB), Owner()):
        await ended(store, owner, NOVEMBER)
    await ended(store, ANN, *DIVIDED)
    await ended(store, ANN)
    assert await store.usage(*ALL, SERVER) == [
        MonthlyUsage("2026-11", "", "", *NOVEMBER[1:]),
        MonthlyUsage("2026-11", "ann", "", *NOVEMBER[1:]),
        MonthlyUsage("2026-11", "ann", LAB, 2, 16_100, 1010, 1, 24),
        MonthlyUsage("2026-11", "bob", LAB, *NOVEMBER[1:]),
        MonthlyUsage("2026-12", "ann", LAB, *DIVIDED[1][1:]),
    ]
    assert [each.month for each in await store.usage("2026-12", "2026-12", SERVER)] == ["2026-12"]


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_a_task_counts_once_however_often_its_end_is_told(store: Store, state: State) -> None:
    task_id = await ended(store, ANN, NOVEMBER, state=state)
    for again in (state, State.SYSTEM_ERROR):
        assert not await store.advance(task_id, again, TaskLog(), used=[NOVEMBER])
    assert await store.usage(*ALL, SERVER) == [MonthlyUsage("2026-11", "ann", LAB, *NOVEMBER[1:])]


async def test_of_many_racing_ends_one_counts(store: Store) -> None:
    task_id = await store.create(NewTask(basic=b"{}", owner=ANN))
    ends = [store.advance(task_id, end, TaskLog(), used=[NOVEMBER]) for end in sorted(TERMINAL) * 4]
    assert sum(await asyncio.gather(*ends)) == 1
    assert [each.tasks for each in await store.usage(*ALL, SERVER)] == [1]


async def test_ends_at_once_are_all_counted(store: Store) -> None:
    tasks = [await store.create(NewTask(basic=b"{}", owner=ANN)) for _ in range(100)]
    await asyncio.gather(*(store.advance(each, State.COMPLETE, TaskLog(), used=DIVIDED) for each in tasks))
    assert await store.usage(*ALL, SERVER) == [
        MonthlyUsage(each.month, "ann", LAB, *(100 * amount for amount in each[1:])) for each in DIVIDED
    ]
    assert await store.core_seconds("2026-12", ANN) == (20, 20)


async def test_an_end_that_the_database_refuses_harms_no_other(store: Store, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        return
    tasks = [await store.create(NewTask(basic=b"{}", owner=ANN)) for _ in range(20)]
    too_much = NOVEMBER._replace(core_ms=2**63 - 1)
    amounts = [too_much if n % 5 == 4 else NOVEMBER for n in range(20)]
    ends = (
        store.advance(each, State.COMPLETE, TaskLog(), used=[one]) for each, one in zip(tasks, amounts, strict=True)
    )
    found = await asyncio.gather(*ends, return_exceptions=True)
    refused = [each for each in found if isinstance(each, StoreError)]
    assert len(refused) >= 3
    assert sum(each is True for each in found) + len(refused) == 20
    assert found[:4] == [True] * 4


async def test_what_was_used_outlives_its_tasks(store: Store) -> None:
    await ended(store, ANN, NOVEMBER)
    before = await store.usage(*ALL, SERVER)
    assert await store.prune(int(time.time() * 1000) + 1) == 1
    assert await store.usage(*ALL, SERVER) == before != []


async def test_core_seconds_are_those_of_the_user_and_of_the_whole_group(store: Store) -> None:
    for owner in OWNERS:
        await ended(store, owner, NOVEMBER)
    assert await store.core_seconds("2026-11", ANN) == (16, 16)
    assert await store.core_seconds("2026-11", Owner("bob", "other")) == (16, 8)
    assert await store.core_seconds("2026-11", Owner("ann")) == (16, 0)
    assert await store.core_seconds("2026-10", ANN) == (0, 0)
    assert await store.core_seconds("2026-11", Owner()) == (0, 0)
    assert await store.core_seconds("2026-11", Owner("new", "unknown")) == (0, 0)


SEEN = {
    "ann": {Owner("ann"), ANN},
    "bob": {Owner("bob", LAB), Owner("bob", "other")},
    "manager": {ANN, Owner("bob", LAB)},
    "stranger": set[Owner](),
    "admin": set(OWNERS),
    "nobody": set[Owner](),
}


@pytest.mark.parametrize("who", PEOPLE)
async def test_users_see_their_own_usage_managers_their_groups_and_admins_all(store: Store, who: str) -> None:
    for owner, amount in zip(OWNERS, itertools.count(1), strict=False):
        await ended(store, owner, NOVEMBER._replace(core_ms=amount))
    found = await store.usage(*ALL, PEOPLE[who])
    assert {Owner(each.user, each.group) for each in found} == SEEN[who]
    assert len(found) == len(SEEN[who])


async def test_a_user_who_ended_no_task_has_used_nothing(store: Store) -> None:
    task_id = await store.create(NewTask(basic=b"{}", owner=ANN))
    assert await store.cancel(task_id, PEOPLE["ann"]) is State.CANCELED
    assert await store.usage(*ALL, SERVER) == []
