"""The limit of wrong tries, in a time of the test's own."""

from ipaddress import ip_address

import pytest

from tesk.server.people import tries
from tesk.server.people.tries import ADDRESS_TRIES, ADDRESS_TRY_EVERY_S, NAME_TRIES, NAME_TRY_EVERY_S, Tries

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(limit: Tries, name: str = "", address: str = "192.0.2.1") -> int:
    """How many tries there are at once."""
    for count in range(10_000):
        if limit.take(ip_address(address), name):
            return count
    raise AssertionError("there is no limit")


def test_a_name_at_an_address_has_fewer_tries_than_the_address() -> None:
    limit = Tries(Clock())
    assert taken(limit, "alice") == NAME_TRIES
    assert taken(limit, "bob") == NAME_TRIES
    assert taken(limit) == ADDRESS_TRIES - 2 * NAME_TRIES
    assert limit.take(THERE, "alice") == 0, "a name is limited where it was tried, and nowhere else"


def test_the_wait_is_told_and_is_enough() -> None:
    clock = Clock()
    limit = Tries(clock)
    taken(limit, "alice")
    wait = limit.take(HERE, "alice")
    assert 0 < wait <= NAME_TRY_EVERY_S
    clock.now += wait
    assert limit.take(HERE, "alice") == 0
    assert limit.take(HERE, "alice") > 0
    clock.now += 1000
    assert taken(limit, "alice") == NAME_TRIES


def test_a_refused_try_takes_none() -> None:
    clock = Clock()
    limit = Tries(clock)
    taken(limit)
    for _ in range(1000):
        assert limit.take(HERE, "") > 0
    clock.now += ADDRESS_TRY_EVERY_S
    assert limit.take(HERE, "") == 0


def test_good_credentials_are_never_limited() -> None:
    limit = Tries(Clock())
    for _ in range(10 * ADDRESS_TRIES):
        assert limit.take(HERE, "alice") == 0
        limit.give_back(HERE, "alice")


def test_addresses_of_one_ipv6_network_are_one() -> None:
    limit = Tries(Clock())
    assert taken(limit, address="2001:db8::1") == ADDRESS_TRIES
    assert taken(limit, address="2001:db8::ffff:2") == 0
    assert taken(limit, address="2001:db8:0:1::1") == ADDRESS_TRIES
    assert taken(limit, address="::ffff:192.0.2.1") == ADDRESS_TRIES
    assert taken(limit, address="::ffff:192.0.2.2") == ADDRESS_TRIES


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "MOST_KNOWN", 100)
    limit = Tries(Clock())
    for n in range(1000):
        limit.take(HERE, f"user-{n}")
        limit.give_back(HERE, "")
    assert len(limit._free_at) <= 101
