"""What the server says about itself: service-info, its old form, health and the API description.

Source: GA4GH service-info 1.0.0 and tesServiceInfo of TES 1.1.0. The old form, under /tasks/service-info, has exactly
the three keys that TES 1.0 knew: py-tes 0.4.2 fails on any other.
"""

import asyncio
import os
from collections.abc import Collection, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tesk import __version__, schemes
from tesk.dispatch.dispatcher import Dispatcher
from tesk.filer.access import StorageAccess, judge
from tesk.filer.credentials import prefixes
from tesk.filer.reach import Reach
from tesk.filer.scheme import with_credentials
from tesk.identity import EVERYBODY, Identity
from tesk.rules import NO_RULES, Rules, is_open_to
from tesk.rules.file import RulesFile
from tesk.server.exchange import Call, Refusal, Reply, encode
from tesk.settings import Settings
from tesk.store.base import Store, StoreError

READY_LIMIT_S: Final = 5.0
SIGN_IN: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "basic": {"basic": {"type": "http", "scheme": "basic"}},
    "oidc": {"access_token": {"type": "http", "scheme": "bearer"}},
    "token": {
        "token": {"type": "http", "scheme": "bearer"},
        "token_as_password": {"type": "http", "scheme": "basic"},
        "token_in_header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "token_in_query": {"type": "apiKey", "in": "query", "name": "api_key"},
    },
    "proxy": {},
}
"""The ways in as OpenAPI's security schemes. Of the proxy's nothing comes from the client."""


def storage(
    settings: Settings, environ: Mapping[str, str], rules: Rules = NO_RULES, identity: Identity = EVERYBODY
) -> list[str]:
    """The storage locations of service-info: those that are configured and can work, then the setting `storage`.

    They are file roots as file: URLs; prefixes with credentials, but for those that the rules do not open to the
    caller, and those that they open; whole schemes with credentials in the environment, where filers have the
    environment of this process. Never the whole of file: Toil mounts every folder of its own machine that a listed
    prefix covers.
    """
    roots = [Path(root).expanduser().absolute().as_uri() for root in settings.file_roots]
    reach = Reach(settings.transfer_allow, settings.transfer_deny)
    found = [prefix for prefix in prefixes(settings.credentials) if _can_work(prefix, reach)]
    opened = [prefix for prefix, rule in rules.storage.items() if is_open_to(identity, rule.users, rule.groups)]
    decide = judge(StorageAccess((*opened,), tuple(prefix for prefix in rules.storage if prefix not in opened))).decide
    found = [*(prefix for prefix in found if not decide(prefix).refusal), *opened]
    own = with_credentials(environ) if settings.engine == "local" else []
    return list(dict.fromkeys([*roots, *found, *own, *settings.storage]))


def _can_work(prefix: str, reach: Reach) -> bool:
    """False for a prefix that no transfer uses: its scheme takes no credentials, or its host is closed by name."""
    declared = schemes.BY_NAME.get(schemes.name_of(prefix))
    if declared is None or not declared.credentials:
        return False
    host = urlsplit(prefix).hostname or ""
    return bool(declared.bucket) or not reach.is_closed(host)


def service_info(
    settings: Settings, parameters: Collection[str], ways: Collection[str] = (), rules: Rules = NO_RULES
) -> dict[str, Any]:
    """tesServiceInfo. The ways in stand in the description: clients refuse a key that they do not know."""
    return {
        "id": settings.service_id,
        "name": settings.service_name,
        "type": {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"},
        "description": _described(settings, ways),
        "organization": {"name": settings.organization_name, "url": settings.organization_url},
        "version": __version__,
        "storage": storage(settings, os.environ, rules),
        "tesResources_backend_parameters": sorted(parameters),
    }


def _described(settings: Settings, ways: Collection[str]) -> str:
    return f"{settings.service_description} (sign in by: {', '.join(ways)})" if ways else settings.service_description


class Service:
    """The handlers that describe the server. `ways`: the names of the ways in."""

    def __init__(
        self, settings: Settings, store: Store, dispatcher: Dispatcher, parameters: Collection[str],
        ways: Collection[str], rules: RulesFile,
    ) -> None:  # fmt: skip
        self._store = store
        self._dispatcher = dispatcher
        self._ways = tuple(ways)
        self._settings = settings
        self._parameters = parameters
        self._rules = rules
        self._described: tuple[Rules, bytes, bytes] | None = None

    async def info(self, call: Call) -> Reply:
        return Reply(200, self._both()[0])

    async def old_info(self, call: Call) -> Reply:
        return Reply(200, self._both()[1])

    def _both(self) -> tuple[bytes, bytes]:
        """Service-info and its old form, by the rules as they are now."""
        rules = self._rules.rules
        if self._described is None or self._described[0] is not rules:
            new = service_info(self._settings, self._parameters, self._ways, rules)
            old = {"name": new["name"], "doc": new["description"], "storage": new["storage"]}
            self._described = rules, encode(new), encode(old)
        return self._described[1:]

    async def root(self, call: Call) -> Reply:
        return Reply(200, b'{"api":"/ga4gh/tes/v1","openapi":"/openapi.json"}')

    async def healthz(self, call: Call) -> Reply:
        """The process is alive and its event loop runs."""
        return Reply(200, b'{"status":"ok"}')

    async def readyz(self, call: Call) -> Reply:
        """Tasks can be stored and run."""
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                await self._store.ping()
                reason = await self._dispatcher.ready()
        except StoreError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"database and engine did not answer within {READY_LIMIT_S:.0f} s"
        if reason is not None:
            raise Refusal(503, reason)
        return Reply(200, b'{"status":"ok"}')

    async def openapi(self, call: Call) -> Reply:
        return Reply(200, openapi(self._ways))


@lru_cache(maxsize=1)
def openapi(ways: tuple[str, ...]) -> bytes:
    """The OpenAPI description of what is served, as JSON, with the security schemes of the ways in."""
    plain = resources.files("tesk.server").joinpath("openapi.json").read_bytes()
    if not ways:
        return plain
    document = msgspec.json.decode(plain)
    schemes = {name: scheme for way in ways for name, scheme in SIGN_IN[way].items()}
    document["components"]["securitySchemes"] = schemes
    document["security"] = [{name: []} for name in schemes]
    document["paths"]["/service-info"]["get"]["security"] = []
    return encode(document)
