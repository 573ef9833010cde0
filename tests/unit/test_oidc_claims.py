"""What the claims of a token say of its user."""

from typing import Any

import pytest

from tesk.server.people.oidc.claims import (
    check_introspected,
    claim,
    good_for_s,
    groups,
    identity_of,
    must_ask,
    scopes,
)
from tesk.server.people.oidc.issuers import Issuer
from tesk.server.people.way import NotLetIn

NS = "urn:geant:example.org:group:"
ISSUER = Issuer(name="ls", issuer="https://login.example.org", anyone=True)


@pytest.mark.parametrize(
    ("written", "prefix", "member", "manages"),
    [
        (["lab-a", "lab-b"], "", {"lab-a", "lab-b"}, set()),
        ("lab-a", "", {"lab-a"}, set()),
        (["/tesk/lab-a", "/other"], "/tesk/", {"lab-a"}, set()),
        ([f"{NS}lab-a"], NS, {"lab-a"}, set()),
        ([f"{NS}lab-a#aai.example.org"], NS, {"lab-a"}, set()),
        ([f"{NS}lab-a:imaging#aai.example.org"], NS, {"lab-a:imaging"}, set()),
        ([f"{NS}lab-a:imaging:role=manager#aai.example.org"], NS, {"lab-a:imaging"}, {"lab-a:imaging"}),
        ([f"{NS}lab-a:role=member"], NS, {"lab-a"}, set()),
        ([f"{NS}lab%20a:bildgebung%20%C3%BC"], NS, {"lab a:bildgebung ü"}, set()),
        ([f"{NS}lab-a%3Aimaging"], NS, {"lab-a%3Aimaging"}, set()),  # not the subgroup imaging of lab-a
        (["urn:geant:other.org:group:lab-a"], NS, set(), set()),  # another namespace's lab-a is another lab
        ([f"{NS}lab-a"], f"{NS}lab-a:", set(), set()),
        ([f"{NS}tesk:lab-a"], f"{NS}tesk:", {"lab-a"}, set()),
        ([f"{NS}lab-a"], "", {f"{NS}lab-a"}, set()),
        (["", 7, None, ["x"], "a\nb", "x" * 256], "", set(), set()),
        ([f"{NS}role=manager"], NS, set(), set()),
        ({"lab-a": True}, "", set(), set()),
        (None, "", set(), set()),
    ],
)
def test_groups(written: Any, prefix: str, member: set[str], manages: set[str]) -> None:
    found = groups(written, prefix)
    assert found.member == member
    assert found.manages == manages


def test_a_thousand_groups_count_and_no_more() -> None:
    assert len(groups([f"g{n}" for n in range(2000)], "").member) == 1000


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("sub", "a"),
        ("realm_access.roles", ["x"]),
        ("https://example.org/groups", ["y"]),
        ("realm_access.none", None),
        ("sub.more", None),
        ("", None),
    ],
)
def test_a_claim_is_found_by_its_name_or_by_a_dotted_path(path: str, found: Any) -> None:
    claims = {"sub": "a", "realm_access": {"roles": ["x"]}, "https://example.org/groups": ["y"]}
    assert claim(claims, path) == found


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"scope": "tes openid"}, {"tes", "openid"}),
        ({"scp": ["tes"]}, {"tes"}),
        ({"scope": ["tes", 1]}, {"tes"}),
        ({}, set()),
        ({"scope": 7}, set()),
    ],
)
def test_scopes(claims: dict[str, Any], found: set[str]) -> None:
    assert scopes(claims) == found


def _issuer(**fields: Any) -> Issuer:
    return Issuer(**{"name": "ls", "issuer": "https://login.example.org", "anyone": True, **fields})


def test_an_identity_has_the_issuers_name_before_the_users() -> None:
    issuer = _issuer(admin_groups=("ops",), default_group="lab-a")
    found = identity_of(issuer, {"sub": "4711@ls", "name": "Alice", "groups": ["lab-a", "ops"]})
    assert (found.user, found.shown, found.default_group, found.is_admin) == ("ls:4711@ls", "Alice", "lab-a", True)
    assert found.groups == {"lab-a", "ops"}


def test_a_default_group_is_only_that_of_its_members() -> None:
    assert identity_of(_issuer(default_group="lab-a"), {"sub": "a", "groups": ["lab-b"]}).default_group == ""


def test_entitlements_come_before_groups_and_the_token_before_userinfo() -> None:
    both = {"sub": "a", "groups": ["plain"], "eduperson_entitlement": ["entitled"]}
    assert identity_of(ISSUER, both).groups == {"entitled"}
    assert identity_of(ISSUER, both, {"sub": "a", "groups": ["other"]}).groups == {"entitled"}
    assert identity_of(ISSUER, {"sub": "a"}, {"sub": "a", "groups": ["other"]}).groups == {"other"}
    of_userinfo = _issuer(groups_from="userinfo")
    assert identity_of(of_userinfo, both, {"sub": "a", "groups": ["other"]}).groups == {"other"}
    assert identity_of(_issuer(groups_from="token"), {"sub": "a"}, {"groups": ["other"]}).groups == frozenset()


@pytest.mark.parametrize("sub", [None, "", 7, " a", "a\n", "x" * 256])
def test_a_user_needs_a_name(sub: Any) -> None:
    with pytest.raises(NotLetIn, match="no claim sub"):
        identity_of(ISSUER, {"sub": sub})


def test_a_required_group_is_required() -> None:
    issuer = _issuer(anyone=False, required_groups=("lab-a", "lab-b"))
    assert identity_of(issuer, {"sub": "a", "groups": ["lab-b"]}).user == "ls:a"
    with pytest.raises(NotLetIn, match="none of these groups: lab-a, lab-b"):
        identity_of(issuer, {"sub": "a", "groups": ["lab-c"]})


@pytest.mark.parametrize(
    ("fields", "claims", "origin", "asks"),
    [
        ({}, {"sub": "a", "groups": []}, "token", False),
        ({}, {"sub": "a"}, "token", True),
        ({}, {"sub": "a"}, "introspection", True),
        ({}, {"sub": "a"}, "userinfo", False),
        ({"groups_from": "token"}, {"sub": "a"}, "token", False),
        ({"groups_from": "userinfo"}, {"sub": "a", "groups": []}, "token", True),
        ({"groups_from": "userinfo"}, {"sub": "a", "groups": []}, "userinfo", False),
        ({"groups_from": "introspection"}, {"sub": "a", "groups": []}, "token", True),
        ({"groups_from": "introspection"}, {"sub": "a", "groups": []}, "introspection", False),
        ({"principal_claim": "voperson_id"}, {"sub": "a", "groups": []}, "token", True),
    ],
)
def test_the_provider_is_asked_for_what_a_token_lacks(
    fields: dict[str, Any], claims: dict[str, Any], origin: Any, asks: bool
) -> None:
    assert must_ask(_issuer(**fields), claims, origin) is asks


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({}, ""),
        ({"iss": "https://login.example.org", "aud": ["tes"], "exp": 1000, "nbf": 1000, "token_type": "Bearer"}, ""),
        ({"exp": 971}, ""),
        ({"iss": "https://other.example.org"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": 970}, "has expired"),
        ({"nbf": 1031}, "not valid yet"),
        ({"token_type": "DPoP"}, "not an access token"),
        ({"scope": ""}, "lacks scope tes"),
    ],
)
def test_introspection_is_held_to_what_jwts_are(claims: dict[str, Any], words: str) -> None:
    issuer = _issuer(audience=("tes",), required_scopes=("tes",))
    whole = {"aud": "tes", "scope": "tes", **claims}
    if not words:
        check_introspected(issuer, whole, 1000)
        return
    with pytest.raises(NotLetIn, match=words):
        check_introspected(issuer, whole, 1000)


@pytest.mark.parametrize(("end", "seconds"), [(None, 300), (1100, 100), (9999, 300), (900, 0)])
def test_what_was_found_is_kept_no_longer_than_the_token_lives(end: int | None, seconds: float) -> None:
    assert good_for_s(ISSUER, {} if end is None else {"exp": end}, 1000) == seconds
