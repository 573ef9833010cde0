"""JWTs: PyJWT reads and verifies them; here stands what is asked of it.

Imported when the first token comes, in a thread: PyJWT with its cryptography takes a tenth of a second and 9 MB.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import jwt

from tesk.server.people.oidc.issuers import Issuer
from tesk.server.people.way import NotLetIn

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_ALGORITHMS: Final = frozenset((*_RSA, *_CURVES.values()))
"""Never `none`, and never HMAC, whose key would be the provider's public one."""
_TYPES: Final = frozenset(("", "jwt", "at+jwt", "application/at+jwt"))
"""`typ` of a token that may be an access token."""
_MOST_KEYS: Final = 64

_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet; are the clocks right?"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.InvalidSignatureError, "the token's signature is wrong"),
    (jwt.InvalidAlgorithmError, "the token is signed by an algorithm that does not count"),
    (jwt.InvalidKeyError, "the token is signed by a key that is too short or of the wrong kind"),
)


class SigningKey(NamedTuple):
    """A key of the provider and what it may sign by. `kid` is empty where the provider gives it no name."""

    kid: str
    algorithms: tuple[str, ...]
    key: jwt.PyJWK


class JwtHead(NamedTuple):
    """What a JWT says before anybody has verified it: enough to choose the issuer and its key."""

    issuer: str
    kid: str
    algorithm: str


class UnknownKey(Exception):
    """None of the keys is the one that the token names."""


def head(token: str) -> JwtHead | None:
    """None where the token is not a JWT. Raises NotLetIn for a JWT that cannot be an access token."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.DecodeError:
        return None
    except jwt.InvalidTokenError:
        raise NotLetIn("the token's header is not understood") from None
    if str(header.get("typ") or "").lower() not in _TYPES:
        raise NotLetIn("the token is not an access token, by its header's typ")
    algorithm = header.get("alg")
    if algorithm not in _ALGORITHMS:
        raise NotLetIn("the token is signed by an algorithm that does not count")
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        raise NotLetIn("the token's claims are not understood") from None
    return JwtHead(str(claims.get("iss", "")), str(header.get("kid", "")), str(algorithm))


def keys(documents: Sequence[Mapping[str, Any]]) -> tuple[SigningKey, ...]:
    """The keys of a JWKS that sign by what counts; of the others, which a provider may well have, none."""
    found = []
    for document in documents[:_MOST_KEYS]:
        if document.get("use", "sig") != "sig" or "verify" not in document.get("key_ops", ["verify"]):
            continue
        can = _RSA if document.get("kty") == "RSA" else (_CURVES.get(str(document.get("crv")), ""),)
        algorithms = tuple(each for each in can if each and document.get("alg", each) == each)
        if algorithms:
            try:
                key = jwt.PyJWK({**document}, algorithms[0])
            except jwt.PyJWTError:
                continue
            found.append(SigningKey(str(document.get("kid", "")), algorithms, key))
    return tuple(found)


def verified(token: str, found: JwtHead, keys: Sequence[SigningKey], issuer: Issuer) -> dict[str, Any]:
    """The claims of a token that the issuer signed for this server and that holds now. Raises NotLetIn, UnknownKey."""
    able = [key for key in keys if found.algorithm in key.algorithms]
    named = [key for key in able if key.kid == found.kid] if found.kid else able
    if not named:
        raise UnknownKey
    for key in named:
        try:
            return _claims(token, found.algorithm, key, issuer)
        except jwt.InvalidSignatureError:
            continue
        except jwt.PyJWTError as error:
            raise NotLetIn(_reason(error)) from None
    if not found.kid:
        raise UnknownKey
    raise NotLetIn("the token's signature is wrong")


def _claims(token: str, algorithm: str, key: SigningKey, issuer: Issuer) -> dict[str, Any]:
    return jwt.decode(
        token,
        key.key.key,
        algorithms=[algorithm],
        audience=list(issuer.audience) or None,
        issuer=issuer.issuer,
        leeway=issuer.leeway_s,
        options={
            "require": ["exp", "iss", "sub"],
            "verify_aud": bool(issuer.audience),
            "enforce_minimum_key_length": True,
        },
    )


def _reason(error: jwt.PyJWTError) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token has no claim {error.claim}"
    return next((words for kind, words in _REASONS if isinstance(error, kind)), "the token is not understood")
