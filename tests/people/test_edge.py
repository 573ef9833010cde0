"""The edge: what it asks the ways in and how often, what it keeps and forgets, whom it limits."""

import asyncio
from typing import Any

import pytest

from tesk.identity import Identity
from tesk.server.budget import MOST_BYTES, MemoryBudget, MemoryShare
from tesk.server.exchange import Call, Refusal
from tesk.server.people import edge as edge_module
from tesk.server.people.edge import BAD_FOR_S, Edge
from tesk.server.people.tries import ADDRESS_TRIES, ADDRESS_TRY_EVERY_S
from tests.people.cards import Cards
from tests.people.test_tries import Clock


def call(token: str, address: str = "192.0.2.1") -> Call:
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {"method": "GET", "path": "/", "query_string": b"", "headers": headers, "client": (address, 1)}

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read of a body")

    return Call(scope, receive, MemoryShare(MemoryBudget(MOST_BYTES)))


class Office:
    """An edge whose only way in is Cards, with a clock of the test's own."""

    def __init__(self, good_for_s: float = 300.0, **chosen: Any) -> None:
        self.clock = Clock()
        self.cards = Cards(good_for_s)
        settings = {"admins": (), "admin_groups": (), "trusted": (), "log": None, **chosen}
        self.edge = Edge(now=self.clock, **settings)
        self.edge.ways.append(self.cards)

    async def ask(self, token: str, address: str = "192.0.2.1") -> Identity:
        return await self.edge.identify(call(token, address))

    async def status(self, token: str, address: str = "192.0.2.1") -> int:
        try:
            await self.ask(token, address)
        except Refusal as refusal:
            return refusal.status
        return 200


async def test_a_credential_is_checked_once_while_it_is_good() -> None:
    office = Office(good_for_s=10)
    for _ in range(3):
        assert (await office.ask("card:alice")).user == "alice"
    assert office.cards.asked == ["card:alice"]
    office.clock.now += 11
    await office.ask("card:alice")
    assert len(office.cards.asked) == 2


async def test_what_is_good_for_no_time_is_asked_each_time() -> None:
    office = Office(good_for_s=0)
    for _ in range(3):
        office.clock.now += 0.001
        await office.ask("card:alice")
    assert len(office.cards.asked) == 3


@pytest.mark.parametrize("token", ["card:alice", "wrong"])
async def test_many_requests_at_once_are_one_check(token: str) -> None:
    office = Office()
    office.cards.is_open.clear()
    asking = [asyncio.create_task(office.status(token)) for _ in range(64)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    office.cards.is_open.set()
    assert set(await asyncio.gather(*asking)) == {200 if token == "card:alice" else 401}
    assert office.cards.asked == [token]


async def test_who_goes_away_takes_the_check_from_nobody() -> None:
    office = Office()
    office.cards.is_open.clear()
    first, second = (asyncio.create_task(office.ask("card:alice")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    office.cards.is_open.set()
    assert (await second).user == "alice"


async def test_a_wrong_credential_that_is_repeated_is_not_asked_again_for_a_while() -> None:
    office = Office()
    for _ in range(1000):
        assert await office.status("wrong") == 401
    assert office.cards.asked == ["wrong"]
    office.clock.now += BAD_FOR_S + 1
    await office.status("wrong")
    assert len(office.cards.asked) == 2


async def test_a_user_who_is_forgotten_is_asked_anew_and_nobody_else() -> None:
    office = Office()
    for user in ("alice", "bob"):
        await office.ask(f"card:{user}")
        await office.ask(f"card:{user}:read")
    office.edge.forget("alice")
    office.cards.asked.clear()
    for user in ("alice", "bob"):
        await office.ask(f"card:{user}")
        await office.ask(f"card:{user}:read")
    assert office.cards.asked == ["card:alice", "card:alice:read"]


async def test_what_was_found_before_somebody_was_forgotten_is_not_kept() -> None:
    office = Office()
    office.cards.is_open.clear()
    asking = asyncio.create_task(office.ask("card:alice"))
    await asyncio.sleep(0.01)
    office.edge.forget("alice")
    office.cards.is_open.set()
    await asking
    await office.ask("card:alice")
    assert len(office.cards.asked) == 2


async def test_while_a_way_in_cannot_tell_what_is_known_holds_and_the_rest_is_503() -> None:
    office = Office()
    await office.ask("card:alice")
    office.cards.is_away = True
    assert await office.status("card:alice") == 200
    with pytest.raises(Refusal, match="the office is closed") as refusal:
        await office.ask("card:bob")
    assert (refusal.value.status, refusal.value.headers) == (503, ((b"retry-after", b"5"),))
    office.cards.is_away = False
    assert await office.status("card:bob") == 200


async def test_a_way_in_that_does_not_answer_is_waited_for_no_longer_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge_module, "CHECK_LIMIT_S", 0.05)
    office = Office()
    office.cards.is_open.clear()
    assert await office.status("card:alice") == 503
    office.cards.is_open.set()
    assert await office.status("card:alice") == 200


async def test_different_wrong_tries_are_limited_for_their_address_alone() -> None:
    office = Office()
    await office.ask("card:alice")
    statuses = [await office.status(f"wrong-{n}") for n in range(ADDRESS_TRIES + 50)]
    assert statuses == [401] * ADDRESS_TRIES + [429] * 50
    assert len(office.cards.asked) == 1 + ADDRESS_TRIES
    assert await office.status("card:alice") == 200, "who is signed in already goes on"
    assert await office.status("card:bob", "192.0.2.2") == 200
    with pytest.raises(Refusal) as refusal:
        await office.ask("card:carol")
    ((name, seconds),) = refusal.value.headers
    assert name == b"retry-after"
    office.clock.now += int(seconds)
    assert await office.status("card:carol") == 200


async def test_ten_thousand_bad_tokens_in_a_minute_reach_the_ways_in_a_few_times() -> None:
    office = Office()
    await office.ask("card:alice")
    for n in range(10_000):
        office.clock.now += 60 / 10_000
        assert await office.status(f"wrong-{n}") in (401, 429)
    assert len(office.cards.asked) <= 1 + ADDRESS_TRIES + 60 / ADDRESS_TRY_EVERY_S + 1
    assert await office.status("card:alice") == 200


async def test_wrong_tries_at_once_are_as_many_as_one_after_the_other() -> None:
    office = Office()
    office.cards.is_open.clear()
    asking = [asyncio.create_task(office.status(f"wrong-{n}")) for n in range(ADDRESS_TRIES + 50)]
    await asyncio.sleep(0.05)
    office.cards.is_open.set()
    assert sorted(await asyncio.gather(*asking)) == [401] * ADDRESS_TRIES + [429] * 50


async def test_tokens_that_nobody_can_guess_are_not_limited() -> None:
    office = Office()
    assert {await office.status(f"tesk_{n}") for n in range(3 * ADDRESS_TRIES)} == {401}
    assert await office.status("card:alice") == 200


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_module, "MOST_GOOD", 10)
    monkeypatch.setattr(edge_module, "MOST_BAD", 10)
    office = Office()
    for n in range(50):
        await office.status(f"card:user-{n}")
        await office.status(f"tesk_{n}")
    assert (len(office.edge._good), len(office.edge._bad), len(office.edge._checking)) == (10, 10, 0)


async def test_the_admins_of_the_settings_are_admins_whichever_way_they_come() -> None:
    office = Office(admins=("alice",))
    assert (await office.ask("card:alice")).is_admin
    assert not (await office.ask("card:bob")).is_admin


async def test_a_credential_that_names_nobody_is_no_good() -> None:
    assert await Office().status("card:") == 401


async def test_no_kept_credential_can_be_read_in_the_servers_memory() -> None:
    office = Office()
    await office.ask("card:alice:read,submit")
    assert "card:alice:read,submit" not in repr(office.edge.__dict__)


async def test_checks_under_way_end_with_the_edge() -> None:
    office = Office()
    office.cards.is_open.clear()
    asking = asyncio.create_task(office.ask("card:alice"))
    await asyncio.sleep(0.01)
    await office.edge.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
