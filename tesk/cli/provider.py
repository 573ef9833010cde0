"""What `tesk login` says to an OpenID Connect provider. Every call is bounded in time and size, and follows nothing."""

import json
from collections.abc import Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

TIMEOUT_S: Final = 20.0
MOST_BYTES: Final = 1024 * 1024
DEFAULT_LIFE_S: Final = 300.0
"""Of an access token whose provider does not tell how long it lives."""

Document = dict[str, Any]


class ProviderError(Exception):
    """The provider refuses. `code` is its word for why (RFC 6749 §5.2)."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ProviderAwayError(ProviderError):
    """No answer came, or none that makes sense: worth another try later."""


class IssuedTokens(NamedTuple):
    access_token: str
    refresh_token: str
    expires_in: float

    @classmethod
    def of(cls, answer: Document) -> "IssuedTokens":
        """Raises ProviderError where the answer has no token that whoever bears it may use."""
        access, refresh = answer.get("access_token"), answer.get("refresh_token", "")
        if not _is_word(access) or (refresh and not _is_word(refresh)):
            raise ProviderError("the provider gave no token")
        if str(answer.get("token_type", "bearer")).lower() != "bearer":
            raise ProviderError(f"the provider gave a token of type {answer.get('token_type')}, not Bearer")
        life = answer.get("expires_in")
        return cls(str(access), str(refresh), float(life) if isinstance(life, int | float) else DEFAULT_LIFE_S)


def discovered(issuer: str) -> Document:
    """The provider's metadata. Raises ProviderError."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    found = _call(Request(_safe(url)))  # noqa: S310 - see _safe
    if found.get("issuer") != issuer:
        raise ProviderError(f"the provider at {issuer} calls itself {found.get('issuer')!r}")
    return found


def post(url: str, form: Mapping[str, str], *, has_answer: bool = True) -> Document:
    """The answer to a form; empty where there is none to be expected. Raises ProviderError."""
    return _call(Request(_safe(url), urlencode(form).encode()), has_answer=has_answer)  # noqa: S310 - see _safe


def _safe(url: str) -> str:
    """Tokens leave this machine by TLS alone."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return url
    raise ProviderError(f"{url} is no URL that begins with https://")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _call(request: Request, *, has_answer: bool = True) -> Document:
    request.add_header("Accept", "application/json")
    is_here = _is_loopback(urlsplit(request.full_url).hostname or "")
    opener = build_opener(_NoRedirects, *([ProxyHandler({})] if is_here else []))
    where = request.full_url
    try:
        with opener.open(request, timeout=TIMEOUT_S) as reply:
            answer = _read(reply)
    except HTTPError as refusal:
        with refusal:
            answer = _read(refusal)
        code = str(answer.get("error") or "")
        if not code and refusal.code >= 500:
            raise ProviderAwayError(f"{where} answered {refusal.code}") from None
        reason = answer.get("error_description") or code or f"{where} answered {refusal.code}"
        raise ProviderError(str(reason)[:300], code) from None
    except (OSError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) else error
        raise ProviderAwayError(f"{where} cannot be reached ({cause or type(cause).__name__})") from None
    if has_answer and not answer:
        raise ProviderAwayError(f"{where} answered something that is no JSON object")
    return answer


def _read(reply: Any) -> Document:
    """A JSON object, else an empty one."""
    try:
        answer = json.loads(reply.read(MOST_BYTES))
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_word(token: Any) -> bool:
    return isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token and token != ""
