"""What a request shows of its caller, as a table: which clients send what, and whose word counts."""

from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tesk.server.budget import MOST_BYTES, MemoryBudget, MemoryShare
from tesk.server.exchange import Call, Refusal
from tesk.server.people.credentials import NOTHING, address_of, credentials, is_within, shown

HERE = ip_address("192.0.2.1")


def basic(pair: str) -> bytes:
    return b"Basic " + b64encode(pair.encode())


def call(headers: list[tuple[str, bytes]], query: str = "") -> Call:
    scope = {
        "method": "GET",
        "path": "/",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value) for name, value in headers],
    }

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read of a body")

    return Call(scope, receive, MemoryShare(MemoryBudget(MOST_BYTES)))


def found(headers: list[tuple[str, bytes]], query: str = "", *, is_proxy: bool = False) -> list[tuple[str, str, str]]:
    given = credentials(shown(call(headers, query), is_proxy=is_proxy), HERE)
    assert all(each.address == HERE for each in given)
    return [(each.kind, each.user, each.secret) for each in given]


@pytest.mark.parametrize(
    ("headers", "query", "given"),
    [
        ([], "", []),
        ([("Authorization", basic("alice:a b:c"))], "", [("basic", "alice", "a b:c")]),
        ([("Authorization", b"basic " + b64encode("ünal:ß".encode()))], "", [("basic", "ünal", "ß")]),
        ([("Authorization", basic("None:None"))], "", []),  # py-tes 0.4.2 without a user
        ([("Authorization", basic(":"))], "", []),
        ([("Authorization", basic("alice"))], "", [("basic", "alice", "")]),
        ([("Authorization", basic("None:secret"))], "", [("basic", "None", "secret")]),
        ([("Authorization", b"Bearer tesk_a")], "", [("bearer", "", "tesk_a")]),
        ([("authorization", b"bearer  tesk_a ")], "", [("bearer", "", "tesk_a")]),
        ([("Authorization", b"Bearer")], "", []),
        ([("Authorization", b"Negotiate abc")], "", []),
        ([("X-API-Key", b"tesk_a")], "", [("key", "", "tesk_a")]),
        ([], "view=FULL&api_key=tesk_a%2Bb", [("key", "", "tesk_a+b")]),
        ([], "api_key=tesk_a", [("key", "", "tesk_a")]),
        ([], "not_api_key=tesk_a", []),
        ([], "api_key=", []),
        (
            [("Authorization", basic("None:None")), ("X-API-Key", b"tesk_h")],
            "api_key=tesk_q",
            [("key", "", "tesk_h"), ("key", "", "tesk_q")],
        ),
        ([("X-Forwarded-User", b"alice")], "", []),
    ],
)
def test_a_request_shows(headers: list[tuple[str, bytes]], query: str, given: list[tuple[str, str, str]]) -> None:
    assert found(headers, query) == given


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", b"Basic !!!")],
        [("Authorization", b"Basic " + b64encode(b"\xff:x"))],
        [("Authorization", b"Bearer \xff")],
        [("X-API-Key", b"\xff")],
    ],
)
def test_what_cannot_be_read_is_refused_without_being_quoted(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(Refusal, match="the credential is not UTF-8") as refusal:
        found(headers)
    assert refusal.value.status == 400


def test_nothing_is_nothing() -> None:
    assert shown(call([("Accept", b"*/*")], "view=FULL"), is_proxy=True) == NOTHING


def test_the_word_of_a_proxy_comes_before_what_it_passes_on() -> None:
    headers = [
        ("X-Forwarded-User", b"alice"),
        ("X-Forwarded-Groups", b"lab-a, lab-b,"),
        ("Authorization", b"Bearer x"),
    ]
    assert found(headers, is_proxy=True) == [("forwarded", "alice", ""), ("bearer", "", "x")]
    (first, _) = credentials(shown(call(headers), is_proxy=True), HERE)
    assert first.groups == ("lab-a", "lab-b")


@pytest.mark.parametrize("name", ["X-Forwarded-User", "X-Forwarded-Groups"])
def test_a_header_that_the_proxy_did_not_replace_is_refused(name: str) -> None:
    headers = [("X-Forwarded-User", b"eve"), ("X-Forwarded-Groups", b"lab"), (name, b"root")]
    with pytest.raises(Refusal, match="the caller's own header"):
        shown(call(headers), is_proxy=True)


@pytest.mark.parametrize(
    ("host", "forwarded_for", "is_proxy", "address"),
    [
        ("192.0.2.1", None, False, "192.0.2.1"),
        ("192.0.2.1", b"203.0.113.7", False, "192.0.2.1"),  # whose word does not count
        ("192.0.2.1", b"198.51.100.1, 203.0.113.7", True, "203.0.113.7"),  # what the proxy itself added
        ("192.0.2.1", None, True, "192.0.2.1"),
        ("192.0.2.1", b"unknown", True, None),
        ("", None, False, None),
    ],
)
def test_where_the_caller_is(host: str, forwarded_for: bytes | None, is_proxy: bool, address: str | None) -> None:
    headers = {} if forwarded_for is None else {b"x-forwarded-for": forwarded_for}
    assert address_of(host, headers, is_proxy=is_proxy) == (address and ip_address(address))


@pytest.mark.parametrize(
    ("address", "within"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.1.2.3", False), ("fd00::7", True), ("fd01::7", False)],
)
def test_networks_have_addresses_of_both_versions(address: str, within: bool) -> None:
    networks = [ip_network("10.0.0.0/8"), ip_network("fd00::/16")]
    assert is_within(ip_address(address), networks) == within
    assert not is_within(None, networks)
