"""One provider over HTTP: its metadata, its keys, userinfo and introspection.

A provider may be away, slow or broken, and whoever reaches tesk can make tokens up. So every call has a limit of time
and of size, calls for the same thing are one call, a provider that is away is left alone for a moment, and made-up
tokens are no reason to call it more than now and then.
"""

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote_plus, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from msgspec import Struct

from tesk.server.people.oidc.issuers import Issuer, is_safe
from tesk.server.people.way import CannotTell, NotLetIn

if TYPE_CHECKING:
    from tesk.server.people.oidc.jwts import SigningKey

T = TypeVar("T")
Claims = dict[str, Any]

KEYS_S: Final = 3600.0
"""After which metadata and keys are fetched again, so that a key that the provider took back no longer counts."""
UNKNOWN_KEY_S: Final = 60.0
"""Between two fetches of the keys because of a token that names an unknown one."""
AWAY_S: Final = 2.0
"""For which a provider that did not answer is not asked again."""
MADE_UP_S: Final = 1.0
"""In which one made-up opaque token may be asked about, on average; MADE_UP_MOST at once."""
MADE_UP_MOST: Final = 100.0
CONNECTIONS: Final = 16
MOST_BYTES: Final = 1024 * 1024
JWTS: Final = "tesk.server.people.oidc.jwts"
"""Imported in a thread, since it takes its time."""

log: Final = logging.getLogger(__name__)


class ProviderMetadata(Struct, frozen=True):
    """What is used of the provider's metadata (OpenID Connect Discovery)."""

    issuer: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    introspection_endpoint: str = ""
    introspection_endpoint_auth_methods_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ()


class Keys(Struct, frozen=True):
    """The provider's keys, and when they were fetched."""

    keys: tuple["SigningKey", ...]
    at: float


class Provider:
    """`clock` gives seconds that only grow."""

    def __init__(self, issuer: Issuer, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer = issuer
        self.calls = 0
        """How often the provider was asked something."""
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._shared: dict[str, asyncio.Task[Any]] = {}
        self._metadata: tuple[ProviderMetadata, float] | None = None
        self._keys: Keys | None = None
        self._asked_for_unknown = -UNKNOWN_KEY_S
        self._away_until = 0.0
        self._away_reason = ""
        self._budget = (MADE_UP_MOST, 0.0)

    def under_way(self) -> list[asyncio.Task[Any]]:
        """The calls that go on now."""
        return list(self._shared.values())

    async def close(self) -> None:
        tasks = self.under_way()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def keys(self) -> Keys:
        """The provider's keys. Those older than KEYS_S hold until newer ones have come. Raises CannotTell."""
        if self._keys is None:
            return await self.shared("keys", self._fetch_keys)
        if self._clock() - self._keys.at >= KEYS_S:
            self._start("keys", self._fetch_keys)
        return self._keys

    async def keys_after(self, known: Keys) -> Keys | None:
        """Newer keys than these, for a token that names an unknown one; None where they were fetched a moment ago."""
        if self._keys is not None and self._keys is not known:
            return self._keys
        if "keys" not in self._shared:
            now = self._clock()
            if now - max(self._asked_for_unknown, known.at) < UNKNOWN_KEY_S:
                return None
            self._asked_for_unknown = now
        try:
            return await self.shared("keys", self._fetch_keys)
        except CannotTell:
            self._asked_for_unknown = -UNKNOWN_KEY_S
            raise

    async def userinfo(self, token: str) -> Claims:
        """What the provider says of the token's user. Raises NotLetIn, CannotTell."""
        metadata = await self._discovered()
        if not metadata.userinfo_endpoint:
            raise CannotTell(self._says("has no userinfo endpoint, which its table in the issuers' file needs"))
        status, answer = await self._call(
            "GET", metadata.userinfo_endpoint, headers={"Authorization": f"Bearer {token}"}
        )
        if status in (400, 401, 403):
            raise NotLetIn(self._says("does not take the token for userinfo (was it revoked? has it scope openid?)"))
        if status != 200 or not answer:
            raise CannotTell(self._says(f"answered {status} for userinfo, or something that is no JSON object"))
        return answer

    async def has_userinfo(self) -> bool:
        return bool((await self._discovered()).userinfo_endpoint)

    async def introspection(self, token: str) -> Claims:
        """What the provider says of the token. Raises NotLetIn where it is not active, and CannotTell."""
        metadata = await self._discovered()
        if not metadata.introspection_endpoint:
            raise CannotTell(self._says("has no introspection endpoint, which its table in the issuers' file needs"))
        form, headers = await self._authenticated(metadata)
        form |= {"token": token, "token_type_hint": "access_token"}
        status, answer = await self._call("POST", metadata.introspection_endpoint, form=form, headers=headers)
        if status != 200:
            raise CannotTell(self._says(f"answered {status} for introspection; check client_id and client_secret_file"))
        if answer.get("active") is not True:
            raise NotLetIn(self._says("says that the token is not, or no longer, valid"))
        return answer

    def take_from_budget(self) -> None:
        """For an opaque token that may be made up. Raises CannotTell where too many of late were."""
        left, at = self._budget
        now = self._clock()
        left = min(MADE_UP_MOST, left + (now - at) / MADE_UP_S)
        if left < 1:
            raise CannotTell(self._says("is asked about no further tokens for a moment: too many were no good"))
        self._budget = (left - 1, now)

    def give_back_to_budget(self) -> None:
        """The token was none that was made up."""
        left, at = self._budget
        self._budget = (left + 1, at)

    async def shared(self, what: str, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the call that is under way for the same thing, or else of a new one.

        It goes on when a caller gives up: others wait for it.
        """
        return await asyncio.shield(self._start(what, start))

    def _start(self, what: str, start: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        def ended(task: asyncio.Task[T]) -> None:
            del self._shared[what]
            if not task.cancelled():
                task.exception()  # whoever waits has it

        if what not in self._shared:
            task = self._shared[what] = asyncio.create_task(start())
            task.add_done_callback(ended)
        return self._shared[what]

    def _says(self, text: str) -> str:
        return f"issuer {self.issuer.name} {text}"

    async def _discovered(self) -> ProviderMetadata:
        if self._metadata is not None and self._clock() - self._metadata[1] < KEYS_S:
            return self._metadata[0]
        try:
            return await self.shared("metadata", self._fetch_metadata)
        except CannotTell:
            if self._metadata is None:
                raise
            return self._metadata[0]

    async def _fetch_metadata(self) -> ProviderMetadata:
        url = f"{self.issuer.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, answer = await self._call("GET", url)
        try:
            metadata = msgspec.convert(answer if status == 200 else {}, ProviderMetadata)
        except msgspec.ValidationError:
            raise CannotTell(self._says(f"has no OpenID Connect metadata at {url} (status {status})")) from None
        if metadata.issuer != self.issuer.issuer:
            raise CannotTell(self._says(f"calls itself {metadata.issuer!r}, not {self.issuer.issuer!r}: check issuer"))
        for place in (metadata.jwks_uri, metadata.userinfo_endpoint, metadata.introspection_endpoint):
            if place and not is_safe(place):
                raise CannotTell(self._says(f"has an endpoint without TLS: {place}"))
        self._metadata = (metadata, self._clock())
        return metadata

    async def _fetch_keys(self) -> Keys:
        metadata = await self._discovered()
        status, answer = await self._call("GET", metadata.jwks_uri)
        listed = answer.get("keys")
        if status != 200 or not isinstance(listed, list):
            raise CannotTell(self._says(f"has no keys at {metadata.jwks_uri} (status {status})"))
        jwts = await asyncio.to_thread(import_module, JWTS)
        found = jwts.keys([each for each in listed if isinstance(each, dict)])
        if not found:
            raise CannotTell(self._says(f"has no key at {metadata.jwks_uri} that signs by RS256, ES256 or their kin"))
        self._keys = Keys(found, self._clock())
        return self._keys

    async def _authenticated(self, metadata: ProviderMetadata) -> tuple[dict[str, str], dict[str, str]]:
        """Form fields and headers of tesk as the provider's client. Source: RFC 6749 §2.3.1."""
        try:
            secret = await asyncio.to_thread(self.issuer.secret)
        except OSError as error:
            raise CannotTell(self._says(f"needs client_secret_file, which cannot be read: {error.strerror}")) from None
        methods = (
            metadata.introspection_endpoint_auth_methods_supported or metadata.token_endpoint_auth_methods_supported
        )
        if methods and "client_secret_basic" not in methods:
            return {"client_id": self.issuer.client_id, "client_secret": secret}, {}
        user = quote_plus(self.issuer.client_id)
        return {}, {"Authorization": aiohttp.encode_basic_auth(user, quote_plus(secret))}

    async def _call(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Claims]:
        """Status and JSON object of the answer; without one, an empty object. Raises CannotTell."""
        if self._clock() < self._away_until:
            raise CannotTell(self._away_reason)
        self.calls += 1
        try:
            session = await self._opened()
            async with session.request(
                method, url, data=form, headers=headers, allow_redirects=False, proxy=_proxy(url)
            ) as response:
                body = await _body(response)
        except TimeoutError:
            raise self._is_away(f"did not answer within {self.issuer.timeout_s:g} s") from None
        except (OSError, aiohttp.ClientError) as error:
            raise self._is_away(f"cannot be reached ({type(error).__name__})") from None
        if body is None:
            raise self._is_away(f"answered more than {MOST_BYTES} bytes")
        if response.status >= 500:
            raise self._is_away(f"answered {response.status}")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = {}
        return response.status, answer if isinstance(answer, dict) else {}

    def _is_away(self, text: str) -> CannotTell:
        self._away_until = self._clock() + AWAY_S
        self._away_reason = self._says(text)
        log.warning(self._away_reason)
        return CannotTell(self._away_reason)

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = await asyncio.to_thread(_trust, self.issuer.ca_file)
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context),
                    timeout=aiohttp.ClientTimeout(total=self.issuer.timeout_s),
                    headers={"Accept": "application/json"},
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
        return self._session


def _proxy(url: str) -> str | None:
    """The proxy of the environment (HTTPS_PROXY, NO_PROXY). Without TLS a call goes to loopback alone."""
    parts = urlsplit(url)
    if parts.scheme != "https" or proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get("https")


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """None where it is longer than bearable."""
    body = bytearray()
    async for piece in response.content.iter_chunked(64 * 1024):
        body += piece
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _trust(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
