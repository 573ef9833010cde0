"""What the server says about itself: service-info, its old form, health and the API description.

Source: GA4GH service-info 1.0.0 and tesServiceInfo of TES 1.1.0. The old form, under /tasks/service-info, has exactly
the three keys that TES 1.0 knew: py-tes 0.4.2 fails on any other.
"""

import asyncio
import os
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tesk import __version__, schemes
from tesk.dispatch.dispatcher import Dispatcher
from tesk.filer.credentials import prefixes
from tesk.filer.reach import Reach
from tesk.filer.scheme import with_credentials
from tesk.server.exchange import Call, Refusal, Reply, encode
from tesk.settings import Settings
from tesk.store.base import Store, StoreError

READY_LIMIT_S: Final = 5.0


def storage(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The storage locations of service-info: those that are configured and can work, then the setting `storage`.

    They are file roots as file: URLs; prefixes with credentials; whole schemes with credentials in the environment,
    where filers have the environment of this process. Never the whole of file: Toil mounts every folder of its own
    machine that a listed prefix covers.
    """
    roots = [Path(root).expanduser().absolute().as_uri() for root in settings.file_roots]
    reach = Reach(settings.transfer_allow, settings.transfer_deny)
    found = [prefix for prefix in prefixes(settings.credentials) if _can_work(prefix, reach)]
    own = with_credentials(environ) if settings.engine == "local" else []
    return list(dict.fromkeys([*roots, *found, *own, *settings.storage]))


def _can_work(prefix: str, reach: Reach) -> bool:
    """False for a prefix that no transfer uses: its scheme takes no credentials, or its host is closed by name."""
    declared = schemes.BY_NAME.get(schemes.name_of(prefix))
    if declared is None or not declared.credentials:
        return False
    host = urlsplit(prefix).hostname or ""
    return bool(declared.bucket) or not reach.is_closed(host)


def service_info(settings: Settings, parameters: Collection[str]) -> dict[str, Any]:
    """tesServiceInfo."""
    return {
        "id": settings.service_id,
        "name": settings.service_name,
        "type": {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"},
        "description": settings.service_description,
        "organization": {"name": settings.organization_name, "url": settings.organization_url},
        "version": __version__,
        "storage": storage(settings, os.environ),
        "tesResources_backend_parameters": sorted(parameters),
    }


class Service:
    """The handlers that describe the server."""

    def __init__(self, settings: Settings, store: Store, dispatcher: Dispatcher, parameters: Collection[str]) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._info = encode(service_info(settings, parameters))
        self._old_info = encode(
            {
                "name": settings.service_name,
                "doc": settings.service_description,
                "storage": storage(settings, os.environ),
            }
        )

    async def info(self, call: Call) -> Reply:
        return Reply(200, self._info)

    async def old_info(self, call: Call) -> Reply:
        return Reply(200, self._old_info)

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
        return Reply(200, openapi())


def openapi() -> bytes:
    """The OpenAPI description of what is served, as JSON."""
    return resources.files("tesk.server").joinpath("openapi.json").read_bytes()
