"""A real provider for all tests of this folder, and the way in to it with a clock that the tests move."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tesk.server.people.oidc.issuers import Issuer
from tesk.server.people.oidc.way import Oidc
from tesk.server.people.way import CallerCredential, LetIn
from tests.servers.oidc_provider import AUDIENCE, CLIENT, PREFIX, SECRET, OidcProvider, oidc_provider, rsa_key

KEY = rsa_key("first")


class WayIn:
    """The way in to the provider through a table with these fields. `moment` is the time by its clock."""

    def __init__(self, issuer: Issuer) -> None:
        self.moment = 1000.0
        self.oidc = Oidc([issuer], lambda: self.moment)

    async def limit(self, timeout_s: float) -> None:
        """The provider has so long for each answer from now on."""
        for provider in self.oidc.providers.values():
            await provider.close()
            provider.issuer = msgspec.structs.replace(provider.issuer, timeout_s=timeout_s)

    async def found(self, token: str) -> LetIn:
        found = await self.oidc.identify(CallerCredential("bearer", "", token))
        assert found is not None
        return found


@pytest.fixture(scope="session")
def running_provider() -> Iterator[OidcProvider]:
    with oidc_provider(KEY) as provider:
        yield provider


@pytest.fixture
def provider(running_provider: OidcProvider) -> Iterator[OidcProvider]:
    """The provider with its first key, without faults, and with its calls counted from now."""
    running_provider.set(userinfo="", status=0, delay_ms=0, huge=False)
    running_provider.rotate(KEY)
    running_provider.calls()
    yield running_provider
    running_provider.set(userinfo="", status=0, delay_ms=0, huge=False)


MakeWay = Callable[..., WayIn]


@pytest_asyncio.fixture
async def make_way(provider: OidcProvider, tmp_path: Path) -> AsyncIterator[MakeWay]:
    (tmp_path / "secret").write_text(SECRET)
    ways = []

    def make(**fields: Any) -> WayIn:
        table = {
            "name": "lab",
            "issuer": provider.issuer,
            "audience": (AUDIENCE,),
            "group_prefix": PREFIX,
            "timeout_s": 60.0,
        }
        table |= {"client_id": CLIENT, "client_secret_file": str(tmp_path / "secret")}
        ways.append(WayIn(Issuer(**{**table, **fields})))
        return ways[-1]

    yield make
    for way in ways:
        await way.oidc.close()
