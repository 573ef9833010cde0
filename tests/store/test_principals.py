"""Whose a task is, in the database: numbers of names, who sees and ends what, and sharing, on both databases."""

import asyncio
import itertools

import pytest

from tesk.identity import SERVER, Identity, Owner
from tesk.store import open_store, principals
from tesk.store.base import MayNotEnd, NewTask, Query, Shares, Store
from tesk.store.queries import Visible
from tesk.tes import State
from tests.servers.postgres import Postgres

LONG = "x" * 5000
OWNERS = [Owner(user, group) for user, group in itertools.product(("", "ann", "ben", LONG), ("", "ann", "lab", LONG))]
IDENTITIES = [
    SERVER,
    Identity(user=""),
    Identity(user="ann"),
    Identity(user="ann", is_admin=True),
    Identity(user="Ann", groups=frozenset({"", "Lab"}), manages=frozenset({"", "Lab"})),
    Identity(user="ben", groups=frozenset({"lab", "a\0b"}), manages=frozenset({"ann"})),
    Identity(user="cy", groups=frozenset({LONG}), manages=frozenset({LONG}), sharers=frozenset({"ann", ""})),
    Identity(user=LONG, sharers=frozenset({"\ud800"})),
]


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: f"{identity.user[:9]}-{len(identity.groups)}")
async def test_the_store_shows_and_ends_what_the_identity_says(store: Store, identity: Identity) -> None:
    ids = {owner: await store.create(NewTask(basic=b"{}", owner=owner)) for owner in OWNERS}
    page = {each.id for each in await store.page(Query(99), identity)}
    for owner, task_id in ids.items():
        sees, ends = identity.may_see(owner), identity.may_end(owner)
        assert (task_id in page) is sees, owner
        for view in ("MINIMAL", "BASIC", "FULL"):
            assert (await store.get(task_id, view, identity) is not None) is sees, owner
        if sees and not ends:
            with pytest.raises(MayNotEnd, match=f"task {task_id} is another user's"):
                await store.cancel(task_id, identity)
        else:
            assert await store.cancel(task_id, identity) is (State.CANCELED if ends else None), owner
        found = await store.get(task_id, "MINIMAL", SERVER)
        assert found is not None
        assert found.state is (State.CANCELED if ends else State.QUEUED)


async def test_long_tasks_are_for_those_who_see_them_too(store: Store) -> None:
    long = b'{"name":"' + b"x" * 100_000 + b'"}'
    task_id = await store.create(NewTask(basic=long, owner=Owner("ann")))
    for user, sees in (("ann", True), ("ben", False)):
        assert (await store.get(task_id, "BASIC", Identity(user=user)) is not None) is sees


async def test_a_name_has_one_number_for_all_servers_and_at_every_start(postgres_server: Postgres) -> None:
    url = postgres_server.new_database()
    stores = [open_store(url, log_tail_bytes=9) for _ in range(3)]
    await asyncio.gather(*(each.open() for each in stores))
    names = [f"user-{n}" for n in range(20)]
    made = await asyncio.gather(
        *(each.create(NewTask(basic=b"{}", owner=Owner(name, name))) for each in stores for name in names)
    )
    for each in stores:
        for n, name in enumerate(names):
            own = [task.id for task in await each.page(Query(9), Identity(user=name))]
            assert sorted(own) == sorted(made[n :: len(names)])
    assert int(postgres_server.psql("SELECT count(*) FROM principal", url)) == 2 * len(names)
    await asyncio.gather(*(each.close() for each in stores))


async def test_a_name_that_no_database_can_hold_owns_nothing(store: Store) -> None:
    for owner in (Owner("a\0b"), Owner("ann", "\ud800")):
        with pytest.raises(ValueError, match="cannot hold NUL"):
            await store.create(NewTask(basic=b"{}", owner=owner))


async def test_a_user_shares_the_own_tasks_to_be_seen_and_takes_that_back(store: Store) -> None:
    ann, ben = Identity(user="ann"), Identity(user="ben")
    task_id = await store.create(NewTask(basic=b"{}", owner=Owner("ann", "lab")))
    assert await store.page(Query(9), ben) == []
    for _ in range(2):
        await store.share("ann", "ben")
    assert [each.id for each in await store.page(Query(9), ben)] == [task_id]
    with pytest.raises(MayNotEnd):
        await store.cancel(task_id, ben)
    assert await store.shares("ann") == Shares(["ben"], [])
    assert await store.shares("ben") == Shares([], ["ann"])
    await store.create(NewTask(basic=b"{}", owner=Owner("ben")))
    assert [each.id for each in await store.page(Query(9), ann)] == [task_id], "the other does not share"
    for _ in range(2):
        await store.unshare("ann", "ben")
    assert await store.get(task_id, "MINIMAL", ben) is None
    assert await store.shares("ben") == Shares([], [])


async def test_another_server_sees_what_is_shared_and_what_no_more(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.new_database()
    one, other = (open_store(url, log_tail_bytes=9) for _ in range(2))
    await one.open()
    await other.open()
    task_id = await one.create(NewTask(basic=b"{}", owner=Owner("ann")))
    assert await other.get(task_id, "MINIMAL", Identity(user="ben")) is None
    monkeypatch.setattr(principals, "SHARES_S", 0.0)
    await one.share("ann", "ben")
    assert await other.get(task_id, "MINIMAL", Identity(user="ben")) is not None
    await one.unshare("ann", "ben")
    assert await other.get(task_id, "MINIMAL", Identity(user="ben")) is None
    await one.close()
    await other.close()


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_what_is_visible_in_parts_is_the_same(most: int) -> None:
    whole = Visible((1, 2, 3), (2, 7))
    parts = whole.parts(most)
    assert all(1 <= len(part.owners) + len(part.groups) <= most for part in parts)
    assert tuple(n for part in parts for n in part.owners) == whole.owners
    assert tuple(n for part in parts for n in part.groups) == whole.groups
