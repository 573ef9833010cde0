"""Tokens of a real provider, good and bad, and how often the provider is asked about them.

What a time is about moves by the way's own clock; what a token says of times is by this machine's.
"""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from tesk.server.people.way import CallerCredential, CannotTell, NotLetIn
from tests.oidc.conftest import KEY, MakeWay
from tests.servers.certificates import certificate
from tests.servers.oidc_provider import AUDIENCE, OidcProvider, ec_key, oidc_provider, rsa_key

OPAQUE: dict[str, Any] = {"audience": (), "required_groups": ("lab-a",), "opaque_tokens": "userinfo"}
INTROSPECTED: dict[str, Any] = {"opaque_tokens": "introspection"}


def _claims(provider: OidcProvider, **changed: Any) -> dict[str, Any]:
    """Good claims with these changed: None leaves one out, a timedelta is a time so far from now."""
    now = int(time.time())
    changed = {
        name: now + int(each.total_seconds()) if isinstance(each, timedelta) else each for name, each in changed.items()
    }
    claims = {"iss": provider.issuer, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    return {name: value for name, value in (claims | changed).items() if value is not None}


async def test_a_jwt_of_the_provider_is_let_in_and_its_groups_come_from_userinfo(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    found = await make_way().found(provider.token("alice", format="jwt", resource=AUDIENCE, scope="tes"))
    assert (found.identity.user, found.identity.shown) == ("lab:alice", "Alice Example")
    assert found.identity.groups == {"lab-a", "lab-a:imaging"}
    assert found.identity.manages == {"lab-a:imaging"}
    assert 0 < found.good_for_s <= 300
    assert provider.calls() == {"/.well-known/openid-configuration": 1, "/jwks": 1, "/me": 1}


async def test_a_jwt_that_has_its_groups_is_no_reason_to_ask_the_provider(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    way = make_way(group_prefix="")
    token = provider.token("bob", format="jwt", resource=AUDIENCE, scope="tes")
    assert (await way.found(token)).identity.groups == {"lab-b"}
    provider.calls()
    assert (await way.found(token)).identity.user == "lab:bob"
    assert not provider.calls()


async def test_an_elliptic_key_signs_too(provider: OidcProvider, make_way: MakeWay) -> None:
    key = ec_key("elliptic")
    provider.rotate(key)
    token = provider.token("bob", format="jwt", resource=AUDIENCE, scope="tes")
    assert jwt.get_unverified_header(token)["alg"] == "ES256"
    assert (await make_way().found(token)).identity.user == "lab:bob"


async def test_an_opaque_token_is_introspected(provider: OidcProvider, make_way: MakeWay) -> None:
    way = make_way(**INTROSPECTED, groups_from="introspection", group_prefix="")
    found = await way.found(provider.token("bob", resource=AUDIENCE, scope="tes"))
    assert found.identity.user == "lab:bob"
    assert found.identity.groups == {"lab-b"}
    with pytest.raises(NotLetIn, match="another audience"):
        await way.found(provider.token("bob", resource="https://other.example.org", scope="tes"))


async def test_an_opaque_token_lasts_no_longer_than_introspection_says(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    way = make_way(**INTROSPECTED, groups_from="token")
    token = provider.token("bob", resource=AUDIENCE, scope="tes", ttl_s=100)
    assert (await way.found(token)).good_for_s <= 100


async def test_an_opaque_token_without_introspection_is_shown_at_userinfo(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    found = await make_way(**OPAQUE).found(provider.token("alice"))
    assert found.identity.user == "lab:alice"
    assert found.identity.manages == {"lab-a:imaging"}
    with pytest.raises(NotLetIn, match="none of these groups: lab-a"):
        await make_way(**OPAQUE).found(provider.token("bob"))


@pytest.mark.parametrize("fields", [{}, OPAQUE, INTROSPECTED])
async def test_what_is_another_ways_is_left_to_it(
    provider: OidcProvider, make_way: MakeWay, fields: dict[str, Any]
) -> None:
    oidc = make_way(**fields).oidc
    assert await oidc.identify(CallerCredential("bearer", "", "tesk_abc")) is None
    assert await oidc.identify(CallerCredential("basic", "alice", "secret")) is None
    if not fields:
        assert await oidc.identify(CallerCredential("bearer", "", "opaque")) is None
    assert not provider.calls()


def _unsigned(claims: dict[str, Any]) -> str:
    head, body = (
        urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
    )
    return f"{head}.{body}."


def _by_public_key(claims: dict[str, Any]) -> str:
    """Signed by HMAC whose key is the provider's public one, which anybody has."""
    pem = KEY.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signer = jwt.api_jws.PyJWS()
    signer._algorithms["HS256"].prepare_key = lambda key: key  # type: ignore[method-assign]
    return signer.encode(json.dumps(claims).encode(), pem, "HS256", {"kid": KEY.kid})


def _cut(token: str) -> str:
    return token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")


Make = Callable[[dict[str, Any]], str]


@pytest.mark.parametrize(
    ("changed", "make", "words"),
    [
        ({}, KEY.sign, ""),
        ({"aud": ["https://other.example.org", AUDIENCE]}, KEY.sign, ""),
        ({"exp": timedelta(seconds=-1)}, KEY.sign, ""),  # within the leeway
        ({"exp": 1000}, KEY.sign, "has expired"),
        ({"exp": None}, KEY.sign, "has no claim exp"),
        ({"exp": "never"}, KEY.sign, "not understood"),
        ({"nbf": timedelta(hours=1)}, KEY.sign, "not valid yet"),
        ({"iat": timedelta(hours=1)}, KEY.sign, "not valid yet"),
        ({"iss": "https://evil.example.org"}, KEY.sign, "does not trust"),
        ({"iss": None}, KEY.sign, "does not trust"),
        ({"aud": "https://other.example.org"}, KEY.sign, "another audience"),
        ({"aud": None}, KEY.sign, "has no claim aud"),
        ({"sub": None}, KEY.sign, "has no claim sub"),
        ({"sub": ""}, KEY.sign, "another user"),
        ({}, _unsigned, "algorithm that does not count"),
        ({}, _by_public_key, "algorithm that does not count"),
        ({}, lambda claims: _cut(KEY.sign(claims)), "signature is wrong"),
        ({}, rsa_key("first").sign, "signature is wrong"),
        ({}, rsa_key("unknown").sign, "a key that its issuer does not have"),
        ({}, lambda claims: jwt.encode(claims, KEY.private, "RS256"), ""),  # no kid: there is but one key
        ({}, lambda claims: jwt.encode(claims, rsa_key("").private, "RS256"), "a key that its issuer does not have"),
        ({}, lambda claims: KEY.sign(claims, typ="logout+jwt"), "not an access token"),
        ({}, lambda claims: KEY.sign(claims, kid="../../etc/passwd"), "a key that its issuer does not have"),
        ({}, lambda claims: KEY.sign(claims, crit=["exp"]), "header is not understood"),
        ({}, lambda claims: KEY.sign(claims, jku="https://evil.example.org"), ""),  # nobody follows it
    ],
)
async def test_jwts(provider: OidcProvider, make_way: MakeWay, changed: dict[str, Any], make: Make, words: str) -> None:
    way = make_way(groups_from="token", leeway_s=300.0)
    token = make(_claims(provider, **changed))
    if not words:
        assert (await way.found(token)).identity.user == "lab:alice"
        return
    with pytest.raises(NotLetIn, match=words) as refusal:
        await way.found(token)
    assert token not in str(refusal.value)
    assert provider.calls().total() <= 3


async def test_a_key_of_another_size_than_counts_is_not_used(provider: OidcProvider, make_way: MakeWay) -> None:
    short = rsa_key("short", bits=1024)
    provider.rotate(KEY)
    way = make_way(groups_from="token")
    with pytest.raises(NotLetIn):
        await way.found(short.sign(_claims(provider)))


async def test_a_scope_may_be_required(provider: OidcProvider, make_way: MakeWay) -> None:
    way = make_way(required_scopes=("tes",), groups_from="token")
    assert await way.found(KEY.sign(_claims(provider, scope="openid tes")))
    with pytest.raises(NotLetIn, match="lacks scope tes"):
        await way.found(KEY.sign(_claims(provider, scope="openid")))


async def test_userinfo_of_another_user_is_a_lie(provider: OidcProvider, make_way: MakeWay) -> None:
    provider.set(userinfo="bob")
    with pytest.raises(NotLetIn, match="another user"):
        await make_way().found(KEY.sign(_claims(provider)))


async def test_64_requests_at_once_are_one_call(provider: OidcProvider, make_way: MakeWay) -> None:
    for way, token in (
        (make_way(), KEY.sign(_claims(provider))),
        (make_way(**OPAQUE), provider.token("alice")),
        (make_way(**INTROSPECTED, groups_from="token"), provider.token("alice", resource=AUDIENCE, scope="tes")),
    ):
        provider.calls()
        found = await asyncio.gather(*(way.found(token) for _ in range(64)))
        assert {each.identity.user for each in found} == {"lab:alice"}
        await way.found(token)
        calls = provider.calls()
        assert calls["/me"] + calls["/token/introspection"] == 1
        assert max(calls.values()) == 1


async def test_a_client_that_goes_away_takes_no_answer_from_the_others(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    provider.set(delay_ms=200)
    way, token = make_way(), KEY.sign(_claims(provider))
    first, second = (asyncio.create_task(way.found(token)) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    assert (await second).identity.user == "lab:alice"
    assert max(provider.calls().values()) == 1


async def test_after_the_cache_period_the_provider_is_asked_again(provider: OidcProvider, make_way: MakeWay) -> None:
    way, token = make_way(cache_s=60), KEY.sign(_claims(provider))
    await way.found(token)
    way.moment += 59
    await way.found(token)
    assert provider.calls()["/me"] == 1
    way.moment += 2
    await way.found(token)
    assert provider.calls()["/me"] == 1


async def test_a_refusal_by_the_provider_is_remembered(provider: OidcProvider, make_way: MakeWay) -> None:
    way = make_way(**INTROSPECTED)
    for _ in range(5):
        with pytest.raises(NotLetIn, match="no longer, valid"):
            await way.found("made-up")
    assert provider.calls()["/token/introspection"] == 1


async def test_new_keys_are_fetched_for_an_unknown_one_at_most_every_minute(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    way, second, third = make_way(groups_from="token"), ec_key("second"), rsa_key("third", "PS256")
    await way.found(KEY.sign(_claims(provider)))
    provider.rotate(second, KEY)
    with pytest.raises(NotLetIn, match="a key that its issuer does not have"):
        await way.found(second.sign(_claims(provider)))
    assert provider.calls()["/jwks"] == 1
    way.moment += 60
    tokens = [second.sign(_claims(provider)), *(rsa_key("x").sign(_claims(provider)) for _ in range(3))]
    results = await asyncio.gather(*(way.found(token) for token in tokens), return_exceptions=True)
    assert [isinstance(each, NotLetIn) for each in results] == [False, True, True, True]
    assert provider.calls()["/jwks"] == 1
    provider.rotate(third)
    way.moment += 60
    assert await way.found(third.sign(_claims(provider)))
    with pytest.raises(NotLetIn, match="a key that its issuer does not have"):
        await way.found(KEY.sign(_claims(provider)))


async def test_a_key_that_the_provider_took_back_counts_an_hour_at_most(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    way = make_way(groups_from="token")
    await way.found(KEY.sign(_claims(provider)))
    provider.rotate(rsa_key("next"))
    way.moment += 3600
    await way.found(KEY.sign(_claims(provider)))  # sees to it that keys are fetched, without waiting for them
    await asyncio.gather(*way.oidc.providers[provider.issuer].under_way())
    with pytest.raises(NotLetIn, match="a key that its issuer does not have"):
        await way.found(KEY.sign(_claims(provider)))


async def test_ten_thousand_bad_jwts_in_a_minute_are_a_few_calls(provider: OidcProvider, make_way: MakeWay) -> None:
    way = make_way()
    good = KEY.sign(_claims(provider))
    await way.found(good)
    bad = [key.sign(_claims(provider)).split(".") for key in (rsa_key("unknown"), rsa_key(KEY.kid))]
    for n in range(10_000):
        way.moment += 60 / 10_000
        head, body, signature = bad[n % 2]
        with pytest.raises(NotLetIn):
            await way.found(f"{head}.{body}.{signature[:8]}{n:08}{signature[16:]}")
    await way.found(good)
    assert provider.calls().total() <= 5


async def test_ten_thousand_made_up_tokens_in_a_minute_are_a_bounded_number_of_calls(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    way = make_way(**INTROSPECTED, groups_from="token")
    good, later = (provider.token("alice", resource=AUDIENCE, scope="tes") for _ in range(2))
    await way.found(good)
    for n in range(10_000):
        way.moment += 60 / 10_000
        with pytest.raises((NotLetIn, CannotTell)):
            await way.found(f"made-up-{n}")
    assert provider.calls()["/token/introspection"] <= 1 + 100 + 60
    await way.found(good)
    with pytest.raises(CannotTell, match="too many were no good"):
        await way.found(later)
    way.moment += 2
    assert await way.found(later)


@pytest.mark.parametrize("fault", [{"status": 503}, {"huge": True}, {"delay_ms": 9000}])
@pytest.mark.parametrize("fields", [{}, OPAQUE, INTROSPECTED])
async def test_while_the_provider_is_away_what_is_known_holds_and_the_rest_cannot_be_told(
    provider: OidcProvider, make_way: MakeWay, fault: dict[str, Any], fields: dict[str, Any]
) -> None:
    if not fields:
        known, new = (KEY.sign(_claims(provider, n=n)) for n in range(2))
    else:
        target = {"resource": AUDIENCE, "scope": "tes"} if fields is INTROSPECTED else {}
        known, new = (provider.token("alice", **target) for _ in range(2))
    way = make_way(**fields, **({"groups_from": "token"} if fields is INTROSPECTED else {}))
    await way.found(known)
    provider.set(**fault)
    await way.limit(3.0 if "delay_ms" in fault else 60.0)
    assert (await way.found(known)).identity.user == "lab:alice"
    provider.calls()
    for _ in range(20):
        with pytest.raises(CannotTell, match="issuer lab "):
            await way.found(new)
    assert provider.calls().total() == 1
    provider.set(status=0, huge=False, delay_ms=0)
    await way.limit(60.0)
    way.moment += 2
    assert (await way.found(new)).identity.user == "lab:alice"


async def test_a_provider_that_was_never_there_cannot_tell(provider: OidcProvider, make_way: MakeWay) -> None:
    provider.set(status=500)
    with pytest.raises(CannotTell, match="answered 500"):
        await make_way().found(KEY.sign(_claims(provider)))


async def test_while_the_provider_is_away_an_unknown_key_cannot_be_told(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    way, new = make_way(groups_from="token"), rsa_key("new")
    await way.found(KEY.sign(_claims(provider)))
    way.moment += 60
    provider.rotate(new)
    provider.set(status=503)
    for _ in range(2):
        with pytest.raises(CannotTell):
            await way.found(new.sign(_claims(provider)))
    provider.set(status=0)
    way.moment += 2
    assert await way.found(new.sign(_claims(provider)))


async def test_a_provider_is_trusted_by_its_certificate(tmp_path: Path, make_way: MakeWay) -> None:
    authority = certificate(tmp_path)
    with oidc_provider(KEY, tls=str(authority)) as provider:
        token = KEY.sign(_claims(provider))
        assert await make_way(issuer=provider.issuer, ca_file=str(authority)).found(token)
        with pytest.raises(CannotTell, match="cannot be reached"):
            await make_way(issuer=provider.issuer).found(token)


async def test_a_provider_that_calls_itself_otherwise_is_not_the_issuer(
    provider: OidcProvider, make_way: MakeWay
) -> None:
    other = f"{provider.issuer}/"
    way = make_way(issuer=other)
    with pytest.raises(CannotTell, match="calls itself"):
        await way.found(KEY.sign(_claims(provider, iss=other)))
